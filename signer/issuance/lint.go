// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/internal/text"
	"countersign.dev/countersign/pkcs10"
	"countersign.dev/countersign/signer/ca"
)

// expectation is the expected content of a certificate. It is computed from the request and the Profile,
// and not from the template, so that it detects errors in the template.
type expectation struct {
	request          *pkcs10.Request
	usages           []certificatesv1.KeyUsage // spec.usages
	profile          *Profile
	issuer           *x509.Certificate
	serial           *big.Int
	earliest, latest time.Time // bounds of notBefore and notAfter
}

// lint checks the certificate as a relying party would parse it, and returns the bytes to sign: the DER
// of a TBSCertificate. The key of the CA is not used. A problem refuses the request.
func lint(d *draft) ([]byte, *ca.Problem) {
	tbs, err := d.ca.ToBeSigned(d.template, d.expected.request.PublicKey)
	if err != nil {
		return nil, ca.Problemf(ReasonLintFailed, "creating the certificate failed: %v", err)
	}
	der, err := unsigned(tbs)
	if err != nil {
		return nil, ca.Problemf(ReasonLintFailed, "parsing the certificate failed: %v", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, ca.Problemf(ReasonLintFailed, "parsing the certificate failed: %v", err)
	}
	if err := d.expected.check(certificate); err != nil {
		return nil, ca.Problemf(ReasonLintFailed, "%v", err)
	}
	if err := lintRFC(der); err != nil {
		return nil, ca.Problemf(ReasonLintFailed, "%v", err)
	}
	return tbs, nil
}

// unsigned wraps a TBSCertificate in a Certificate (RFC 5280, section 4.1) with an empty signature, for
// parsers that do not verify it.
func unsigned(tbs []byte) ([]byte, error) {
	var begin struct { // the first fields of the TBSCertificate
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

// check compares a certificate with the expectation and returns every difference.
func (e *expectation) check(c *x509.Certificate) error {
	var errs []error
	require := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	r := e.request
	require(c.Version == 3, "version is %d, want 3", c.Version)
	require(bytes.Equal(c.RawSubjectPublicKeyInfo, r.RawSubjectPublicKeyInfo), "public key differs from that of the request")
	require(bytes.Equal(c.RawIssuer, e.issuer.RawSubject), "issuer differs from the CA")
	require(bytes.Equal(c.AuthorityKeyId, e.issuer.SubjectKeyId), "authority key identifier differs from that of the CA")
	require(len(c.SubjectKeyId) > 0, "subject key identifier is missing")
	require(!c.IsCA && c.BasicConstraintsValid, "basic constraints must be CA:FALSE")
	require(c.SerialNumber.Cmp(e.serial) == 0 && c.SerialNumber.Sign() > 0 && c.SerialNumber.BitLen() <= 8*ca.SerialBytes, "serial number differs from the generated one")

	// X.509 has whole seconds, so notBefore can be up to a second early.
	require(!c.NotBefore.Before(e.earliest.Add(-time.Second)), "notBefore %v is before %v", c.NotBefore, e.earliest)
	require(!c.NotAfter.After(e.latest), "notAfter %v is after %v", c.NotAfter, e.latest)
	require(c.NotAfter.After(c.NotBefore), "notAfter %v is not after notBefore %v", c.NotAfter, c.NotBefore)

	names := 0
	issued := func(attribute v1alpha1.SubjectAttribute, values ...string) []string {
		values = slices.DeleteFunc(slices.Clone(values), func(value string) bool { return value == "" || !e.profile.keeps(attribute) })
		names += len(values)
		return values
	}
	commonName := strings.Join(issued(v1alpha1.SubjectCommonName, r.Subject.CommonName), "")
	organizations := issued(v1alpha1.SubjectOrganization, r.Subject.Organizations...)
	units := issued(v1alpha1.SubjectOrganizationalUnit, r.Subject.OrganizationalUnits...)
	require(c.Subject.CommonName == commonName, "common name differs from the expected one")
	require(sameSet(c.Subject.Organization, organizations), "organizations differ from the expected ones")
	require(sameSet(c.Subject.OrganizationalUnit, units), "organizational units differ from the expected ones")
	require(len(c.Subject.Names) == names, "subject has %d attributes, want %d", len(c.Subject.Names), names)

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

	errs = append(errs, checkSyntax(c), e.checkUsages(c), e.checkExtensions(c))
	return text.JoinErrors(errs...)
}

// The syntax of names. Package pkcs10 checks the same with other code, for names that it has parsed. A name
// that has a separator, such as "a,DNS:b", prints as two names, whatever a policy allows.
const (
	labelSyntax = `[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?`
	hostSyntax  = labelSyntax + `(\.` + labelSyntax + `)*` // RFC 1123, section 2.1
	atextSyntax = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"        // RFC 5322, section 3.2.3
)

var (
	dnsSyntax   = regexp.MustCompile(`^(\*\.)?` + hostSyntax + `$`)
	emailSyntax = regexp.MustCompile(`^` + atextSyntax + `(\.` + atextSyntax + `)*@` + hostSyntax + `$`) // RFC 5321, section 4.1.2
	uriSyntax   = regexp.MustCompile(`^[a-z][a-z0-9+.-]*:[A-Za-z0-9._~:/?#\[\]@!$&'()*+;=%-]+$`)         // RFC 3986, without the comma
	numberAtEnd = regexp.MustCompile(`\.[0-9]+$`)
)

// checkSyntax requires names that every relying party parses alike.
func checkSyntax(c *x509.Certificate) error {
	var errs []error
	for _, name := range c.DNSNames {
		if !dnsSyntax.MatchString(name) || numberAtEnd.MatchString(name) {
			errs = append(errs, fmt.Errorf("DNS name %q must be a host name of RFC 1123 without a trailing dot", name))
		}
	}
	for _, address := range c.EmailAddresses {
		if !emailSyntax.MatchString(address) || numberAtEnd.MatchString(address) {
			errs = append(errs, fmt.Errorf("email address %q must be a mailbox of RFC 5321 without quotes", address))
		}
	}
	for _, uri := range c.URIs {
		if uri.User != nil || !uriSyntax.MatchString(uri.String()) {
			errs = append(errs, fmt.Errorf("URI %q has characters that are not allowed", uri.Redacted()))
		}
	}
	return text.JoinErrors(errs...)
}

// checkUsages requires key usages and extended key usages, and allows only those of the request and the
// Profile that fit the key.
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
		return fmt.Errorf("key usage %#b is missing or unknown", c.KeyUsage)
	case len(c.ExtKeyUsage) == 0 || len(c.ExtKeyUsage) != extended || len(c.UnknownExtKeyUsage) > 0:
		return errors.New("extended key usage is missing, repeated or unknown")
	case c.KeyUsage&^usagesOfKey[e.request.Key.Algorithm] != 0:
		return fmt.Errorf("key usage %#b does not fit key algorithm %s", c.KeyUsage, e.request.Key.Algorithm)
	}
	for _, usage := range has {
		if !slices.Contains(e.usages, usage) || !slices.Contains(e.profile.usages, usage) {
			return fmt.Errorf("usage %q is not requested or not allowed", usage)
		}
	}
	return nil
}

const (
	oidSubjectAltName        = "2.5.29.17"
	oidCRLDistributionPoints = "2.5.29.31"
	oidAuthorityInfoAccess   = "1.3.6.1.5.5.7.1.1"
)

// extensions are the allowed extensions, and whether they are critical. The subject alternative name is
// critical if the subject is empty (RFC 5280, section 4.2.1.6).
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

// checkExtensions allows each known extension once, and extensions with URLs only if the Profile has URLs.
func (e *expectation) checkExtensions(c *x509.Certificate) error {
	excluded := map[string]bool{
		oidCRLDistributionPoints: len(e.profile.crlDistributionPoints) == 0,
		oidAuthorityInfoAccess:   len(e.profile.ocspServers)+len(e.profile.issuingCertificateURLs) == 0,
	}
	for _, extension := range c.Extensions {
		id := extension.Id.String()
		critical, known := extensions[id]
		if id == oidSubjectAltName {
			critical = len(c.Subject.Names) == 0
		}
		if !known || excluded[id] || extension.Critical != critical {
			return fmt.Errorf("extension %s is unknown, repeated, or has the wrong criticality", id)
		}
		excluded[id] = true
	}
	return nil
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}
