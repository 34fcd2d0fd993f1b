// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
)

func TestPrepare_serialNumbers(t *testing.T) {
	keys := testKeys()
	csr, profile, authority := newCSR(t, keys.EC, nil, nil), newProfile(t, nil), newCA(t, keys.EC, nil)
	used := map[string]bool{}
	longest := 0
	for range 64 {
		issuance := mustPrepare(t, csr, profile, authority)
		serial := issuance.template.SerialNumber
		if serial.Sign() <= 0 || serial.BitLen() > 128 || used[serial.String()] {
			t.Fatalf("serial number %x is not positive, too long, or repeated", serial)
		}
		used[serial.String()] = true
		longest = max(longest, serial.BitLen())
	}
	if longest < 127 { // 2^-64 if all 128 bits are random
		t.Errorf("the longest of 64 serial numbers has %d bits", longest)
	}
}

func TestPrepare_notDue(t *testing.T) {
	keys := testKeys()
	add := func(kinds ...certificatesv1.RequestConditionType) func(*certificatesv1.CertificateSigningRequest) {
		return func(c *certificatesv1.CertificateSigningRequest) {
			c.Status.Conditions = nil
			for _, kind := range kinds {
				c.Status.Conditions = append(c.Status.Conditions, conditionOf(kind))
			}
		}
	}
	tests := []struct {
		name   string
		object func(*certificatesv1.CertificateSigningRequest)
	}{
		{"another signerName", func(c *certificatesv1.CertificateSigningRequest) { c.Spec.SignerName = "example.com/other" }},
		{"signerName in another case", func(c *certificatesv1.CertificateSigningRequest) {
			c.Spec.SignerName = "example.com/Serving"
		}},
		{"signerName as a prefix", func(c *certificatesv1.CertificateSigningRequest) { c.Spec.SignerName = signerName + "s" }},
		{"no condition", add()},
		{"unknown condition", add("Example")},
		{"approved but False", func(c *certificatesv1.CertificateSigningRequest) {
			c.Status.Conditions[0].Status = corev1.ConditionFalse
		}},
		{"denied", add("Denied")},
		{"approved and denied", add("Approved", "Denied")},
		{"denied and approved", add("Denied", "Approved")},
		{"approved and failed", add("Approved", "Failed")},
		{"issued", func(c *certificatesv1.CertificateSigningRequest) { c.Status.Certificate = []byte("x") }},
	}
	profile, authority := newProfile(t, nil), newCA(t, keys.EC, nil)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			csr := newCSR(t, keys.EC, nil, func(c *certificatesv1.CertificateSigningRequest) {
				test.object(c)
				c.Spec.Request = []byte("a request that is not due is not parsed")
			})
			result, err := Prepare(now, csr, profile, authority)
			if err != nil || result != (Result{Outcome: NotDue}) {
				t.Errorf("got %+v, %v, want outcome %s alone", result, err, NotDue)
			}
		})
	}
	t.Run("zero Profile", func(t *testing.T) {
		csr := newCSR(t, keys.EC, nil, func(c *certificatesv1.CertificateSigningRequest) { c.Spec.SignerName = "" })
		if result, err := Prepare(now, csr, Profile{}, authority); err != nil || result != (Result{Outcome: NotDue}) {
			t.Errorf("got %+v, %v, want outcome %s alone", result, err, NotDue)
		}
	})
}

