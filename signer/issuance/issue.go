// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/pkcs10"
	"countersign.dev/countersign/signer/ca"
)

// Issuance is a certificate that is linted and ready to be signed, once. Only [Prepare] makes one.
type Issuance struct {
	draft
	tbs  []byte // what was linted: the DER of a TBSCertificate
	used atomic.Bool
}

// draft is a certificate to be, not linted yet.
type draft struct {
	template *x509.Certificate
	expected expectation
	ca       *ca.CA
}

// Prepare makes an Issuance for an approved request. The error is
//   - a [NotDue] if the request is not to be signed, which is no fault;
//   - a [*TooOld] if it was approved too long ago;
//   - a [*Refusal] if it can never be issued;
//   - a [*ca.Problem] if the CA, or the profile, cannot issue it now;
//   - any other error if something went wrong that may pass.
func Prepare(now time.Time, csr *certificatesv1.CertificateSigningRequest, profile Profile, authority *ca.CA) (*Issuance, error) {
	if profile.signerName == "" || csr.Spec.SignerName != profile.signerName {
		return nil, NotOurs
	}
	if err := due(csr); err != nil {
		return nil, err
	}
	if err := checkApprovalAge(now, csr, profile.maxApprovalAge); err != nil {
		return nil, err
	}
	request, err := pkcs10.Parse(csr.Spec.Request)
	if err != nil {
		if refused, ok := errors.AsType[*pkcs10.Error](err); ok {
			return nil, refusef(ReasonRequestRefused, "%v", refused)
		}
		return nil, fmt.Errorf("parsing request: %w", err)
	}
	d, err := newDraft(now, request, csr.Spec.Usages, csr.Spec.ExpirationSeconds, &profile, authority)
	if err != nil {
		return nil, err
	}
	tbs, err := lint(d)
	if err != nil {
		// Nothing is refused for good for a fault that any other request would meet too.
		if fault := profile.Probe(now, authority); fault != nil {
			return nil, fault
		}
		return nil, err
	}
	if authority.ConstrainsNames() {
		if err := verify(now, d); err != nil {
			return nil, err
		}
	}
	return &Issuance{draft: d, tbs: tbs}, nil
}

// newDraft validates a request against the profile, and makes a template of it. The error is as of
// [Prepare].
func newDraft(now time.Time, request *pkcs10.Request, asked []certificatesv1.KeyUsage, expirationSeconds *int32, profile *Profile, authority *ca.CA) (draft, error) {
	if err := checkKey(request, profile); err != nil {
		return draft{}, err
	}
	if err := checkSubject(request, profile); err != nil {
		return draft{}, err
	}
	usages, err := grantUsages(asked, request, profile)
	if err != nil {
		return draft{}, err
	}
	lifetime, err := lifetimeOf(expirationSeconds, profile)
	if err != nil {
		return draft{}, err
	}
	// The request is judged first, so that a CA that is down does not keep its verdict back.
	if err := authority.ValidAt(now, profile.minDuration); err != nil {
		return draft{}, err
	}
	if fault := permits(authority, usages); fault != nil {
		return draft{}, fault
	}
	earliest := later(now.Add(-profile.backdate), authority.NotBefore())
	latest := earlier(now.Add(lifetime), authority.NotAfter())
	template, err := newTemplate(request, usages, profile, earliest, latest)
	if err != nil {
		return draft{}, err
	}
	return draft{
		template: template,
		ca:       authority,
		expected: expectation{
			request:  request,
			usages:   asked,
			profile:  profile,
			issuer:   authority.Certificate(),
			serial:   template.SerialNumber,
			earliest: earliest,
			latest:   latest,
		},
	}, nil
}

// Issue signs, and returns the certificate: in PEM, followed by the CA's chain without the root,
// as status.certificate has it, and parsed. It works once.
func (i *Issuance) Issue(ctx context.Context) ([]byte, *x509.Certificate, error) {
	if i == nil || i.template == nil {
		return nil, nil, errors.New("issuing: not prepared")
	}
	if i.used.Swap(true) {
		return nil, nil, errors.New("issuing: used before")
	}
	der, err := i.ca.Sign(ctx, i.template, i.expected.request.PublicKey, i.tbs)
	if err != nil {
		return nil, nil, fmt.Errorf("issuing: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("reading back what was issued: %w", err)
	}
	// That it is signed with the key of the CA, x509.CreateCertificate has verified, and ca.Load that the
	// key is the CA's.
	var chain bytes.Buffer
	for _, c := range append([]*x509.Certificate{certificate}, i.ca.Chain()...) {
		if err := pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}); err != nil {
			return nil, nil, fmt.Errorf("encoding what was issued: %w", err)
		}
	}
	return chain.Bytes(), certificate, nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// Record describes the certificate that Issue will make.
func (i *Issuance) Record() audit.Certificate {
	request := i.expected.request
	r := audit.Certificate{
		Serial:         fmt.Sprintf("%032x", i.template.SerialNumber),
		Subject:        i.template.Subject.String(),
		DNSNames:       request.DNSNames,
		URIs:           request.URIs,
		EmailAddresses: request.EmailAddresses,
		KeySHA256:      request.Key.SHA256,
		CAFingerprint:  i.ca.Fingerprint(),
		NotBefore:      i.template.NotBefore,
		NotAfter:       i.template.NotAfter,
	}
	for _, ip := range request.IPAddresses {
		r.IPAddresses = append(r.IPAddresses, ip.String())
	}
	return r
}
