// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/pkcs10"
	"countersign.dev/countersign/signer/ca"
)

// expectation is what a certificate must be, told from the request and the limits. It is
// computed apart from the template, so that a slip in making that is seen.
type expectation struct {
	request          *pkcs10.Request
	usages           []certificatesv1.KeyUsage // spec.usages
	profile          *Profile
	issuer           *x509.Certificate
	serial           *big.Int
	earliest, latest time.Time // bounds of notBefore and notAfter
}

// lint checks what the CA's key would sign as a relying party would read it, and returns it: the DER of
// a TBSCertificate. The key is not used, so it never signs anything that has not passed.
// The error is a [*Refusal].
func lint(d draft) ([]byte, error) {
	tbs, err := d.ca.ToBeSigned(d.template, d.expected.request.PublicKey)
	if err != nil {
		return nil, refusef(ReasonLintFailed, "a certificate cannot be made of the request: %v", err)
	}
	der, err := unsigned(tbs)
	if err != nil {
		return nil, refusef(ReasonLintFailed, "the certificate could not be read: %v", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, refusef(ReasonLintFailed, "the certificate could not be read: %v", err)
	}
	if err := d.expected.check(certificate); err != nil {
		return nil, refusef(ReasonLintFailed, "%v", err)
	}
	if err := lintRFC(der); err != nil {
		return nil, refusef(ReasonLintFailed, "%v", err)
	}
	return tbs, nil
}

// unsigned makes of a TBSCertificate a Certificate (RFC 5280, section 4.1) for readers that do not verify
// its signature, which is none.
func unsigned(tbs []byte) ([]byte, error) {
	var begin struct { // of the TBSCertificate; what follows is ignored
		Version      int `asn1:"explicit,tag:0"`
		SerialNumber *big.Int
		Signature    asn1.RawValue
	}
	if _, err := asn1.Unmarshal(tbs, &begin); err != nil {
		return nil, err
	}
	return asn1.Marshal(struct {
		TBSCertificate     asn1.RawValue
		SignatureAlgorithm asn1.RawValue
		SignatureValue     asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, begin.Signature, asn1.BitString{Bytes: make([]byte, 64), BitLength: 512}})
}

// permits is a fault if the chain limits extended key usages to others than some.
func permits(authority *ca.CA, usages []certificatesv1.KeyUsage) *ca.Problem {
	for _, usage := range usages {
		if id, ok := extKeyUsages[usage]; ok && !authority.Permits(id) {
			return &ca.Problem{Reason: v1alpha1.ReasonInvalidCA, Message: fmt.Sprintf(
				"the CA certificate, or one of its issuers, limits its extended key usages and leaves out %q: use a CA that has it or has no such limit, or take it out of spec.certificate.usages", usage)}
		}
	}
	return nil
}

// throwawayKey signs certificates to be verified. Nothing trusts it.
var throwawayKey = sync.OnceValues(func() (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
})

// verify checks the certificate against what the CA, and each issuer above it, lets be issued. It is
// signed with a throwaway key in the name of the CA.
// What the request asks for is judged before: all that can fail here is the CA's, which may be
// replaced by one that fits, so the error is a [*ca.Problem], but for slips of our own. Of one request and the next only name
// constraints can differ: whoever has seen that others pass need not ask where there are none.
func verify(now time.Time, d draft) error {
	key, err := throwawayKey()
	if err != nil {
		return fmt.Errorf("generating the throwaway key: %w", err)
	}
	// The CA with another key: name, constraints and identifiers are its own.
	issuer := *d.expected.issuer
	issuer.PublicKey, issuer.PublicKeyAlgorithm = key.Public(), x509.ECDSA
	der, err := x509.CreateCertificate(rand.Reader, d.template, &issuer, d.expected.request.PublicKey, key)
	if err != nil {
		return fmt.Errorf("making a certificate to verify: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("reading a certificate to verify: %w", err)
	}
	chain := append([]*x509.Certificate{&issuer}, d.ca.Issuers()...)
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(chain[len(chain)-1])
	for _, c := range chain[:len(chain)-1] {
		intermediates.AddCert(c)
	}
	// Whether the chain permits the extended key usages was seen before: see permits.
	_, err = certificate.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err == nil {
		return nil
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.CANotAuthorizedForThisName {
		return &ca.Problem{
			Reason: ReasonNameNotPermitted,
			Message: fmt.Sprintf("the CA %q may not issue for these names: %v; use a CA whose name constraints permit them, or a policy that denies them",
				issuer.Subject, err),
		}
	}
	return &ca.Problem{
		Reason:  v1alpha1.ReasonInvalidCA,
		Message: fmt.Sprintf("nobody would accept a certificate of the CA %q: %v; use a CA that may issue it", issuer.Subject, err),
	}
}

// check compares a certificate with what it must be, and returns every difference.
func (e *expectation) check(c *x509.Certificate) error {
	var errs []error
	require := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	r := e.request
	require(c.Version == 3, "version is %d, not 3", c.Version)
	require(bytes.Equal(c.RawSubjectPublicKeyInfo, r.RawSubjectPublicKeyInfo), "public key differs from that of the request")
	require(bytes.Equal(c.RawIssuer, e.issuer.RawSubject), "issuer is not the CA")
	require(bytes.Equal(c.AuthorityKeyId, e.issuer.SubjectKeyId), "authority key identifier is not that of the CA")
	require(len(c.SubjectKeyId) > 0, "subject key identifier is missing")
	require(!c.IsCA && c.BasicConstraintsValid, "basic constraints do not say that this is no CA")
	require(c.SerialNumber.Cmp(e.serial) == 0 && c.SerialNumber.Sign() > 0 && c.SerialNumber.BitLen() <= 8*ca.SerialBytes, "serial number is not the one drawn")

	// A second of slack below: X.509 has whole seconds.
	require(!c.NotBefore.Before(e.earliest.Add(-time.Second)), "notBefore %v is before %v", c.NotBefore, e.earliest)
	require(!c.NotAfter.After(e.latest), "notAfter %v is after %v", c.NotAfter, e.latest)
	require(c.NotAfter.After(c.NotBefore), "notAfter %v is not after notBefore %v", c.NotAfter, c.NotBefore)

	names := 0
	kept := func(attribute v1alpha1.SubjectAttribute, values ...string) []string {
		values = slices.DeleteFunc(slices.Clone(values), func(value string) bool { return value == "" || !e.profile.keeps(attribute) })
		names += len(values)
		return values
	}
	commonName := strings.Join(kept(v1alpha1.SubjectCommonName, r.Subject.CommonName), "")
	organizations := kept(v1alpha1.SubjectOrganization, r.Subject.Organizations...)
	units := kept(v1alpha1.SubjectOrganizationalUnit, r.Subject.OrganizationalUnits...)
	require(c.Subject.CommonName == commonName, "common name differs from that to be issued")
	require(sameSet(c.Subject.Organization, organizations), "organizations differ from those to be issued")
	require(sameSet(c.Subject.OrganizationalUnit, units), "organizational units differ from those to be issued")
	require(len(c.Subject.Names) == names, "subject has %d attributes, not the %d to be issued", len(c.Subject.Names), names)

	require(slices.Equal(c.DNSNames, r.DNSNames), "DNS names differ from those of the request")
	require(slices.Equal(c.EmailAddresses, r.EmailAddresses), "email addresses differ from those of the request")
	var ips []netip.Addr
	for _, raw := range c.IPAddresses {
		ip, _ := netip.AddrFromSlice(raw)
		ips = append(ips, ip)
	}
	require(slices.Equal(ips, r.IPAddresses), "IP addresses differ from those of the request")
	var uris []string
	for _, uri := range c.URIs {
		uris = append(uris, uri.String())
	}
	require(slices.Equal(uris, r.URIs), "URIs differ from those of the request")

	require(slices.Equal(c.CRLDistributionPoints, e.profile.crlDistributionPoints), "CRL distribution points differ from those of the Signer")
	require(slices.Equal(c.OCSPServer, e.profile.ocspServers), "OCSP servers differ from those of the Signer")
	require(slices.Equal(c.IssuingCertificateURL, e.profile.issuingCertificateURLs), "issuing certificate URLs differ from those of the Signer")

	errs = append(errs, e.checkUsages(c), e.checkExtensions(c))
	return joinLine(errs)
}

// checkUsages requires usages, each of them asked for and allowed.
func (e *expectation) checkUsages(c *x509.Certificate) error {
	unknown := c.KeyUsage
	var has []certificatesv1.KeyUsage
	for name, bit := range keyUsages {
		if c.KeyUsage&bit != 0 {
			has = append(has, name)
			unknown &^= bit
		}
	}
	extended := 0
	for name, id := range extKeyUsages {
		if slices.Contains(c.ExtKeyUsage, id) {
			has = append(has, name)
			extended++
		}
	}
	switch {
	case c.KeyUsage == 0 || unknown != 0:
		return fmt.Errorf("key usage is %#b", c.KeyUsage)
	case len(c.ExtKeyUsage) == 0 || len(c.ExtKeyUsage) != extended || len(c.UnknownExtKeyUsage) > 0:
		return errors.New("extended key usage is missing, repeated or unknown")
	case c.KeyUsage&^usagesOfKey[e.request.Key.Algorithm] != 0:
		return fmt.Errorf("key usage is %#b, beyond what a key of type %s can do", c.KeyUsage, e.request.Key.Algorithm)
	}
	for _, usage := range has {
		if !slices.Contains(e.usages, usage) || !slices.Contains(e.profile.usages, usage) {
			return fmt.Errorf("usage %q was not asked for, or is not allowed", usage)
		}
	}
	return nil
}

const (
	oidSubjectAltName        = "2.5.29.17"
	oidCRLDistributionPoints = "2.5.29.31"
	oidAuthorityInfoAccess   = "1.3.6.1.5.5.7.1.1"
)

// extensions are all that may be there, with whether they are critical; the subject alternative
// name is so if the subject is empty (RFC 5280, section 4.2.1.6).
var extensions = map[string]bool{
	"2.5.29.14":              false, // subject key identifier
	"2.5.29.15":              true,  // key usage
	oidSubjectAltName:        false,
	"2.5.29.19":              true, // basic constraints
	oidCRLDistributionPoints: false,
	"2.5.29.35":              false, // authority key identifier
	"2.5.29.37":              false, // extended key usage
	oidAuthorityInfoAccess:   false,
}

// checkExtensions allows known extensions only, each once, and those with URLs only if the profile has some.
func (e *expectation) checkExtensions(c *x509.Certificate) error {
	seen := map[string]bool{
		oidCRLDistributionPoints: len(e.profile.crlDistributionPoints) == 0,
		oidAuthorityInfoAccess:   len(e.profile.ocspServers)+len(e.profile.issuingCertificateURLs) == 0,
	}
	for _, extension := range c.Extensions {
		id := extension.Id.String()
		critical, known := extensions[id]
		if id == oidSubjectAltName {
			critical = len(c.Subject.Names) == 0
		}
		if !known || seen[id] || extension.Critical != critical {
			return fmt.Errorf("extension %s is unknown, repeated, or wrongly critical", id)
		}
		seen[id] = true
	}
	return nil
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// joinLine is errors.Join on one line.
func joinLine(errs []error) error {
	var parts []string
	for _, err := range errs {
		if err != nil {
			parts = append(parts, err.Error())
		}
	}
	if len(parts) == 0 {
		return nil
	}
	return errors.New(strings.Join(parts, "; "))
}
