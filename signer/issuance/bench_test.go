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

// BenchmarkIssue compares issuing with the least that any signer does: x509.CreateCertificate with a given
// template. The metric x-bare of each part is its ratio to that. Both are measured in turns, so that
// the ratio is the same on a busy machine.
//
//   - parse: pkcs10.Parse of the request
//   - unlinted: from the parsed request to the PEM chain, without lint
//   - linted: the same with lint, so all that Prepare and Issue do except parsing
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
		newDraft := func() *draft {
			t, problem := newTerms(request, csr.Spec.Usages, csr.Spec.ExpirationSeconds, &profile)
			if problem != nil {
				b.Fatal(problem)
			}
			if problem := checkCA(now, authority, t.usages, profile.minDuration); problem != nil {
				b.Fatal(problem)
			}
			d, err := newDraft(now, t, authority)
			if err != nil {
				b.Fatal(err)
			}
			return d
		}
		issue := func(d *draft, tbs []byte) {
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
				tbs, problem := lint(d)
				if problem != nil {
					b.Fatal(problem)
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

// BenchmarkProbe measures what loading a Signer costs.
func BenchmarkProbe(b *testing.B) {
	authority := newCA(b, testKeys().EC, nil)
	profile := newProfile(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		if problem := profile.Probe(now, authority); problem != nil {
			b.Fatal(problem)
		}
	}
}
