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

// CA is a certificate authority: a certificate that may sign, its private key, and its issuers.
// It is immutable and safe for concurrent use; callers must not change what accessors return.
type CA struct {
	certificate *x509.Certificate
	issuers     []*x509.Certificate // from the issuer of certificate upwards; may end in a root
	chain       []*x509.Certificate // see Chain
	key         crypto.Signer
}

// Load reads a CA. certPEM holds its certificate, followed by those that issued it, each
// issued by the next; keyPEM its private key in PKCS#8, PKCS#1 or SEC 1. The error is a [*Problem].
func Load(certPEM, keyPEM []byte, now time.Time) (*CA, error) {
	c, err := load(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	if problem := c.ValidAt(now, 0); problem != nil {
		return nil, problem
	}
	return c, nil
}

// load reads a CA that may be expired. The error is a [*Problem].
func load(certPEM, keyPEM []byte) (*CA, error) {
	certificates, problem := parseCertificates(certPEM)
	if problem != nil {
		return nil, problem
	}
	c := &CA{certificate: certificates[0], issuers: certificates[1:]}
	if problem := checkCertificates(certificates); problem != nil {
		return nil, problem
	}
	c.key, problem = parseKey(keyPEM)
	if problem != nil {
		return nil, problem
	}
	public, ok := c.key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(c.certificate.PublicKey) {
		return nil, problemf(v1alpha1.ReasonCAKeyMismatch,
			"the private key in tls.key is not that of the first certificate in tls.crt, %s: put the pair that belongs together, the CA certificate before its issuers",
			describe(c.certificate))
	}
	c.chain = slices.DeleteFunc(c.all(), isRoot)
	return c, nil
}

// ValidAt returns a problem if the CA is not valid at now, or expires before remain has passed.
func (c *CA) ValidAt(now time.Time, remain time.Duration) *Problem {
	for _, certificate := range c.all() {
		remaining := certificate.NotAfter.Sub(now)
		switch {
		case now.Before(certificate.NotBefore):
			return problemf(v1alpha1.ReasonCANotYetValid,
				"the certificate %s is not valid before %s: wait until then, or set the clock right",
				describe(certificate), stamp(certificate.NotBefore))
		case remaining < 0:
			return problemf(v1alpha1.ReasonCAExpired, "the certificate %s expired at %s: put a renewed CA in its place",
				describe(certificate), stamp(certificate.NotAfter))
		case remaining < remain:
			return problemf(v1alpha1.ReasonCAExpired,
				"the certificate %s expires at %s, too soon to issue the shortest of certificates (%v): put a renewed CA in its place",
				describe(certificate), stamp(certificate.NotAfter), remain)
		}
	}
	return nil
}

// Certificate is the one that signs.
func (c *CA) Certificate() *x509.Certificate { return c.certificate }

// Issuers are those above it that were given, its own issuer first.
func (c *CA) Issuers() []*x509.Certificate { return slices.Clone(c.issuers) }

// Chain is what a TLS server sends after a certificate that this CA issued: every certificate
// given but a root, since whoever trusts a root has it (RFC 8446, section 4.4.2).
func (c *CA) Chain() []*x509.Certificate { return slices.Clone(c.chain) }

// Anchor is what relying parties trust: the root if one was given, or else the certificate
// furthest up.
func (c *CA) Anchor() *x509.Certificate { return c.all()[len(c.issuers)] }

// AnchoredBy reports whether a fingerprint is that of the CA's anchor.
func (c *CA) AnchoredBy(id string) bool { return fingerprint(c.Anchor()) == id }

// Distrusted reports whether a list of fingerprints has the CA's certificate, or one of its issuers.
func (c *CA) Distrusted(fingerprints []string) bool {
	return slices.ContainsFunc(c.all(), func(certificate *x509.Certificate) bool {
		return slices.Contains(fingerprints, fingerprint(certificate))
	})
}

// Fingerprint is the SHA-256 of the certificate's DER in lower-case hex.
func (c *CA) Fingerprint() string { return fingerprint(c.certificate) }

// Permits reports whether relying parties accept a certificate of this CA for an extended key
// usage: one that lists some limits all below it to them (RFC 5280 leaves that open; TLS clients do it).
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

// NotBefore is the latest of the certificate's and its issuers': nothing verifies before.
func (c *CA) NotBefore() time.Time {
	latest := slices.MaxFunc(c.all(), func(a, b *x509.Certificate) int { return a.NotBefore.Compare(b.NotBefore) })
	return latest.NotBefore
}

// NotAfter is the earliest of the certificate's and its issuers': nothing verifies after.
func (c *CA) NotAfter() time.Time {
	earliest := slices.MinFunc(c.all(), func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return earliest.NotAfter
}

// Status describes the CA for the status of a Signer.
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
		return remote.SignMessageContext(k.ctx, random, message, options)
	}
	return crypto.SignMessage(k.Signer, random, message, options)
}

