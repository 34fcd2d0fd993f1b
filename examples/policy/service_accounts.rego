# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# METADATA
# title: Only listed ServiceAccounts can use a signer
# description: Install it beside pod-serving, which checks the requested names.
package countersign.service_accounts

import rego.v2

import data.countersign.lib.subject

subject_controls_key if subject.requester_speaks_for_pod

subject_is_authorized if account_is_listed

violations contains v if some v in subject.violations

violations contains {
	"requirement": 2,
	"id": "service-account-not-listed",
	"message": sprintf("only these ServiceAccounts can use this signer: %s", [concat(", ", input.parameters.serviceAccounts)]),
	"value": input.requester.username,
	"retryable": false,
} if {
	not account_is_listed
}

account_is_listed if {
	account := input.cluster.subject.serviceAccount
	sprintf("%s/%s", [account.namespace, account.name]) in input.parameters.serviceAccounts
}