func TestPrepare_refused(t *testing.T) {
	keys := testKeys()
	extension := func(id asn1.ObjectIdentifier, value ...byte) func(*x509.CertificateRequest) {
		return func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{{Id: id, Value: value}}
		}
	}
	tests := []struct {
		name    string
		key     crypto.Signer
		request func(*x509.CertificateRequest)
		object  func(*certificatesv1.CertificateSigningRequest)
		profile func(*v1alpha1.CertificateProfile)
		reason  string
		message string
	}{
		{
			name:   "not a request",
			object: func(c *certificatesv1.CertificateSigningRequest) { c.Spec.Request = []byte("hello") },
			reason: ReasonRequestRefused, message: "MalformedRequest: the request has no line -----BEGIN CERTIFICATE REQUEST-----: put PEM text in spec.request, encoded in base64 once",
		},
		{
			name:    "CA:TRUE",
			request: extension(asn1.ObjectIdentifier{2, 5, 29, 19}, 0x30, 3, 1, 1, 0xff),
			reason:  ReasonRequestRefused, message: "CertificateAuthority: basic constraints ask for a CA certificate: leave CA:TRUE out",
		},
		{
			name:   "usage beyond the profile",
			object: usages("digital signature", "server auth", "client auth"),
			reason: ReasonUsageNotAllowed, message: `usage "client auth" is not allowed: the Signer allows "digital signature", "key encipherment", "server auth"`,
		},
		{
			name:   "usage for CAs",
			object: usages("cert sign", "server auth"),
			reason: ReasonUsageNotAllowed, message: `usage "cert sign" is not allowed: the Signer allows "digital signature", "key encipherment", "server auth"`,
		},
		{
			name:   "any usage",
			object: usages("digital signature", "any"),
			reason: ReasonUsageNotAllowed, message: `usage "any" is not allowed: the Signer allows "digital signature", "key encipherment", "server auth"`,
		},
		{
			name:    "PKCS#10 request with another usage",
			request: extension(asn1.ObjectIdentifier{2, 5, 29, 37}, 0x30, 0x0a, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2),
			reason:  ReasonUsageNotAllowed, message: `the PKCS#10 request asks for usage "client auth", which spec.usages does not list: both must agree`,
		},
		{
			name:   "no extended key usage",
			object: usages("digital signature", "key encipherment"),
			reason: ReasonUsageNotAllowed, message: `usages "digital signature", "key encipherment" have no extended key usage, which would allow every extended key usage: add one such as "server auth" or "client auth"`,
		},
		{
			name:   "no key usage",
			object: usages("server auth"),
			reason: ReasonUsageNotAllowed, message: `usages "server auth" leave no key usage for a key of algorithm ECDSA, which would allow every key usage: add "digital signature"`,
		},
		{
			name: "no key usage fits the key",
			key:  keys.Ed, object: usages("key encipherment", "server auth"),
			reason: ReasonUsageNotAllowed, message: `usages "key encipherment", "server auth" leave no key usage for a key of algorithm Ed25519, which would allow every key usage: add "digital signature"`,
		},
		{
			name:    "no name",
			request: func(r *x509.CertificateRequest) { r.Subject, r.DNSNames = pkix.Name{}, nil },
			reason:  ReasonSubjectNotAllowed, message: "the request has neither a common name nor a subject alternative name: add one",
		},
		{
			name: "organization only",
			request: func(r *x509.CertificateRequest) {
				r.Subject, r.DNSNames = pkix.Name{Organization: []string{"system:masters"}}, nil
			},
			reason: ReasonSubjectNotAllowed, message: "the request has neither a common name nor a subject alternative name: add one",
		},
		{
			name:    "common name that the Signer leaves out",
			request: func(r *x509.CertificateRequest) { r.DNSNames = nil },
			profile: func(p *v1alpha1.CertificateProfile) { p.Subject = []v1alpha1.SubjectAttribute{"organization"} },
			reason:  ReasonSubjectNotAllowed, message: "the request has no subject alternative name, and the Signer leaves the common name out: add a subject alternative name",
		},
		{
			name: "RSA key",
			key:  keys.RSA, profile: func(p *v1alpha1.CertificateProfile) { p.KeyAlgorithms = []string{"ECDSA", "Ed25519"} },
			reason: ReasonKeyNotAllowed, message: `key algorithm RSA is not allowed: the Signer allows "ECDSA", "Ed25519"`,
		},
		{
			name:    "ECDSA key",
			profile: func(p *v1alpha1.CertificateProfile) { p.KeyAlgorithms = []string{"RSA"} },
			reason:  ReasonKeyNotAllowed, message: `key algorithm ECDSA is not allowed: the Signer allows "RSA"`,
		},
		{
			name:   "shorter than the shortest",
			object: expiration(3599), profile: func(p *v1alpha1.CertificateProfile) { p.MinDuration = &metav1.Duration{Duration: time.Hour} },
			reason: ReasonLifetimeNotAllowed, message: "expirationSeconds is 3599, but the Signer issues for at least 1h0m0s: request 3600 or more",
		},
		{
			name:   "shorter than the shortest, not a whole second",
			object: expiration(600), profile: func(p *v1alpha1.CertificateProfile) {
				p.MinDuration = &metav1.Duration{Duration: 600*time.Second + time.Millisecond}
			},
			reason: ReasonLifetimeNotAllowed, message: "expirationSeconds is 600, but the Signer issues for at least 10m0.001s: request 601 or more",
		},
		{
			name:   "negative lifetime", // the API server rejects it
			object: expiration(-1), reason: ReasonLifetimeNotAllowed, message: "expirationSeconds is -1, but the Signer issues for at least 10m0s: request 600 or more",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			key := test.key
			if key == nil {
				key = keys.EC
			}
			got, err := Prepare(now, newCSR(t, key, test.request, test.object), newProfile(t, test.profile), newCA(t, keys.EC, nil))
			if err != nil {
				t.Fatal(err)
			}
			checkResult(t, got, Refused, &ca.Problem{Reason: test.reason, Message: test.message})
		})
	}
}

