// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"testing"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/internal/signertest"
	"countersign.dev/countersign/signer/issuance"
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

func newProfile(t testing.TB) issuance.Profile {
	t.Helper()
	profile, err := issuance.NewProfile(v1alpha1.SignerSpec{SignerName: signerName})
	if err != nil {
		t.Fatal(err)
	}
	return profile
}
