// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
	"countersign.dev/countersign/signer/internal/signertest"
)

const signerName = signertest.SignerName

var (
	now         = signertest.Now
	testKeys    = signertest.Keys
	newCA       = signertest.NewCA
	newCSR      = signertest.NewCSR
	conditionOf = signertest.ConditionOf
	approved    = signertest.Approved
	usages      = signertest.Usages
	expiration  = signertest.Expiration
)

func newProfile(t testing.TB, change func(*v1alpha1.CertificateProfile)) Profile {
	t.Helper()
	spec := v1alpha1.SignerSpec{SignerName: signerName}
	if change != nil {
		change(&spec.Certificate)
	}
	profile, err := NewProfile(spec)
	if err != nil {
		t.Fatal(err)
	}
	return profile
}

// mustPrepare returns the Issuance of a request that can be issued.
func mustPrepare(t testing.TB, csr *certificatesv1.CertificateSigningRequest, profile Profile, authority *ca.CA) *Issuance {
	t.Helper()
	result, err := Prepare(now, csr, profile, authority)
	if err != nil || result.Outcome != Ready {
		t.Fatalf("got %+v, %v, want outcome %s", result, err, Ready)
	}
	return result.Issuance
}
