// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/pkcs10"
	"countersign.dev/countersign/signer/ca"
)

// TestLint makes a mistake in the template for each check.
func TestLint(t *testing.T) {
	keys := testKeys()
	tests := []struct {
		name    string
		mistake func(*x509.Certificate)
		want    string
	}{
		{"serial number", func(c *x509.Certificate) { c.SerialNumber = big.NewInt(7) }, "serial number differs from the generated one"},
		{"CA", func(c *x509.Certificate) { c.IsCA = true }, "basic constraints must be CA:FALSE"},
		{"no basic constraints", func(c *x509.Certificate) { c.BasicConstraintsValid = false }, "basic constraints must be CA:FALSE"},
		{"no subject key identifier", func(c *x509.Certificate) { c.SubjectKeyId = nil }, "subject key identifier is missing"},
		{
			"notBefore too early",
			func(c *x509.Certificate) { c.NotBefore = c.NotBefore.Add(-2 * time.Second) },
			"notBefore 2026-03-01 11:54:58 +0000 UTC is before 2026-03-01 11:55:00.5 +0000 UTC",
		},
		{
			"notAfter too late",
			func(c *x509.Certificate) { c.NotAfter = c.NotAfter.Add(time.Second) },
			"notAfter 2026-03-01 13:00:01 +0000 UTC is after 2026-03-01 13:00:00.5 +0000 UTC",
		},
		{"common name", func(c *x509.Certificate) { c.Subject.CommonName = "admin" }, "common name differs from the expected one"},
		{
			"organization",
			func(c *x509.Certificate) { c.Subject.Organization = []string{"system:masters"} },
			"organizations differ from the expected ones; subject has 2 attributes, want 1",
		},
		{
			"organizational unit",
			func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"u"} },
			"organizational units differ from the expected ones; subject has 2 attributes, want 1",
		},
		{"subject attribute", func(c *x509.Certificate) { c.Subject.Country = []string{"CH"} }, "subject has 2 attributes, want 1"},
		{"additional DNS name", func(c *x509.Certificate) { c.DNSNames = []string{"web.example", "admin.example"} }, "DNS names differ from those of the request"},
		{"additional IP address", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} }, "IP addresses differ from those of the request"},
		{"additional URI", func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.com"}} }, "URIs differ from those of the request"},
		{"additional email address", func(c *x509.Certificate) { c.EmailAddresses = []string{"a@example.com"} }, "email addresses differ from those of the request"},
		{"key usage missing", func(c *x509.Certificate) { c.KeyUsage = 0 }, "key usage 0b0 is missing or unknown"},
		{"key usage of a CA", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }, "key usage 0b1000001 is missing or unknown"},
		{"key encipherment for ECDSA", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageKeyEncipherment }, "key usage 0b101 does not fit key algorithm ECDSA"},
		{"extended key usage missing", func(c *x509.Certificate) { c.ExtKeyUsage = nil }, "extended key usage is missing, repeated or unknown"},
		{"any extended key usage", func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageAny) }, "extended key usage is missing, repeated or unknown"},
		{"extended key usage unknown", func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3}} }, "extended key usage is missing, repeated or unknown"},
		{
			"extended key usage not requested",
			func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) },
			`usage "client auth" is not requested or not allowed`,
		},
		{"additional extension", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}}}
		}, "extension 1.2.3 is unknown, repeated, or has the wrong criticality"},
		{
			"CRL distribution point",
			func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"http://evil.example"} },
			"CRL distribution points differ from those of the Signer; extension 2.5.29.31 is unknown, repeated, or has the wrong criticality",
		},
		{
			"OCSP server",
			func(c *x509.Certificate) { c.OCSPServer = []string{"http://evil.example"} },
			"OCSP servers differ from those of the Signer; extension 1.3.6.1.5.5.7.1.1 is unknown, repeated, or has the wrong criticality",
		},
		{
			"issuing certificate URL",
			func(c *x509.Certificate) { c.IssuingCertificateURL = []string{"http://evil.example"} },
			"issuing certificate URLs differ from those of the Signer; extension 1.3.6.1.5.5.7.1.1 is unknown, repeated, or has the wrong criticality",
		},
		{"key usage not critical", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Value: []byte{3, 2, 7, 0x80}}}
		}, "extension 2.5.29.15 is unknown, repeated, or has the wrong criticality"},
		{
			"names that cannot be encoded",
			func(c *x509.Certificate) { c.DNSNames = []string{"wéb"} },
			`creating the certificate failed: x509: "wéb" cannot be encoded as an IA5String`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			hour := int32(3600)
			csr := newCSR(t, keys.EC, nil, func(c *certificatesv1.CertificateSigningRequest) { c.Spec.ExpirationSeconds = &hour })
			issuance := mustPrepare(t, csr, newProfile(t, nil), newCA(t, keys.EC, nil))
			test.mistake(issuance.template)
			_, problem := lint(issuance.draft)
			if diff := cmp.Diff(&ca.Problem{Reason: ReasonLintFailed, Message: test.want}, problem); diff != "" {
				t.Errorf("problem (-want +got):\n%s", diff)
			}
		})
	}
}

