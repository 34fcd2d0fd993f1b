// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"cmp"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
)

func TestNewProfile(t *testing.T) {
	duration := func(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }
	defaults := func(change func(*Profile)) Profile {
		p := Profile{
			signerName: signerName, minDuration: 10 * time.Minute, maxDuration: 24 * time.Hour, backdate: 5 * time.Minute, maxApprovalAge: time.Hour,
			usages:        []certificatesv1.KeyUsage{"digital signature", "key encipherment", "server auth"},
			keyAlgorithms: []string{"RSA", "ECDSA", "Ed25519"},
			subject:       []v1alpha1.SubjectAttribute{"commonName", "organization", "organizationalUnit"},
		}
		change(&p)
		return p
	}
	const urlForm = ": it must be an absolute URL that begins with http:// or https://, in its normal form and without user, password or fragment"
	tests := map[string]struct {
		signerName  string // empty: the usual one
		spec        v1alpha1.CertificateProfile
		approvalAge *metav1.Duration
		want        Profile
		err         string
	}{
		"defaults": {want: defaults(func(*Profile) {})},
		"everything set": {
			spec: v1alpha1.CertificateProfile{
				MaxDuration: duration(10 * time.Second), MinDuration: duration(time.Second), Backdate: duration(time.Hour),
				Usages: []certificatesv1.KeyUsage{"client auth", "key agreement"}, KeyAlgorithms: []string{"ECDSA"}, Subject: []v1alpha1.SubjectAttribute{"organization"},
				CRLDistributionPoints: []string{"http://crl.example/a?b=c"}, OCSPServers: []string{"http://[2001:db8::1]:80/"}, IssuingCertificateURLs: []string{"https://ca.example/ca.crt"},
			},
			approvalAge: duration(time.Minute),
			want: Profile{
				signerName: signerName, minDuration: time.Second, maxDuration: 10 * time.Second, backdate: time.Hour, maxApprovalAge: time.Minute,
				usages: []certificatesv1.KeyUsage{"client auth", "key agreement"}, keyAlgorithms: []string{"ECDSA"}, subject: []v1alpha1.SubjectAttribute{"organization"},
				crlDistributionPoints: []string{"http://crl.example/a?b=c"}, ocspServers: []string{"http://[2001:db8::1]:80/"}, issuingCertificateURLs: []string{"https://ca.example/ca.crt"},
			},
		},
		"the least is what is the most, if that is less": {
			spec: v1alpha1.CertificateProfile{MaxDuration: duration(30 * time.Second)},
			want: defaults(func(p *Profile) { p.minDuration, p.maxDuration = 30*time.Second, 30*time.Second }),
		},
		"nothing of the subject is kept": {
			spec: v1alpha1.CertificateProfile{Subject: []v1alpha1.SubjectAttribute{}},
			want: defaults(func(p *Profile) { p.subject = []v1alpha1.SubjectAttribute{} }),
		},
		"no domain": {signerName: "serving", err: `signerName is "serving": it must be of the form example.com/serving`},
		"no path":   {signerName: "example.com/", err: `signerName is "example.com/": it must be of the form example.com/serving`},
		"all of a domain": {
			signerName: "example.com/*",
			err:        `signerName is "example.com/*": a Signer issues for one signerName, not for all of a domain; make a Signer for each`,
		},
		"all domains": {
			signerName: "*/serving",
			err:        `signerName is "*/serving": a Signer issues for one signerName, not for all of a domain; make a Signer for each`,
		},
		"signer of Kubernetes": {
			signerName: "kubernetes.io/kubelet-serving",
			err:        `signerName is "kubernetes.io/kubelet-serving": signers of kubernetes.io belong to the cluster itself`,
		},
		"maxDuration too short": {
			spec: v1alpha1.CertificateProfile{MaxDuration: duration(10*time.Second - 1)},
			err:  "maxDuration is 9.999999999s: it must be at least 10s",
		},
		"minDuration too short": {
			spec: v1alpha1.CertificateProfile{MinDuration: duration(time.Second - 1)},
			err:  "minDuration is 999.999999ms: it must be at least 1s",
		},
		"minDuration beyond maxDuration": {
			spec: v1alpha1.CertificateProfile{MinDuration: duration(2 * time.Hour), MaxDuration: duration(time.Hour)},
			err:  "minDuration is 2h0m0s: it must not be longer than maxDuration, 1h0m0s",
		},
		"backdate in the future": {
			spec: v1alpha1.CertificateProfile{Backdate: duration(-time.Second)},
			err:  "backdate is -1s: it must be between 0s and 1h0m0s",
		},
		"backdate too far": {
			spec: v1alpha1.CertificateProfile{Backdate: duration(2 * time.Hour)},
			err:  "backdate is 2h0m0s: it must be between 0s and 1h0m0s",
		},
		"maxApprovalAge too short": {approvalAge: duration(time.Second), err: "maxApprovalAge is 1s: it must be at least 1m0s"},
		"usage of a CA": {
			spec: v1alpha1.CertificateProfile{Usages: []certificatesv1.KeyUsage{"server auth", "cert sign"}},
			err: `usage "cert sign" cannot be issued: use only "client auth", "code signing", "content commitment", "data encipherment", ` +
				`"digital signature", "email protection", "key agreement", "key encipherment", "server auth"`,
		},
		"usages of which none is a key usage": {
			spec: v1alpha1.CertificateProfile{Usages: []certificatesv1.KeyUsage{"client auth"}},
			err: `no certificate can be made by usages and keyAlgorithms: UsageNotAllowed: for a key of type Ed25519 the usages "client auth" ` +
				`leave the certificate without a key usage, which would allow every one: ask for "digital signature"`,
		},
		"usages that no allowed key can have": {
			spec: v1alpha1.CertificateProfile{Usages: []certificatesv1.KeyUsage{"key agreement", "server auth"}, KeyAlgorithms: []string{"RSA"}},
			err: `no certificate can be made by usages and keyAlgorithms: UsageNotAllowed: for a key of type RSA the usages "key agreement", "server auth" ` +
				`leave the certificate without a key usage, which would allow every one: ask for "digital signature"`,
		},
		"unknown key algorithm": {
			spec: v1alpha1.CertificateProfile{KeyAlgorithms: []string{"DSA"}},
			err:  `key algorithm "DSA" is not known: use only "RSA", "ECDSA", "Ed25519"`,
		},
		"unknown subject attribute": {
			spec: v1alpha1.CertificateProfile{Subject: []v1alpha1.SubjectAttribute{"country"}},
			err:  `subject attribute "country" cannot be issued: use only "commonName", "organization", "organizationalUnit"`,
		},
		"relative URL":          {spec: v1alpha1.CertificateProfile{OCSPServers: []string{"/ocsp"}}, err: `ocspServers has "/ocsp"` + urlForm},
		"URL without host":      {spec: v1alpha1.CertificateProfile{OCSPServers: []string{"http:///a"}}, err: `ocspServers has "http:///a"` + urlForm},
		"URL with a port alone": {spec: v1alpha1.CertificateProfile{OCSPServers: []string{"http://:80/a"}}, err: `ocspServers has "http://:80/a"` + urlForm},
		"URL of LDAP":           {spec: v1alpha1.CertificateProfile{CRLDistributionPoints: []string{"ldap://a.example/b"}}, err: `crlDistributionPoints has "ldap://a.example/b"` + urlForm},
		"URL with a password":   {spec: v1alpha1.CertificateProfile{IssuingCertificateURLs: []string{"http://u:p@a.example/"}}, err: `issuingCertificateURLs has "http://u:p@a.example/"` + urlForm},
		"URL with a space":      {spec: v1alpha1.CertificateProfile{IssuingCertificateURLs: []string{"http://a.example/b c"}}, err: `issuingCertificateURLs has "http://a.example/b c"` + urlForm},
		"URL with a fragment":   {spec: v1alpha1.CertificateProfile{IssuingCertificateURLs: []string{"http://a.example/#b"}}, err: `issuingCertificateURLs has "http://a.example/#b"` + urlForm},
		"URL in other letters":  {spec: v1alpha1.CertificateProfile{OCSPServers: []string{"http://ä.example/"}}, err: `ocspServers has "http://ä.example/"` + urlForm},
		"URL twice": {
			spec: v1alpha1.CertificateProfile{OCSPServers: []string{"http://a.example/", "http://a.example/"}},
			err:  `ocspServers has "http://a.example/" more than once: keep one`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			spec := v1alpha1.SignerSpec{SignerName: cmp.Or(test.signerName, signerName), Certificate: test.spec, MaxApprovalAge: test.approvalAge}
			got, err := NewProfile(spec)
			if test.err != "" {
				if err == nil || err.Error() != test.err {
					t.Errorf("got error %v, want %q", err, test.err)
				}
			} else if err != nil {
				t.Error(err)
			}
			if diff := gocmp.Diff(test.want, got, gocmp.AllowUnexported(Profile{})); diff != "" {
				t.Errorf("profile (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("no signerName", func(t *testing.T) {
		_, err := NewProfile(v1alpha1.SignerSpec{})
		if want := `signerName is "": it must be of the form example.com/serving`; err == nil || err.Error() != want {
			t.Errorf("got error %v, want %q", err, want)
		}
	})
}
