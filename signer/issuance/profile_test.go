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
	const urlForm = ": must be an absolute http or https URL in normal form, without user, password and fragment"
	tests := []struct {
		name        string
		signerName  string // empty: the usual one
		spec        v1alpha1.CertificateProfile
		approvalAge *metav1.Duration
		want        Profile
		err         string
	}{
		{name: "defaults", want: defaults(func(*Profile) {})},
		{
			name: "everything set",
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
		{
			name: "minDuration defaults to maxDuration if that is shorter",
			spec: v1alpha1.CertificateProfile{MaxDuration: duration(30 * time.Second)},
			want: defaults(func(p *Profile) { p.minDuration, p.maxDuration = 30*time.Second, 30*time.Second }),
		},
		{
			name: "no subject attributes",
			spec: v1alpha1.CertificateProfile{Subject: []v1alpha1.SubjectAttribute{}},
			want: defaults(func(p *Profile) { p.subject = []v1alpha1.SubjectAttribute{} }),
		},
		{name: "no domain", signerName: "serving", err: `signerName "serving" is invalid: must be a domain and a path, such as example.com/serving`},
		{name: "no path", signerName: "example.com/", err: `signerName "example.com/" is invalid: must be a domain and a path, such as example.com/serving`},
		{
			name:       "wildcard path",
			signerName: "example.com/*",
			err:        `signerName "example.com/*" is invalid: wildcards are not supported, create a Signer for each signerName`,
		},
		{
			name:       "wildcard domain",
			signerName: "*/serving",
			err:        `signerName "*/serving" is invalid: wildcards are not supported, create a Signer for each signerName`,
		},
		{
			name:       "signer of Kubernetes",
			signerName: "kubernetes.io/kubelet-serving",
			err:        `signerName "kubernetes.io/kubelet-serving" is invalid: the domain kubernetes.io is reserved for the signers of the cluster`,
		},
		{
			name: "maxDuration too short",
			spec: v1alpha1.CertificateProfile{MaxDuration: duration(10*time.Second - 1)},
			err:  "maxDuration 9.999999999s is invalid: must be at least 10s",
		},
		{
			name: "maxDuration too long",
			spec: v1alpha1.CertificateProfile{MaxDuration: duration(100*365*24*time.Hour + 1)},
			err:  "maxDuration 876000h0m0.000000001s is invalid: must be at most 876000h0m0s",
		},
		{
			name: "minDuration too short",
			spec: v1alpha1.CertificateProfile{MinDuration: duration(time.Second - 1)},
			err:  "minDuration 999.999999ms is invalid: must be at least 1s",
		},
		{
			name: "minDuration beyond maxDuration",
			spec: v1alpha1.CertificateProfile{MinDuration: duration(2 * time.Hour), MaxDuration: duration(time.Hour)},
			err:  "minDuration 2h0m0s is invalid: must be at most maxDuration, 1h0m0s",
		},
		{
			name: "backdate in the future",
			spec: v1alpha1.CertificateProfile{Backdate: duration(-time.Second)},
			err:  "backdate -1s is invalid: must be between 0s and 1h0m0s",
		},
		{
			name: "backdate too far",
			spec: v1alpha1.CertificateProfile{Backdate: duration(2 * time.Hour)},
			err:  "backdate 2h0m0s is invalid: must be between 0s and 1h0m0s",
		},
		{name: "maxApprovalAge too short", approvalAge: duration(time.Second), err: "maxApprovalAge 1s is invalid: must be at least 1m0s"},
		{
			name: "usage of a CA",
			spec: v1alpha1.CertificateProfile{Usages: []certificatesv1.KeyUsage{"server auth", "cert sign"}},
			err: `usages: unsupported value "cert sign": supported values are "client auth", "code signing", "content commitment", "data encipherment", ` +
				`"digital signature", "email protection", "key agreement", "key encipherment", "server auth"`,
		},
		{
			name: "usages without a key usage",
			spec: v1alpha1.CertificateProfile{Usages: []certificatesv1.KeyUsage{"client auth"}},
			err:  `usages and keyAlgorithms allow no certificate: usages "client auth" leave no key usage for a key of algorithm Ed25519, which would allow every key usage: add "digital signature"`,
		},
		{
			name: "usages that no allowed key can have",
			spec: v1alpha1.CertificateProfile{Usages: []certificatesv1.KeyUsage{"key agreement", "server auth"}, KeyAlgorithms: []string{"RSA"}},
			err:  `usages and keyAlgorithms allow no certificate: usages "key agreement", "server auth" leave no key usage for a key of algorithm RSA, which would allow every key usage: add "digital signature"`,
		},
		{
			name: "unknown key algorithm",
			spec: v1alpha1.CertificateProfile{KeyAlgorithms: []string{"DSA"}},
			err:  `keyAlgorithms: unsupported value "DSA": supported values are "RSA", "ECDSA", "Ed25519"`,
		},
		{
			name: "unknown subject attribute",
			spec: v1alpha1.CertificateProfile{Subject: []v1alpha1.SubjectAttribute{"country"}},
			err:  `subject: unsupported value "country": supported values are "commonName", "organization", "organizationalUnit"`,
		},
		{name: "relative URL", spec: v1alpha1.CertificateProfile{OCSPServers: []string{"/ocsp"}}, err: `ocspServers: invalid value "/ocsp"` + urlForm},
		{name: "URL without host", spec: v1alpha1.CertificateProfile{OCSPServers: []string{"http:///a"}}, err: `ocspServers: invalid value "http:///a"` + urlForm},
		{name: "URL with a port and no host", spec: v1alpha1.CertificateProfile{OCSPServers: []string{"http://:80/a"}}, err: `ocspServers: invalid value "http://:80/a"` + urlForm},
		{name: "LDAP URL", spec: v1alpha1.CertificateProfile{CRLDistributionPoints: []string{"ldap://a.example/b"}}, err: `crlDistributionPoints: invalid value "ldap://a.example/b"` + urlForm},
		{name: "URL with a password", spec: v1alpha1.CertificateProfile{IssuingCertificateURLs: []string{"http://u:p@a.example/"}}, err: `issuingCertificateURLs: invalid value "http://u:p@a.example/"` + urlForm},
		{name: "URL with a space", spec: v1alpha1.CertificateProfile{IssuingCertificateURLs: []string{"http://a.example/b c"}}, err: `issuingCertificateURLs: invalid value "http://a.example/b c"` + urlForm},
		{name: "URL with a fragment", spec: v1alpha1.CertificateProfile{IssuingCertificateURLs: []string{"http://a.example/#b"}}, err: `issuingCertificateURLs: invalid value "http://a.example/#b"` + urlForm},
		{name: "URL not in normal form", spec: v1alpha1.CertificateProfile{OCSPServers: []string{"http://ä.example/"}}, err: `ocspServers: invalid value "http://ä.example/"` + urlForm},
		{
			name: "duplicate URL",
			spec: v1alpha1.CertificateProfile{OCSPServers: []string{"http://a.example/", "http://a.example/"}},
			err:  `ocspServers: duplicate value "http://a.example/"`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
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
	t.Run("empty signerName", func(t *testing.T) {
		_, err := NewProfile(v1alpha1.SignerSpec{})
		if want := `signerName "" is invalid: must be a domain and a path, such as example.com/serving`; err == nil || err.Error() != want {
			t.Errorf("got error %v, want %q", err, want)
		}
	})
}
