// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"testing"
	"time"

	"countersign.dev/countersign/pkcs10"
)

// BenchmarkIssue shows what issuing costs beside the least that any signer does: x509.CreateCertificate
// of a template that is there. Of each part it tells the ratio to that, measured in turns with it, so
// that it is the same on a machine that is busy.
//
//   - parse: pkcs10.Parse of the request
//   - unlinted: from the parsed request to the PEM chain, without lint
//   - linted: the same with lint, so all but parse of what Prepare and Issue do
func BenchmarkIssue(b *testing.B) {
	keys := testKeys()
	for _, c := range []struct {
		name string
		key  crypto.Signer
	}{{"P-256", keys.EC}, {"Ed25519", keys.Ed}, {"RSA-2048", keys.RSA}} {
		authority, profile := newCA(b, c.key, nil), newProfile(b, nil)
		csr := newCSR(b, keys.EC, nil, nil)
		request, err := pkcs10.Parse(csr.Spec.Request)
		if err != nil {
			b.Fatal(err)
		}
		newDraft := func() draft {
			d, err := newDraft(now, request, csr.Spec.Usages, csr.Spec.ExpirationSeconds, &profile, authority)
			if err != nil {
				b.Fatal(err)
			}
			return d
		}
		issue := func(d draft, tbs []byte) {
			if _, _, err := (&Issuance{draft: d, tbs: tbs}).Issue(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		ready := newDraft()
		bare := func() {
			if _, err := x509.CreateCertificate(rand.Reader, ready.template, authority.Certificate(), request.PublicKey, c.key); err != nil {
				b.Fatal(err)
			}
		}
		b.Run("CA="+c.name+"/bare", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bare()
			}
		})
		for _, part := range []struct {
			name string
			do   func()
		}{
			{"parse", func() {
				if _, err := pkcs10.Parse(csr.Spec.Request); err != nil {
					b.Fatal(err)
				}
			}},
			{"unlinted", func() {
				d := newDraft()
				tbs, err := d.ca.ToBeSigned(d.template, request.PublicKey)
				if err != nil {
					b.Fatal(err)
				}
				issue(d, tbs)
			}},
			{"linted", func() {
				d := newDraft()
				tbs, err := lint(d)
				if err != nil {
					b.Fatal(err)
				}
				issue(d, tbs)
			}},
		} {
			b.Run("CA="+c.name+"/"+part.name, func(b *testing.B) {
				b.ReportAllocs()
				var reference time.Duration
				for b.Loop() {
					part.do()
					b.StopTimer()
					started := time.Now()
					bare()
					reference += time.Since(started)
					b.StartTimer()
				}
				b.ReportMetric(float64(b.Elapsed())/float64(reference), "x-bare")
			})
		}
	}
}

// BenchmarkProbe is what a Signer costs each time it is loaded.
func BenchmarkProbe(b *testing.B) {
	authority := newCA(b, testKeys().EC, nil)
	profile := newProfile(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		if err := profile.Probe(now, authority); err != nil {
			b.Fatal(err)
		}
	}
}
