// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
)

// CA is a certificate authority: a CA certificate, its private key, and its issuers.
// It is immutable and safe for concurrent use; callers must not change the results of its methods.
type CA struct {
	certificate *x509.Certificate
	issuers     []*x509.Certificate // from the issuer of certificate upwards; can end in a root
	chain       []*x509.Certificate // see Chain
	key         crypto.Signer
}

// Load returns the CA of a certificate chain and a private key in PEM. It returns a Problem if they are
// invalid, or not valid at now. certPEM is as in [ParseCertificates], keyPEM as in [ParseKey].
func Load(certPEM, keyPEM []byte, now time.Time) (*CA, *Problem) {
	certificates, problem := ParseCertificates(certPEM)
	if problem != nil {
		return nil, problem
	}
	key, problem := ParseKey(keyPEM)
	if problem != nil {
		return nil, problem
	}
	c, problem := New(certificates, key)
	if problem != nil {
		return nil, problem
	}
	if problem := c.ValidAt(now, 0); problem != nil {
		return nil, problem
	}
	return c, nil
}

// New returns the CA of a certificate chain, which [ParseCertificates] returned, and its private key. The CA
// can be expired.
func New(certificates []*x509.Certificate, key crypto.Signer) (*CA, *Problem) {
	c := &CA{certificate: certificates[0], issuers: certificates[1:], key: key}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(c.certificate.PublicKey) {
		return nil, Problemf(v1alpha1.ReasonCAKeyMismatch,
			"tls.key does not match the first certificate in tls.crt, %s: replace both together, and put the CA certificate before its issuers",
			describe(c.certificate))
	}
	c.chain = slices.DeleteFunc(c.all(), isRoot)
	return c, nil
}

// ValidAt returns nil if the CA is valid at now and for a further period, and a Problem otherwise.
func (c *CA) ValidAt(now time.Time, remain time.Duration) *Problem {
	for _, certificate := range c.all() {
		remaining := certificate.NotAfter.Sub(now)
		switch {
		case now.Before(certificate.NotBefore):
			return Problemf(v1alpha1.ReasonCANotYetValid,
				"the certificate %s is not valid before %s: wait until then, or correct the clock",
				describe(certificate), stamp(certificate.NotBefore))
		case remaining < 0:
			return Problemf(v1alpha1.ReasonCAExpired, "the certificate %s expired at %s: replace the CA with a renewed one",
				describe(certificate), stamp(certificate.NotAfter))
		case remaining < remain:
			return Problemf(v1alpha1.ReasonCAExpired,
				"the certificate %s expires at %s, too soon to issue the shortest certificate (%v): replace the CA with a renewed one",
				describe(certificate), stamp(certificate.NotAfter), remain)
		}
	}
	return nil
}

// Certificate returns the certificate whose key signs.
func (c *CA) Certificate() *x509.Certificate { return c.certificate }

// Issuers returns the configured issuers of the certificate, its own issuer first.
func (c *CA) Issuers() []*x509.Certificate { return slices.Clone(c.issuers) }

// Chain returns the certificates that a TLS server sends after a certificate of this CA: all but a root,
// which a client that trusts it already has (RFC 8446, section 4.4.2).
func (c *CA) Chain() []*x509.Certificate { return slices.Clone(c.chain) }

// Anchor returns the certificate that relying parties trust: the root if there is one, or else the last
// configured issuer.
func (c *CA) Anchor() *x509.Certificate { return c.all()[len(c.issuers)] }

// AnchoredBy reports whether a fingerprint is the fingerprint of the CA's anchor.
func (c *CA) AnchoredBy(id string) bool { return fingerprint(c.Anchor()) == id }

// Distrusted reports whether a list of fingerprints contains the CA's certificate or one of its issuers.
func (c *CA) Distrusted(fingerprints []string) bool {
	return slices.ContainsFunc(c.all(), func(certificate *x509.Certificate) bool {
		return slices.Contains(fingerprints, fingerprint(certificate))
	})
}

// Fingerprint returns the SHA-256 of the certificate's DER in lower-case hex.
func (c *CA) Fingerprint() string { return fingerprint(c.certificate) }

// Permits reports whether relying parties accept a certificate of this CA for an extended key usage. A CA
// certificate that lists extended key usages limits all certificates below it to them: RFC 5280 leaves
// that open, TLS clients enforce it.
func (c *CA) Permits(usage x509.ExtKeyUsage) bool {
	for _, certificate := range c.all() {
		limited := len(certificate.ExtKeyUsage)+len(certificate.UnknownExtKeyUsage) > 0
		if limited && !slices.Contains(certificate.ExtKeyUsage, usage) &&
			!slices.Contains(certificate.ExtKeyUsage, x509.ExtKeyUsageAny) {
			return false
		}
	}
	return true
}

