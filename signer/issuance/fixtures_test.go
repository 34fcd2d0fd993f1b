// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import "countersign.dev/countersign/signer/internal/signertest"

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
