// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
)

// withoutKeyID alters a CA certificate to have no subject key identifier, which crypto/x509 adds to
// templates with IsCA.
func withoutKeyID(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid = false, false
	c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}}
}

func TestProbe(t *testing.T) {
	keys := testKeys()
	_, cluster, err := net.ParseCIDR("10.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		ca      func(*x509.Certificate)
		profile func(*v1alpha1.CertificateProfile)
		at      time.Time // zero: now
		want    *ca.Problem
	}{
		{name: "valid CA"},
		{name: "every usage", profile: func(p *v1alpha1.CertificateProfile) { p.Usages = allUsages }},
		{name: "usages that do not fit every key algorithm", profile: func(p *v1alpha1.CertificateProfile) {
			p.Usages = []certificatesv1.KeyUsage{"key agreement", "server auth"}
		}},
		{name: "no subject attributes", profile: func(p *v1alpha1.CertificateProfile) { p.Subject = []v1alpha1.SubjectAttribute{} }},
		{name: "URLs", profile: func(p *v1alpha1.CertificateProfile) {
			p.CRLDistributionPoints, p.OCSPServers, p.IssuingCertificateURLs = []string{"http://a.example/crl"}, []string{"http://a.example"}, []string{"https://a.example/ca.crt"}
		}},
		{name: "name constraints", ca: func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical, c.PermittedDNSDomains, c.PermittedIPRanges = true, []string{"cluster.local"}, []*net.IPNet{cluster}
			c.PermittedURIDomains, c.PermittedEmailAddresses = []string{"example.com"}, []string{"example.com"}
		}},
		{name: "expires just after the shortest lifetime", ca: func(c *x509.Certificate) { c.NotAfter = now.Truncate(time.Second).Add(601 * time.Second) }},
		{
			name:    "CA that expires in a minute",
			ca:      func(c *x509.Certificate) { c.NotAfter = now.Truncate(time.Second).Add(time.Minute) },
			profile: func(p *v1alpha1.CertificateProfile) { p.MaxDuration = &metav1.Duration{Duration: 10 * time.Second} },
		},

		{
			name: "expires before the shortest lifetime",
			ca:   func(c *x509.Certificate) { c.NotAfter = now.Truncate(time.Second).Add(10 * time.Minute) },
			want: &ca.Problem{Reason: v1alpha1.ReasonCAExpired, Message: `the certificate "CN=Test CA" expires at 2026-03-01T12:10:00Z, too soon to issue the shortest certificate (10m0s): replace the CA with a renewed one`},
		},
		{
			name: "not valid yet",
			at:   now.AddDate(-2, 0, 0),
			want: &ca.Problem{Reason: v1alpha1.ReasonCANotYetValid, Message: `the certificate "CN=Test CA" is not valid before 2025-03-01T12:00:00Z: wait until then, or correct the clock`},
		},
		{
			name: "extended key usages limited to others",
			ca:   func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} },
			want: &ca.Problem{Reason: v1alpha1.ReasonInvalidCA, Message: `the CA certificate, or one of its issuers, limits its extended key usages and does not list "server auth": use another CA, or remove the usage from spec.certificate.usages`},
		},
		{name: "no subject key identifier", ca: withoutKeyID, want: &ca.Problem{
			Reason: v1alpha1.ReasonInvalidCA,
			Message: `the CA "CN=Test CA" cannot issue a valid certificate: LintFailed: lint e_ext_authority_key_identifier_no_key_identifier: ` +
				"CAs must include keyIdentifer field of AKI in all non-self-issued certificates (RFC 5280: 4.2.1.1); " +
				"use a CA whose own certificate conforms to RFC 5280 and has a subject key identifier",
		}},
		{
			name: "country not a PrintableString",
			ca:   func(c *x509.Certificate) { c.Subject.Country = []string{"É"} },
			want: &ca.Problem{
				Reason: v1alpha1.ReasonInvalidCA,
				Message: `the CA "CN=Test CA,C=É" cannot issue a valid certificate: LintFailed: lint e_issuer_dn_country_not_printable_string: ` +
					"X520 Distinguished Name Country MUST BE encoded as PrintableString (RFC 5280: Appendix A); " +
					"use a CA whose own certificate conforms to RFC 5280 and has a subject key identifier",
			},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			at := now
			if !test.at.IsZero() {
				at = test.at
			}
			got := newProfile(t, test.profile).Probe(at, newCA(t, keys.EC, test.ca))
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("problem (-want +got):\n%s", diff)
			}
		})
	}
}
