// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/pkcs10"
	"countersign.dev/countersign/signer/ca"
)

// terms are what the Profile grants a request.
type terms struct {
	request   *pkcs10.Request
	profile   *Profile
	requested []certificatesv1.KeyUsage // spec.usages
	usages    []certificatesv1.KeyUsage // those of requested that are issued
	uris      []*url.URL
	lifetime  time.Duration
}

// newTerms validates a request against the Profile. A problem refuses the request.
func newTerms(request *pkcs10.Request, requested []certificatesv1.KeyUsage, expirationSeconds *int32, profile *Profile) (*terms, *ca.Problem) {
	if problem := checkKey(request, profile); problem != nil {
		return nil, problem
	}
	if problem := checkSubject(request, profile); problem != nil {
		return nil, problem
	}
	usages, problem := grantUsages(requested, request, profile)
	if problem != nil {
		return nil, problem
	}
	lifetime, problem := grantLifetime(expirationSeconds, profile)
	if problem != nil {
		return nil, problem
	}
	uris, problem := parseURIs(request.URIs)
	if problem != nil {
		return nil, problem
	}
	return &terms{request, profile, requested, usages, uris, lifetime}, nil
}

// checkKey rejects a key whose algorithm the Signer does not issue for.
func checkKey(request *pkcs10.Request, profile *Profile) *ca.Problem {
	if slices.Contains(profile.keyAlgorithms, request.Key.Algorithm) {
		return nil
	}
	return ca.Problemf(ReasonKeyNotAllowed, "key algorithm %s is not allowed: the Signer allows %s",
		request.Key.Algorithm, quoteAll(profile.keyAlgorithms))
}

// checkSubject rejects a request whose certificate would have no name.
func checkSubject(request *pkcs10.Request, profile *Profile) *ca.Problem {
	if len(request.DNSNames)+len(request.IPAddresses)+len(request.URIs)+len(request.EmailAddresses) > 0 {
		return nil
	}
	switch {
	case request.Subject.CommonName == "":
		return ca.Problemf(ReasonSubjectNotAllowed, "the request has neither a common name nor a subject alternative name: add one")
	case !profile.keeps(v1alpha1.SubjectCommonName):
		return ca.Problemf(ReasonSubjectNotAllowed, "the request has no subject alternative name, and the Signer leaves the common name out: add a subject alternative name")
	}
	return nil
}

// grantLifetime returns the longest lifetime of the certificate. The CA may expire earlier.
func grantLifetime(expirationSeconds *int32, profile *Profile) (time.Duration, *ca.Problem) {
	if expirationSeconds == nil {
		return profile.maxDuration, nil
	}
	requested := time.Duration(*expirationSeconds) * time.Second
	if requested < profile.minDuration {
		return 0, ca.Problemf(ReasonLifetimeNotAllowed, "expirationSeconds is %d, but the Signer issues for at least %v: request %d or more",
			*expirationSeconds, profile.minDuration, int64((profile.minDuration+time.Second-1)/time.Second))
	}
	return min(requested, profile.maxDuration), nil
}

func parseURIs(list []string) ([]*url.URL, *ca.Problem) {
	var uris []*url.URL
	for _, text := range list {
		uri, err := url.Parse(text)
		if err != nil {
			return nil, ca.Problemf(ReasonLintFailed, "URI %q is invalid", text)
		}
		uris = append(uris, uri)
	}
	return uris, nil
}

// draft is a certificate that is not linted yet.
type draft struct {
	template *x509.Certificate
	expected expectation
	ca       *ca.CA
}

// newDraft makes the draft of a certificate that is valid from now, on these terms.
func newDraft(now time.Time, t *terms, authority *ca.CA) (*draft, error) {
	notBefore := later(now.Add(-t.profile.backdate), authority.NotBefore())
	notAfter := earlier(now.Add(t.lifetime), authority.NotAfter())
	template, err := t.template(notBefore, notAfter)
	if err != nil {
		return nil, err
	}
	return &draft{
		template: template,
		ca:       authority,
		expected: expectation{
			request:  t.request,
			usages:   t.requested,
			profile:  t.profile,
			issuer:   authority.Certificate(),
			serial:   template.SerialNumber,
			earliest: notBefore,
			latest:   notAfter,
		},
	}, nil
}

// template builds a certificate from verified fields.
func (t *terms) template(notBefore, notAfter time.Time) (*x509.Certificate, error) {
	request, profile := t.request, t.profile
	keyID, err := ca.SubjectKeyID(request.RawSubjectPublicKeyInfo)
	if err != nil {
		return nil, fmt.Errorf("computing the subject key identifier: %w", err)
	}
	c := &x509.Certificate{
		SerialNumber:          ca.NewSerial(),
		NotBefore:             notBefore.UTC().Truncate(time.Second),
		NotAfter:              notAfter.UTC().Truncate(time.Second),
		DNSNames:              request.DNSNames,
		EmailAddresses:        request.EmailAddresses,
		URIs:                  t.uris,
		BasicConstraintsValid: true, // with IsCA false: a critical extension CA:FALSE
		SubjectKeyId:          keyID,
		CRLDistributionPoints: profile.crlDistributionPoints,
		OCSPServer:            profile.ocspServers,
		IssuingCertificateURL: profile.issuingCertificateURLs,
	}
	for _, attribute := range profile.subject {
		switch attribute {
		case v1alpha1.SubjectCommonName:
			c.Subject.CommonName = request.Subject.CommonName
		case v1alpha1.SubjectOrganization:
			c.Subject.Organization = request.Subject.Organizations
		case v1alpha1.SubjectOrganizationalUnit:
			c.Subject.OrganizationalUnit = request.Subject.OrganizationalUnits
		}
	}
	c.KeyUsage, c.ExtKeyUsage = splitUsages(t.usages)
	for _, ip := range request.IPAddresses {
		c.IPAddresses = append(c.IPAddresses, net.IP(ip.AsSlice()))
	}
	return c, nil
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