// TestLint_names drafts certificates for names that package pkcs10 refuses, as if it had accepted them.
func TestLint_names(t *testing.T) {
	authority := newCA(t, testKeys().EC, nil)
	profile := newProfile(t, nil)
	lintOf := func(change func(*pkcs10.Request)) *ca.Problem {
		t.Helper()
		csr := newCSR(t, testKeys().EC, nil, nil)
		request, err := pkcs10.Parse(csr.Spec.Request)
		if err != nil {
			t.Fatal(err)
		}
		change(request)
		terms, problem := newTerms(request, csr.Spec.Usages, nil, &profile)
		if problem != nil {
			t.Fatal(problem)
		}
		draft, err := newDraft(now, terms, authority)
		if err != nil {
			t.Fatal(err)
		}
		_, problem = lint(draft)
		return problem
	}
	label, long := strings.Repeat("a", 64), strings.Repeat("a.", 126)+"aa"
	for _, test := range []struct {
		name    string
		change  func(*pkcs10.Request, string)
		accepts []string
		refuses []string
	}{
		{
			name:    "DNS names",
			change:  func(r *pkcs10.Request, name string) { r.DNSNames = []string{name} },
			accepts: []string{"web", "web.shop.svc", "*.example.com", "xn--bcher-kva.example", "Web.Example", "12345", "10.0.0.7.example"},
			refuses: []string{
				"a,DNS:b", "a, DNS:b", "a b", "a\nb", "a\x00b", "a_b.example", "_http._tcp.web", "*", "*.*.example", "a*.example", "web.*",
				"web.example.", ".web", "web..example", "-web.example", "web-.example", "10.0.0.7", "*.0.0.7", label + ".example", long, "",
			},
		},
		{
			name:    "email addresses",
			change:  func(r *pkcs10.Request, name string) { r.EmailAddresses = []string{name} },
			accepts: []string{"web@example.com", "a+b@example.com", "a.b@c"},
			refuses: []string{"a,DNS:b@example.com", "a@b,DNS:c", `"a"@b`, "<a@b>", "a", "a@", "@b", "a@b@c", "a..b@c", "a@[10.0.0.7]", "a@10.0.0.7", "a@b_c", "a@*.b", "a b@c"},
		},
		{
			name:    "URIs",
			change:  func(r *pkcs10.Request, name string) { r.URIs = []string{name} },
			accepts: []string{"spiffe://cluster.local/ns/a/sa/b", "urn:uuid:0", "https://[fd00::7]:8443/a?b=c#d"},
			refuses: []string{"spiffe://a/b,DNS:c", "spiffe://a@b/c", "https://a/?b=<c>", `urn:a"b`, "web"},
		},
	} {
		for _, name := range test.accepts {
			if problem := lintOf(func(r *pkcs10.Request) { test.change(r, name) }); problem != nil {
				t.Errorf("%s: %q: %v", test.name, name, problem)
			}
		}
		for _, name := range test.refuses {
			if problem := lintOf(func(r *pkcs10.Request) { test.change(r, name) }); problem == nil || problem.Reason != ReasonLintFailed {
				t.Errorf("%s: %q: got %v, want %s", test.name, name, problem, ReasonLintFailed)
			}
		}
	}
}

