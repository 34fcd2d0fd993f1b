// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
)

// withoutKeyID has a CA made without subject key identifier, which crypto/x509 adds if it is told
// that it makes a CA.
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
	tests := map[string]struct {
		ca      func(*x509.Certificate)
		profile func(*v1alpha1.CertificateProfile)
		at      time.Time  // zero: now
		want    ca.Problem // without reason: none
	}{
		"honest":      {},
		"every usage": {profile: func(p *v1alpha1.CertificateProfile) { p.Usages = allUsages }},
		"usages that not every kind of key can have": {profile: func(p *v1alpha1.CertificateProfile) {
			p.Usages = []certificatesv1.KeyUsage{"key agreement", "server auth"}
		}},
		"nothing of the subject is kept": {profile: func(p *v1alpha1.CertificateProfile) { p.Subject = []v1alpha1.SubjectAttribute{} }},
		"URLs": {profile: func(p *v1alpha1.CertificateProfile) {
			p.CRLDistributionPoints, p.OCSPServers, p.IssuingCertificateURLs = []string{"http://a.example/crl"}, []string{"http://a.example"}, []string{"https://a.example/ca.crt"}
		}},
		"name constraints": {ca: func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical, c.PermittedDNSDomains, c.PermittedIPRanges = true, []string{"cluster.local"}, []*net.IPNet{cluster}
			c.PermittedURIDomains, c.PermittedEmailAddresses = []string{"example.com"}, []string{"example.com"}
		}},
		"as long as the shortest": {ca: func(c *x509.Certificate) { c.NotAfter = now.Truncate(time.Second).Add(601 * time.Second) }},
		"of a minute": {
			ca:      func(c *x509.Certificate) { c.NotAfter = now.Truncate(time.Second).Add(time.Minute) },
			profile: func(p *v1alpha1.CertificateProfile) { p.MaxDuration = &metav1.Duration{Duration: 10 * time.Second} },
		},

		"ends before the shortest does": {
			ca:   func(c *x509.Certificate) { c.NotAfter = now.Truncate(time.Second).Add(10 * time.Minute) },
			want: ca.Problem{Reason: v1alpha1.ReasonCAExpired, Message: `the certificate "CN=Test CA" expires at 2026-03-01T12:10:00Z, too soon to issue the shortest of certificates (10m0s): put a renewed CA in its place`},
		},
		"not valid yet": {
			at:   now.AddDate(-2, 0, 0),
			want: ca.Problem{Reason: v1alpha1.ReasonCANotYetValid, Message: `the certificate "CN=Test CA" is not valid before 2025-03-01T12:00:00Z: wait until then, or set the clock right`},
		},
		"other extended usages": {
			ca:   func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} },
			want: ca.Problem{Reason: v1alpha1.ReasonInvalidCA, Message: `the CA certificate, or one of its issuers, limits its extended key usages and leaves out "server auth": use a CA that has it or has no such limit, or take it out of spec.certificate.usages`},
		},
		"no subject key identifier": {ca: withoutKeyID, want: ca.Problem{
			Reason: v1alpha1.ReasonInvalidCA,
			Message: `no certificate of the CA "CN=Test CA" passes: LintFailed: lint e_ext_authority_key_identifier_no_key_identifier: ` +
				"CAs must include keyIdentifer field of AKI in all non-self-issued certificates (RFC 5280: 4.2.1.1); " +
				"use a CA whose own certificate is by RFC 5280, with a subject key identifier",
		}},
		"a country that is no PrintableString": {
			ca: func(c *x509.Certificate) { c.Subject.Country = []string{"É"} },
			want: ca.Problem{
				Reason: v1alpha1.ReasonInvalidCA,
				Message: `no certificate of the CA "CN=Test CA,C=É" passes: LintFailed: lint e_issuer_dn_country_not_printable_string: ` +
					"X520 Distinguished Name Country MUST BE encoded as PrintableString (RFC 5280: Appendix A); " +
					"use a CA whose own certificate is by RFC 5280, with a subject key identifier",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			at := now
			if !test.at.IsZero() {
				at = test.at
			}
			err := newProfile(t, test.profile).Probe(at, newCA(t, keys.EC, test.ca))
			if test.want.Reason == "" {
				if err != nil {
					t.Errorf("got %v, want nil", err)
				}
				return
			}
			var fault *ca.Problem
			if !errors.As(err, &fault) {
				t.Fatalf("got %v, want a *ca.Problem", err)
			}
			if diff := cmp.Diff(test.want, *fault); diff != "" {
				t.Errorf("fault (-want +got):\n%s", diff)
			}
		})
	}
}
