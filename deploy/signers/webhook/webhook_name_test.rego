# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

package countersign.webhook_name_test

import rego.v2

import data.countersign.lib.example
import data.countersign.webhook_name as policy

# requesting is a request with one field of pkcs10 replaced.
requesting(field, value) := object.union(example.pod_request, {
	"parameters": {"namespace": "my-namespace"},
	"pkcs10": object.union(
		{"dnsNames": ["countersign-webhook.my-namespace.svc"], "ipAddresses": []},
		{field: value},
	),
})

test_name_of_the_webhook_is_allowed if {
	request := requesting("ipAddresses", [])
	policy.subject_controls_key with input as request
	policy.subject_is_authorized with input as request
	count(policy.violations) == 0 with input as request
}

test_refused[note] if {
	some note, request in {
		"another namespace": requesting("dnsNames", ["countersign-webhook.other.svc"]),
		"another service": requesting("dnsNames", ["kubernetes.my-namespace.svc"]),
		"a further name": requesting("dnsNames", ["countersign-webhook.my-namespace.svc", "my-svc.my-namespace.svc"]),
		"no name": requesting("dnsNames", []),
		"an address": requesting("ipAddresses", ["10.0.34.2"]),
	}
	not policy.subject_is_authorized with input as request
	{v.id | some v in policy.violations} == {"not-the-webhook"} with input as request
}