// NotBefore returns the latest notBefore of the certificate and its issuers. No certificate verifies before it.
func (c *CA) NotBefore() time.Time {
	latest := slices.MaxFunc(c.all(), func(a, b *x509.Certificate) int { return a.NotBefore.Compare(b.NotBefore) })
	return latest.NotBefore
}

// NotAfter returns the earliest notAfter of the certificate and its issuers. No certificate verifies after it.
func (c *CA) NotAfter() time.Time {
	earliest := slices.MinFunc(c.all(), func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return earliest.NotAfter
}

// Status returns the description of the CA in the status of a Signer.
func (c *CA) Status() v1alpha1.CAStatus {
	return v1alpha1.CAStatus{
		Subject:     c.certificate.Subject.String(),
		Fingerprint: c.Fingerprint(),
		NotAfter:    metav1.NewTime(c.NotAfter()),
	}
}

// Sign issues a certificate for a public key and returns its DER. tbs is the result of [CA.ToBeSigned]
// for the same template: the key signs nothing else. Sign does not check the template: see the package's
// rule on its callers. ctx ends the request of a [ContextSigner].
func (c *CA) Sign(ctx context.Context, template *x509.Certificate, public crypto.PublicKey, tbs []byte) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, c.certificate, public, onlyFor{withContext{ctx, c.key}, tbs})
	if err != nil {
		return nil, fmt.Errorf("signing with CA %s: %w", describe(c.certificate), err)
	}
	return der, nil
}

// ContextSigner is a key that is held by another process, such as a KMS: its signature is a request that
// can time out.
type ContextSigner interface {
	crypto.Signer
	SignMessageContext(ctx context.Context, random io.Reader, message []byte, options crypto.SignerOpts) ([]byte, error)
}

// withContext is a key whose signatures end with a context.
type withContext struct {
	ctx context.Context //nolint:containedctx // crypto.MessageSigner has no parameter for it
	crypto.Signer
}

// SignMessage implements crypto.MessageSigner.
func (k withContext) SignMessage(random io.Reader, message []byte, options crypto.SignerOpts) ([]byte, error) {
	if remote, ok := k.Signer.(ContextSigner); ok {
		signature, err := remote.SignMessageContext(k.ctx, random, message, options)
		if err != nil {
			return nil, &remoteError{err}
		}
		return signature, nil
	}
	return crypto.SignMessage(k.Signer, random, message, options)
}

// remoteError is an error of a [ContextSigner]. It is not a problem of the certificate to sign.
type remoteError struct{ error }

func (e *remoteError) Unwrap() error { return e.error }

// onlyFor is a key for one message.
type onlyFor struct {
	key     withContext
	message []byte
}

func (k onlyFor) Public() crypto.PublicKey { return k.key.Public() }

// Sign implements crypto.Signer. Package x509 calls SignMessage instead.
func (onlyFor) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, errNoMessage }

func (k onlyFor) SignMessage(random io.Reader, message []byte, options crypto.SignerOpts) ([]byte, error) {
	if !bytes.Equal(message, k.message) {
		return nil, errors.New("the message to sign differs from the linted certificate")
	}
	return k.key.SignMessage(random, message, options)
}

// ToBeSigned returns the message that Sign signs for a template: the DER of a TBSCertificate (RFC 5280,
// section 4.1.2). It does not use the key of the CA.
func (c *CA) ToBeSigned(template *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
	r := &recorder{public: c.key.Public()}
	if _, err := x509.CreateCertificate(rand.Reader, template, c.certificate, public, r); !errors.Is(err, errRecorded) {
		return nil, err // never nil: a recorder signs nothing
	}
	return r.message, nil
}

// recorder is a key that records the message and does not sign it.
type recorder struct {
	public  crypto.PublicKey
	message []byte
}

var (
	errRecorded  = errors.New("recorded, not signed")
	errNoMessage = errors.New("signing a digest is not supported: sign the message")
)

func (r *recorder) Public() crypto.PublicKey { return r.public }

// Sign implements crypto.Signer. Package x509 calls SignMessage instead.
func (*recorder) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, errNoMessage }

func (r *recorder) SignMessage(_ io.Reader, message []byte, _ crypto.SignerOpts) ([]byte, error) {
	r.message = bytes.Clone(message)
	return nil, errRecorded
}

// ConstrainsNames reports whether a certificate of the CA has name constraints (RFC 5280, section
// 4.2.1.10). Relying parties then accept or reject a certificate of the CA by its names.
func (c *CA) ConstrainsNames() bool {
	return slices.ContainsFunc(c.all(), func(certificate *x509.Certificate) bool {
		return slices.ContainsFunc(certificate.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidNameConstraints) })
	})
}

var oidNameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}

// all returns a new slice of the certificates, the CA's own first.
func (c *CA) all() []*x509.Certificate {
	return append([]*x509.Certificate{c.certificate}, c.issuers...)
}
