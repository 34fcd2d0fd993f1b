// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/url"
	"strings"
	"testing"

	zlint "github.com/zmap/zlint/v3/lint"

	"countersign.dev/countersign/signer/ca"
)

func TestLintRFC(t *testing.T) {
	keys := testKeys()
	dns := func(names ...string) func(*x509.CertificateRequest) {
		return func(r *x509.CertificateRequest) { r.Subject, r.DNSNames = pkix.Name{}, names }
	}
	commonName := func(name string) func(*x509.CertificateRequest) {
		return func(r *x509.CertificateRequest) { r.Subject.CommonName = name }
	}
	uri := func(text string) func(*x509.CertificateRequest) {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return func(r *x509.CertificateRequest) { r.Subject, r.DNSNames, r.URIs = pkix.Name{}, nil, []*url.URL{u} }
	}
	email := func(address string) func(*x509.CertificateRequest) {
		return func(r *x509.CertificateRequest) { r.EmailAddresses = []string{address} }
	}
	label := func(n int) string { return strings.Repeat("a", n) }
	tests := []struct {
		name    string
		request func(*x509.CertificateRequest)
		want    string // the message of LintFailed; empty if it is issued
	}{
		{"common name and DNS name", nil, ""},
		{"names of a Service", dns("web.ns.svc.cluster.local", "web.ns.svc", "web.ns", "web"), ""},
		{"pod", dns("10-244-0-7.ns.pod.cluster.local", "web-0.web.ns.svc.cluster.local"), ""},
		{"localhost", dns("localhost"), ""},
		{"wildcard", dns("*.web.ns.svc.cluster.local"), ""},
		{"upper case", dns("Web.NS.svc.cluster.local"), ""},
		{"hyphens", dns("a--b.ns.svc.cluster.local"), ""},
		{"label of 63 characters", dns(label(63) + ".ns.svc.cluster.local"), ""},
		{"name of 253 characters", dns(strings.Repeat(label(49)+".", 5) + "svc"), ""},
		{"IDN", dns("xn--bcher-kva.example"), ""},
		{"IP addresses alone", func(r *x509.CertificateRequest) {
			r.Subject, r.DNSNames, r.IPAddresses = pkix.Name{}, nil, []net.IP{net.IPv4(10, 0, 0, 1), net.ParseIP("2001:db8::1")}
		}, ""},
		{"common name alone", func(r *x509.CertificateRequest) { r.DNSNames = nil }, ""},
		{"node", func(r *x509.CertificateRequest) {
			r.Subject = pkix.Name{CommonName: "system:node:worker-1", Organization: []string{"system:nodes"}}
		}, ""},
		{"common name that is an address", commonName("10.0.0.1"), ""},
		{"common name with a wildcard", commonName("*.example"), ""},
		{"common name beyond ASCII", commonName("wéb & co"), ""},
		{"longest user name", commonName("system:serviceaccount:" + label(63) + ":" + strings.Repeat("a", 253)), ""},
		{"longest group", func(r *x509.CertificateRequest) {
			r.Subject.Organization = []string{"system:serviceaccounts:" + label(63)}
		}, ""},
		{"unit of 64 characters", func(r *x509.CertificateRequest) { r.Subject.OrganizationalUnit = []string{strings.Repeat("é", 64)} }, ""},
		{"SPIFFE ID", uri("spiffe://cluster.local/ns/a/sa/b"), ""},
		{"SPIFFE ID, trust domain of a label", uri("spiffe://prod/ns/a/sa/b"), ""},
		{"URN", uri("urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"), ""},
		{"URI with a port", uri("https://web.example:8443/a?b=c"), ""},
		{"email", email("web@example.com"), ""},

		{
			"trailing dot",
			dns("web.ns.svc.cluster.local."), `DNS name "web.ns.svc.cluster.local." must be a host name of RFC 1123 without a trailing dot`,
		},
		{
			"unit of 65 characters",
			func(r *x509.CertificateRequest) { r.Subject.OrganizationalUnit = []string{label(65)} }, "lint e_subject_organizational_unit_name_max_length: The 'Organizational Unit Name' field of the subject MUST be less than 65 characters (RFC 5280: A.1)",
		},
		{
			"invalid IDN",
			dns("xn--99999999.example"), "lint e_international_dns_name_not_unicode: Internationalized DNSNames punycode not valid Unicode (RFC 3490)",
		},
		{
			"the subject of the CA",
			commonName("Test CA"), "authority key identifier differs from that of the CA",
		},
		{
			"two lints",
			func(r *x509.CertificateRequest) {
				r.Subject.OrganizationalUnit, r.DNSNames = []string{label(65)}, []string{"xn--99999999.example"}
			}, "lint e_international_dns_name_not_unicode: Internationalized DNSNames punycode not valid Unicode (RFC 3490); lint e_subject_organizational_unit_name_max_length: The 'Organizational Unit Name' field of the subject MUST be less than 65 characters (RFC 5280: A.1)",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := Prepare(now, newCSR(t, keys.EC, test.request, nil), newProfile(t, nil), newCA(t, keys.EC, nil))
			if err != nil {
				t.Fatal(err)
			}
			if test.want == "" {
				if got.Outcome != Ready {
					t.Errorf("got outcome %s with %v, want %s", got.Outcome, got.Problem, Ready)
				}
				return
			}
			checkResult(t, got, Refused, &ca.Problem{Reason: ReasonLintFailed, Message: test.want})
		})
	}
}

// TestRFCLints checks that the lints of RFCs are applied, and that each skipped lint exists.
func TestRFCLints(t *testing.T) {
	names := map[string]bool{}
	for _, l := range rfcLints() {
		names[l.Name] = true
	}
	for _, name := range []string{"e_subject_organizational_unit_name_max_length", "e_ext_authority_key_identifier_no_key_identifier", "e_rsa_allowed_ku_ee", "e_ecdsa_allowed_ku"} {
		if !names[name] {
			t.Errorf("%s is not applied", name)
		}
	}
	if len(names) < 80 {
		t.Errorf("got %d lints, want at least 80", len(names))
	}
	for _, name := range skippedLints {
		if names[name] || zlint.GlobalRegistry().CertificateLints().ByName(name) == nil {
			t.Errorf("%s is applied, or unknown", name)
		}
	}
}

// TestPrepare_lintOfCA checks that a lint that every certificate of the CA fails does not refuse a
// request, even an invalid one.
func TestPrepare_lintOfCA(t *testing.T) {
	keys := testKeys()
	profile := newProfile(t, nil)
	authority := newCA(t, keys.EC, withoutKeyID)
	for _, test := range []struct {
		name    string
		request func(*x509.CertificateRequest)
	}{
		{"valid request", nil},
		{"invalid request", func(r *x509.CertificateRequest) { r.DNSNames = []string{"xn--99999999.example"} }},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Prepare(now, newCSR(t, keys.EC, test.request, nil), profile, authority)
			if err != nil {
				t.Fatal(err)
			}
			checkResult(t, got, CAProblem, profile.Probe(now, authority))
		})
	}
}
