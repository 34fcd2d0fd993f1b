# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

package countersign.service_accounts_test

import rego.v2

import data.countersign.lib.example
import data.countersign.service_accounts as policy

listing(accounts) := object.union(example.pod_request, {"parameters": {"serviceAccounts": accounts}})

test_listed_account_is_allowed if {
	policy.subject_controls_key with input as listing(["my-namespace/my-sa"])
	policy.subject_is_authorized with input as listing(["my-namespace/my-sa"])
	count(policy.violations) == 0 with input as listing(["my-namespace/my-sa"])
}

test_account_of_another_namespace_is_denied if {
	not policy.subject_is_authorized with input as listing(["other/my-sa"])
	{v.id | some v in policy.violations} == {"service-account-not-listed"} with input as listing(["other/my-sa"])
}

test_deleted_pod_is_denied if {
	gone := json.patch(listing(["my-namespace/my-sa"]), example.set_to("/cluster/subject/pod", null))
	not policy.subject_controls_key with input as gone
	"pod-gone" in {v.id | some v in policy.violations} with input as gone
}
