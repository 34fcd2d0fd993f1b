// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"crypto/x509"
	"net"
	"net/url"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/pkcs10"
	"countersign.dev/countersign/signer/ca"
)

// checkKey refuses a key of a kind that the Signer does not issue for.
func checkKey(request *pkcs10.Request, profile *Profile) error {
	if slices.Contains(profile.keyAlgorithms, request.Key.Algorithm) {
		return nil
	}
	return refusef(ReasonKeyNotAllowed, "the key is of type %s, and the Signer issues only for keys of type %s: make a request with such a key",
		request.Key.Algorithm, quoteAll(profile.keyAlgorithms))
}

// checkSubject refuses a request that leaves nobody to be named.
func checkSubject(request *pkcs10.Request, profile *Profile) error {
	if len(request.DNSNames)+len(request.IPAddresses)+len(request.URIs)+len(request.EmailAddresses) > 0 {
		return nil
	}
	switch {
	case request.Subject.CommonName == "":
		return refusef(ReasonSubjectNotAllowed, "the request has neither a common name nor a subject alternative name: a certificate must name somebody")
	case !profile.keeps(v1alpha1.SubjectCommonName):
		return refusef(ReasonSubjectNotAllowed, "the Signer leaves the common name out, and the request has no subject alternative name: a certificate must name somebody; ask for a subject alternative name")
	}
	return nil
}

// lifetimeOf returns how long a certificate may last, as long as its CA does.
func lifetimeOf(expirationSeconds *int32, profile *Profile) (time.Duration, error) {
	if expirationSeconds == nil {
		return profile.maxDuration, nil
	}
	asked := time.Duration(*expirationSeconds) * time.Second
	if asked < profile.minDuration {
		return 0, refusef(ReasonLifetimeNotAllowed, "expirationSeconds is %d, and the Signer issues for %v at least: ask for %d or more",
			*expirationSeconds, profile.minDuration, int64((profile.minDuration+time.Second-1)/time.Second))
	}
	return min(asked, profile.maxDuration), nil
}

// newTemplate builds a certificate from verified fields.
func newTemplate(request *pkcs10.Request, usages []certificatesv1.KeyUsage, profile *Profile, notBefore, notAfter time.Time) (*x509.Certificate, error) {
	keyID, err := ca.SubjectKeyID(request.RawSubjectPublicKeyInfo)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          ca.NewSerial(),
		NotBefore:             notBefore.UTC().Truncate(time.Second),
		NotAfter:              notAfter.UTC().Truncate(time.Second),
		DNSNames:              request.DNSNames,
		EmailAddresses:        request.EmailAddresses,
		BasicConstraintsValid: true, // with IsCA false: a critical extension that says it is no CA
		SubjectKeyId:          keyID,
		CRLDistributionPoints: profile.crlDistributionPoints,
		OCSPServer:            profile.ocspServers,
		IssuingCertificateURL: profile.issuingCertificateURLs,
	}
	for _, attribute := range profile.subject {
		switch attribute {
		case v1alpha1.SubjectCommonName:
			t.Subject.CommonName = request.Subject.CommonName
		case v1alpha1.SubjectOrganization:
			t.Subject.Organization = request.Subject.Organizations
		case v1alpha1.SubjectOrganizationalUnit:
			t.Subject.OrganizationalUnit = request.Subject.OrganizationalUnits
		}
	}
	t.KeyUsage, t.ExtKeyUsage = splitUsages(usages)
	for _, ip := range request.IPAddresses {
		t.IPAddresses = append(t.IPAddresses, net.IP(ip.AsSlice()))
	}
	for _, text := range request.URIs {
		uri, err := url.Parse(text)
		if err != nil {
			return nil, refusef(ReasonLintFailed, "URI %q cannot be parsed", text)
		}
		t.URIs = append(t.URIs, uri)
	}
	return t, nil
}