// onlyFor is a key for one message.
type onlyFor struct {
	key     withContext
	message []byte
}

func (k onlyFor) Public() crypto.PublicKey { return k.key.Public() }

// Sign is there for crypto.Signer. Package x509 calls SignMessage where there is one.
func (onlyFor) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, errNoMessage }

func (k onlyFor) SignMessage(random io.Reader, message []byte, options crypto.SignerOpts) ([]byte, error) {
	if !bytes.Equal(message, k.message) {
		return nil, errors.New("what is to be signed is not what was linted")
	}
	return k.key.SignMessage(random, message, options)
}

// ToBeSigned returns what Sign would sign of a template: the DER of a TBSCertificate (RFC 5280,
// section 4.1.2). The key of the CA is not used.
func (c *CA) ToBeSigned(template *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
	r := &recorder{public: c.key.Public()}
	if _, err := x509.CreateCertificate(rand.Reader, template, c.certificate, public, r); !errors.Is(err, errRecorded) {
		return nil, err // never nil: a recorder signs nothing
	}
	return r.message, nil
}

// recorder stands in for a key: it keeps what it is to sign, and does not sign.
type recorder struct {
	public  crypto.PublicKey
	message []byte
}

var (
	errRecorded  = errors.New("recorded, not signed")
	errNoMessage = errors.New("a digest was to be signed, and not the message")
)

func (r *recorder) Public() crypto.PublicKey { return r.public }

// Sign is there for crypto.Signer. Package x509 calls SignMessage where there is one.
func (*recorder) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, errNoMessage }

func (r *recorder) SignMessage(_ io.Reader, message []byte, _ crypto.SignerOpts) ([]byte, error) {
	r.message = bytes.Clone(message)
	return nil, errRecorded
}

// ConstrainsNames reports whether a certificate of the CA has name constraints (RFC 5280, section
// 4.2.1.10), so that it depends on a certificate's names whether relying parties accept it.
func (c *CA) ConstrainsNames() bool {
	return slices.ContainsFunc(c.all(), func(certificate *x509.Certificate) bool {
		return slices.ContainsFunc(certificate.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidNameConstraints) })
	})
}

var oidNameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}

// all returns a new slice of every certificate, the CA's own first.
func (c *CA) all() []*x509.Certificate {
	return append([]*x509.Certificate{c.certificate}, c.issuers...)
}

// checkCertificates checks what does not depend on the time.
func checkCertificates(certificates []*x509.Certificate) *Problem {
	for i, c := range certificates {
		switch {
		case !c.BasicConstraintsValid || !c.IsCA:
			return invalid("the certificate %s is not that of a CA: its basic constraints must be CA:TRUE", describe(c))
		case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
			return invalid("the certificate %s may not sign certificates: its key usage must include certificate sign (keyCertSign)", describe(c))
		case len(c.RawSubject) == 0 || bytes.Equal(c.RawSubject, emptySequence):
			return invalid("the certificate %s has no subject: issuers need one (RFC 5280, section 4.1.2.6)", describe(c))
		case len(c.UnhandledCriticalExtensions) > 0:
			return invalid("the certificate %s has a critical extension %s that TLS clients reject: make the CA without it",
				describe(c), c.UnhandledCriticalExtensions[0])
		}
		if problem := weakKey(c.PublicKey); problem != "" {
			return invalid("the certificate %s has %s", describe(c), problem)
		}
		if i == 0 {
			continue
		}
		// RFC 5280, section 4.2.1.9: how many CAs may stand between this one and a certificate of the first.
		if c.MaxPathLen >= 0 && c.MaxPathLen < i {
			return invalid("the certificate %s lets at most %d CAs stand below it, and there are %d: have the lower ones issued by a CA with a longer path length, or sign with a higher one",
				describe(c), c.MaxPathLen, i)
		}
		if err := certificates[i-1].CheckSignatureFrom(c); err != nil {
			if insecure, ok := errors.AsType[x509.InsecureAlgorithmError](err); ok {
				return invalid("the certificate %s is signed with %s, which TLS clients reject: have it issued again with SHA-256 or better",
					describe(certificates[i-1]), x509.SignatureAlgorithm(insecure))
			}
			return invalid("the certificate %s is not issued by the one after it, %s: put the CA certificate first, then its issuer, and so on up",
				describe(certificates[i-1]), describe(c))
		}
		if !bytes.Equal(certificates[i-1].RawIssuer, c.RawSubject) {
			return invalid("the certificate %s names another issuer than the subject of the one after it, %s", describe(certificates[i-1]), describe(c))
		}
	}
	return nil
}

var emptySequence = []byte{0x30, 0x00}

// isRoot reports whether a certificate is signed with its own key.
func isRoot(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) &&
		c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}