// TestLint_profile makes mistakes that depend on the Profile.
func TestLint_profile(t *testing.T) {
	keys := testKeys()
	tests := []struct {
		name    string
		profile func(*v1alpha1.CertificateProfile)
		mistake func(*x509.Certificate)
		want    string
	}{
		{
			"common name that the Profile leaves out",
			func(p *v1alpha1.CertificateProfile) { p.Subject = []v1alpha1.SubjectAttribute{"organization"} },
			func(c *x509.Certificate) { c.Subject.CommonName = "web.example" },
			"common name differs from the expected one; subject has 2 attributes, want 1",
		},
		{
			"organization that the Profile leaves out",
			func(p *v1alpha1.CertificateProfile) { p.Subject = []v1alpha1.SubjectAttribute{"commonName"} },
			func(c *x509.Certificate) { c.Subject.Organization = []string{"team"} },
			"organizations differ from the expected ones; subject has 2 attributes, want 1",
		},
		{
			"missing organization",
			nil, func(c *x509.Certificate) { c.Subject.Organization = nil },
			"organizations differ from the expected ones; subject has 1 attributes, want 2",
		},
		{
			"missing URL",
			func(p *v1alpha1.CertificateProfile) { p.OCSPServers = []string{"http://a.example"} },
			func(c *x509.Certificate) { c.OCSPServer = nil }, "OCSP servers differ from those of the Signer",
		},
		{
			"URLs in another order",
			func(p *v1alpha1.CertificateProfile) {
				p.CRLDistributionPoints = []string{"http://a.example", "http://b.example"}
			},
			func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"http://b.example", "http://a.example"} },
			"CRL distribution points differ from those of the Signer",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			csr := newCSR(t, keys.EC, func(r *x509.CertificateRequest) { r.Subject.Organization = []string{"team"} }, nil)
			issuance := mustPrepare(t, csr, newProfile(t, test.profile), newCA(t, keys.EC, nil))
			test.mistake(issuance.template)
			_, problem := lint(issuance.draft)
			if diff := cmp.Diff(&ca.Problem{Reason: ReasonLintFailed, Message: test.want}, problem); diff != "" {
				t.Errorf("problem (-want +got):\n%s", diff)
			}
		})
	}
}

// TestCheck_keyAndIssuer covers what a template does not hold: the key and the CA.
func TestCheck_keyAndIssuer(t *testing.T) {
	keys := testKeys()
	prepare := func(caName string) *Issuance {
		return mustPrepare(t, newCSR(t, keys.EC, nil, nil), newProfile(t, nil), newCA(t, keys.EC, func(c *x509.Certificate) {
			c.Subject.CommonName, c.SubjectKeyId = caName, []byte(caName)
		}))
	}
	ours, theirs := prepare("Ours"), prepare("Theirs")
	sign := func(i *Issuance, public any) *x509.Certificate {
		tbs, err := i.ca.ToBeSigned(ours.template, public)
		if err != nil {
			t.Fatal(err)
		}
		der, err := i.ca.Sign(t.Context(), ours.template, public, tbs)
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return certificate
	}
	if err := ours.expected.check(sign(ours, keys.EC.Public())); err != nil {
		t.Errorf("the expected certificate: %v", err)
	}
	err := ours.expected.check(sign(ours, keys.Ed.Public()))
	if want := "public key differs from that of the request"; err == nil || err.Error() != want {
		t.Errorf("another key: got %v, want %q", err, want)
	}
	err = ours.expected.check(sign(theirs, keys.EC.Public()))
	if want := "issuer differs from the CA; authority key identifier differs from that of the CA"; err == nil || err.Error() != want {
		t.Errorf("another CA: got %v, want %q", err, want)
	}
}
