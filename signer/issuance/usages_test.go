// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/api/v1alpha1"
)

// TestFitUsages names for each kind of key what is left of usages.
func TestFitUsages(t *testing.T) {
	const all = "RSA ECDSA Ed25519"
	type list = []certificatesv1.KeyUsage
	noKeyUsage := `UsageNotAllowed: for a key of type %s the usages %s leave the certificate without a key usage, which would allow every one: ask for "digital signature"`
	forNothing := `UsageNotAllowed: for a key of type %s the usages %s leave the certificate good for nothing, as its key usages go with none of its extended ones (RFC 5280, section 4.2.1.12): ask for "digital signature"`
	noExtended := `UsageNotAllowed: the usages %[2]s leave the certificate without an extended key usage, which would allow every one: ask for one such as "server auth" or "client auth"`
	tests := map[string]struct {
		asked list
		keys  string
		want  list
		err   string
	}{
		"key encipherment is RSA's":        {list{"digital signature", "key encipherment", "server auth"}, "RSA", list{"digital signature", "key encipherment", "server auth"}, ""},
		"key encipherment is not ECDSA's":  {list{"digital signature", "key encipherment", "server auth"}, "ECDSA", list{"digital signature", "server auth"}, ""},
		"nor Ed25519's":                    {list{"digital signature", "key encipherment", "server auth"}, "Ed25519", list{"digital signature", "server auth"}, ""},
		"data encipherment is RSA's":       {list{"digital signature", "data encipherment", "email protection"}, "RSA", list{"digital signature", "data encipherment", "email protection"}, ""},
		"data encipherment is not ECDSA's": {list{"digital signature", "data encipherment", "email protection"}, "ECDSA", list{"digital signature", "email protection"}, ""},
		"key agreement is ECDSA's":         {list{"key agreement", "client auth"}, "ECDSA", list{"key agreement", "client auth"}, ""},
		"key agreement is not RSA's":       {list{"digital signature", "key agreement", "client auth"}, "RSA", list{"digital signature", "client auth"}, ""},
		"key agreement is not Ed25519's":   {list{"digital signature", "key agreement", "client auth"}, "Ed25519", list{"digital signature", "client auth"}, ""},
		"code signing":                     {list{"digital signature", "code signing"}, "RSA", list{"digital signature", "code signing"}, ""},
		"content commitment is everyone's": {list{"content commitment", "email protection"}, "Ed25519", list{"content commitment", "email protection"}, ""},
		"as kubelets ask with RSA keys":    {list{"digital signature", "key encipherment", "client auth"}, "RSA", list{"digital signature", "key encipherment", "client auth"}, ""},

		"nothing is left, ECDSA":          {list{"key encipherment", "server auth"}, "ECDSA", nil, noKeyUsage},
		"nothing is left, Ed25519":        {list{"key agreement", "server auth"}, "Ed25519", nil, noKeyUsage},
		"nothing is left, RSA":            {list{"key agreement", "server auth"}, "RSA", nil, noKeyUsage},
		"no extended usage":               {list{"digital signature"}, all, nil, noExtended},
		"no usage":                        {nil, all, nil, `UsageNotAllowed: for a key of type %s the usages %s leave the certificate without a key usage, which would allow every one: ask for "digital signature"`},
		"enciphers data to serve TLS":     {list{"data encipherment", "server auth"}, "RSA", nil, forNothing},
		"enciphers keys to be a client":   {list{"key encipherment", "client auth"}, "RSA", nil, forNothing},
		"commits to content as a server":  {list{"content commitment", "server auth"}, all, nil, forNothing},
		"agrees on keys to sign code":     {list{"key agreement", "code signing"}, "ECDSA", nil, forNothing},
		"good for one of two":             {list{"key encipherment", "client auth", "server auth"}, "RSA", list{"key encipherment", "client auth", "server auth"}, ""},
		"a kind of key that is not known": {list{"digital signature", "server auth"}, "DSA", nil, noKeyUsage},
	}
	for name, test := range tests {
		keys := []string{test.keys}
		if test.keys == all {
			keys = allKeyAlgorithms
		}
		for _, key := range keys {
			t.Run(name+"/"+key, func(t *testing.T) {
				got, err := fitUsages(test.asked, key)
				text := ""
				if err != nil {
					text = err.Error()
				}
				want := test.err
				if want == noExtended {
					want = fmt.Sprintf(want+"%.0[1]s", key, quoteAll(test.asked))
				} else if want != "" {
					want = fmt.Sprintf(want, key, quoteAll(test.asked))
				}
				if diff := cmp.Diff(want, text); diff != "" {
					t.Errorf("error (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("usages (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestIssue_everyUsage has every set of usages asked for with every kind of key. Whatever is issued has
// at least one of each kind, none that was not asked for, none that the key cannot have, and passes
// lint; whatever is not is refused for its usages.
func TestIssue_everyUsage(t *testing.T) {
	keys := testKeys()
	profile := newProfile(t, func(p *v1alpha1.CertificateProfile) { p.Usages = allUsages })
	authority := newCA(t, keys.EC, nil)
	for algorithm, key := range map[string]crypto.Signer{"RSA": keys.RSA, "ECDSA": keys.EC, "Ed25519": keys.Ed} {
		csr := newCSR(t, key, nil, nil)
		count := 0
		for set := 1; set < 1<<len(allUsages); set++ {
			csr.Spec.Usages = nil
			for i, usage := range allUsages {
				if set&(1<<i) != 0 {
					csr.Spec.Usages = append(csr.Spec.Usages, usage)
				}
			}
			issuance, err := Prepare(now, csr, profile, authority)
			if err != nil {
				if refusal, ok := errors.AsType[*Refusal](err); !ok || refusal.Reason != ReasonUsageNotAllowed {
					t.Fatalf("%s, %s: %v", algorithm, quoteAll(csr.Spec.Usages), err)
				}
				continue
			}
			count++
			template := issuance.template
			if template.KeyUsage == 0 || len(template.ExtKeyUsage) == 0 || template.KeyUsage&^usagesOfKey[algorithm] != 0 {
				t.Fatalf("%s, %s: issued %b, %v", algorithm, quoteAll(csr.Spec.Usages), template.KeyUsage, template.ExtKeyUsage)
			}
			for usage, bit := range keyUsages {
				if template.KeyUsage&bit != 0 && !slices.Contains(csr.Spec.Usages, usage) {
					t.Fatalf("%s: %q was not asked for", algorithm, usage)
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
			t.Errorf("no key usage goes with %q", usage)
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
