// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"crypto"
	"crypto/x509"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
)

// TestFitUsages checks which usages fit each key algorithm.
func TestFitUsages(t *testing.T) {
	const all = "RSA ECDSA Ed25519"
	type list = []certificatesv1.KeyUsage
	const noKeyUsage = `usages USAGES leave no key usage for a key of algorithm ALGORITHM, which would allow every key usage: add "digital signature"`
	const inconsistent = `usages USAGES have no key usage for a key of algorithm ALGORITHM that is consistent with an extended key usage (RFC 5280, section 4.2.1.12): add "digital signature"`
	const noExtended = `usages USAGES have no extended key usage, which would allow every extended key usage: add one such as "server auth" or "client auth"`
	tests := []struct {
		name      string
		requested list
		keys      string
		want      list
		problem   string // USAGES and ALGORITHM are replaced
	}{
		{"key encipherment fits RSA", list{"digital signature", "key encipherment", "server auth"}, "RSA", list{"digital signature", "key encipherment", "server auth"}, ""},
		{"key encipherment does not fit ECDSA", list{"digital signature", "key encipherment", "server auth"}, "ECDSA", list{"digital signature", "server auth"}, ""},
		{"key encipherment does not fit Ed25519", list{"digital signature", "key encipherment", "server auth"}, "Ed25519", list{"digital signature", "server auth"}, ""},
		{"data encipherment fits RSA", list{"digital signature", "data encipherment", "email protection"}, "RSA", list{"digital signature", "data encipherment", "email protection"}, ""},
		{"data encipherment does not fit ECDSA", list{"digital signature", "data encipherment", "email protection"}, "ECDSA", list{"digital signature", "email protection"}, ""},
		{"key agreement fits ECDSA", list{"key agreement", "client auth"}, "ECDSA", list{"key agreement", "client auth"}, ""},
		{"key agreement does not fit RSA", list{"digital signature", "key agreement", "client auth"}, "RSA", list{"digital signature", "client auth"}, ""},
		{"key agreement does not fit Ed25519", list{"digital signature", "key agreement", "client auth"}, "Ed25519", list{"digital signature", "client auth"}, ""},
		{"code signing", list{"digital signature", "code signing"}, "RSA", list{"digital signature", "code signing"}, ""},
		{"content commitment fits every key", list{"content commitment", "email protection"}, "Ed25519", list{"content commitment", "email protection"}, ""},
		{"kubelet with an RSA key", list{"digital signature", "key encipherment", "client auth"}, "RSA", list{"digital signature", "key encipherment", "client auth"}, ""},

		{"no key usage is left, ECDSA", list{"key encipherment", "server auth"}, "ECDSA", nil, noKeyUsage},
		{"no key usage is left, Ed25519", list{"key agreement", "server auth"}, "Ed25519", nil, noKeyUsage},
		{"no key usage is left, RSA", list{"key agreement", "server auth"}, "RSA", nil, noKeyUsage},
		{"no extended usage", list{"digital signature"}, all, nil, noExtended},
		{"no usage", nil, all, nil, noKeyUsage},
		{"data encipherment for server auth", list{"data encipherment", "server auth"}, "RSA", nil, inconsistent},
		{"key encipherment for client auth", list{"key encipherment", "client auth"}, "RSA", nil, inconsistent},
		{"content commitment for server auth", list{"content commitment", "server auth"}, all, nil, inconsistent},
		{"key agreement for code signing", list{"key agreement", "code signing"}, "ECDSA", nil, inconsistent},
		{"consistent with one of two", list{"key encipherment", "client auth", "server auth"}, "RSA", list{"key encipherment", "client auth", "server auth"}, ""},
		{"unknown key algorithm", list{"digital signature", "server auth"}, "DSA", nil, noKeyUsage},
	}
	for _, test := range tests {
		keys := []string{test.keys}
		if test.keys == all {
			keys = allKeyAlgorithms
		}
		for _, key := range keys {
			t.Run(test.name+"/"+key, func(t *testing.T) {
				got, problem := fitUsages(test.requested, key)
				var want *ca.Problem
				if test.problem != "" {
					message := strings.NewReplacer("USAGES", quoteAll(test.requested), "ALGORITHM", key).Replace(test.problem)
					want = &ca.Problem{Reason: ReasonUsageNotAllowed, Message: message}
				}
				if diff := cmp.Diff(want, problem); diff != "" {
					t.Errorf("problem (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("usages (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestPrepare_everyUsage requests every set of usages with every key algorithm. Each certificate has at
// least one usage of each extension, only requested usages, only usages that fit the key, and passes lint.
// All other requests are refused with ReasonUsageNotAllowed.
func TestPrepare_everyUsage(t *testing.T) {
	keys := testKeys()
	profile := newProfile(t, func(p *v1alpha1.CertificateProfile) { p.Usages = allUsages })
	authority := newCA(t, keys.EC, nil)
	for _, test := range []struct {
		algorithm string
		key       crypto.Signer
	}{{"RSA", keys.RSA}, {"ECDSA", keys.EC}, {"Ed25519", keys.Ed}} {
		algorithm, csr := test.algorithm, newCSR(t, test.key, nil, nil)
		count := 0
		for set := 1; set < 1<<len(allUsages); set++ {
			csr.Spec.Usages = nil
			for i, usage := range allUsages {
				if set&(1<<i) != 0 {
					csr.Spec.Usages = append(csr.Spec.Usages, usage)
				}
			}
			result, err := Prepare(now, csr, profile, authority)
			if err != nil {
				t.Fatal(err)
			}
			if result.Outcome != Ready {
				if result.Outcome != Refused || result.Problem.Reason != ReasonUsageNotAllowed {
					t.Fatalf("%s, %s: got outcome %s with %v", algorithm, quoteAll(csr.Spec.Usages), result.Outcome, result.Problem)
				}
				continue
			}
			count++
			template := result.Issuance.template
			if template.KeyUsage == 0 || len(template.ExtKeyUsage) == 0 || template.KeyUsage&^usagesOfKey[algorithm] != 0 {
				t.Fatalf("%s, %s: issued %b, %v", algorithm, quoteAll(csr.Spec.Usages), template.KeyUsage, template.ExtKeyUsage)
			}
			for usage, bit := range keyUsages {
				if template.KeyUsage&bit != 0 && !slices.Contains(csr.Spec.Usages, usage) {
					t.Fatalf("%s: %q was not requested", algorithm, usage)
				}
			}
			for usage, id := range extKeyUsages {
				if slices.Contains(template.ExtKeyUsage, id) != slices.Contains(csr.Spec.Usages, usage) {
					t.Fatalf("%s, %s: extended %v", algorithm, quoteAll(csr.Spec.Usages), template.ExtKeyUsage)
				}
			}
		}
		if count == 0 {
			t.Errorf("%s: nothing was issued", algorithm)
		}
	}
}

func TestUsages_complete(t *testing.T) {
	for usage := range extKeyUsages {
		if consistent[usage] == 0 {
			t.Errorf("no key usage is consistent with %q", usage)
		}
	}
	var bits x509.KeyUsage
	for _, bit := range keyUsages {
		bits |= bit
	}
	for _, algorithm := range allKeyAlgorithms {
		if usagesOfKey[algorithm] == 0 || usagesOfKey[algorithm]&^bits != 0 {
			t.Errorf("usages of %s are %b", algorithm, usagesOfKey[algorithm])
		}
	}
}