func TestPrepare_caProblem(t *testing.T) {
	keys := testKeys()
	tests := []struct {
		name   string
		ca     func(*x509.Certificate)
		at     time.Time // when the request is prepared; the CA is loaded at now
		reason string
	}{
		{"expired after it was loaded", func(c *x509.Certificate) { c.NotAfter = now.Add(time.Hour) }, now.Add(2 * time.Hour), v1alpha1.ReasonCAExpired},
		{"expires in 9 minutes", func(c *x509.Certificate) { c.NotAfter = now.Add(time.Hour) }, now.Add(51 * time.Minute), v1alpha1.ReasonCAExpired},
		{"clock set back", nil, now.AddDate(-2, 0, 0), v1alpha1.ReasonCANotYetValid},
		{"names not permitted", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"other"} }, now, ReasonNameNotPermitted},
		{"names excluded", func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"example"} }, now, ReasonNameNotPermitted},
		{"extended usages differ", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, now, v1alpha1.ReasonInvalidCA},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			authority := newCA(t, keys.EC, test.ca)
			got, err := Prepare(test.at, newCSR(t, keys.EC, nil, approved(test.at)), newProfile(t, nil), authority)
			if err != nil || got.Outcome != CAProblem || got.Problem.Reason != test.reason || got.Issuance != nil {
				t.Errorf("got %+v, %v, want outcome %s with reason %s", got, err, CAProblem, test.reason)
			}
		})
	}
	t.Run("ends before the shortest that the profile issues", func(t *testing.T) {
		authority := newCA(t, keys.EC, func(c *x509.Certificate) { c.NotAfter = now.Truncate(time.Second).Add(time.Hour) })
		profile := newProfile(t, func(p *v1alpha1.CertificateProfile) { p.MinDuration = &metav1.Duration{Duration: 2 * time.Hour} })
		got, err := Prepare(now, newCSR(t, keys.EC, nil, nil), profile, authority)
		if err != nil {
			t.Fatal(err)
		}
		want := &ca.Problem{Reason: v1alpha1.ReasonCAExpired, Message: `the certificate "CN=Test CA" expires at 2026-03-01T13:00:00Z, too soon to issue the shortest certificate (2h0m0s): replace the CA with a renewed one`}
		checkResult(t, got, CAProblem, want)
	})
	t.Run("a request that can never be issued is refused", func(t *testing.T) {
		authority := newCA(t, keys.EC, nil)
		csr := newCSR(t, keys.EC, nil, usages("any"))
		approved(now.AddDate(20, 0, 0))(csr)
		got, err := Prepare(now.AddDate(20, 0, 0), csr, newProfile(t, nil), authority)
		if err != nil || got.Outcome != Refused {
			t.Errorf("got %+v, %v, want outcome %s", got, err, Refused)
		}
	})
}

func TestPrepare_approvalAge(t *testing.T) {
	keys := testKeys()
	ago := func(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }
	const hour = "approved at 2026-03-01T10:59:59Z, longer ago than the limit of 1h0m0s: create a new request, or raise spec.maxApprovalAge of the Signer"
	tests := []struct {
		name                        string
		update, transition, created metav1.Time
		want                        string // message; empty if the request is issued
	}{
		{name: "just now", update: ago(0)},
		{name: "an hour ago", update: ago(time.Hour)},
		{name: "a second more", update: ago(time.Hour + time.Second), want: hour},
		{name: "by a clock that is ahead", update: ago(-time.Minute)},
		{name: "by a clock that is a day ahead", update: ago(-24 * time.Hour)},
		{name: "transition time only", transition: ago(time.Minute)},
		{name: "transition time only, long ago", transition: ago(time.Hour + time.Second), want: hour},
		{name: "updated since the transition", update: ago(time.Minute), transition: ago(24 * time.Hour)},
		{name: "no time: creation time", created: ago(time.Minute)},
		{name: "no time, created long ago", created: ago(time.Hour + time.Second), want: hour},
		{name: "no time at all", want: "approved at 0001-01-01T00:00:00Z, longer ago than the limit of 1h0m0s: create a new request, or raise spec.maxApprovalAge of the Signer"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			csr := newCSR(t, keys.EC, nil, func(c *certificatesv1.CertificateSigningRequest) {
				c.CreationTimestamp = test.created
				c.Status.Conditions[0].LastUpdateTime, c.Status.Conditions[0].LastTransitionTime = test.update, test.transition
			})
			got, err := Prepare(now, csr, newProfile(t, nil), newCA(t, keys.EC, nil))
			if err != nil {
				t.Fatal(err)
			}
			if test.want == "" {
				if got.Outcome != Ready {
					t.Errorf("got %+v, want outcome %s", got, Ready)
				}
				return
			}
			checkResult(t, got, ApprovalTooOld, &ca.Problem{Reason: ReasonApprovalTooOld, Message: test.want})
		})
	}
}

// checkResult compares a Result that has no Issuance.
func checkResult(t *testing.T, got Result, outcome Outcome, problem *ca.Problem) {
	t.Helper()
	if got.Outcome != outcome || got.Issuance != nil {
		t.Errorf("got %+v, want outcome %s without an Issuance", got, outcome)
	}
	if diff := cmp.Diff(problem, got.Problem); diff != "" {
		t.Errorf("problem (-want +got):\n%s", diff)
	}
}
