# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# METADATA
# title: Serving certificates for the Countersign webhook only
# description: >-
#   Allows only the DNS name of the Service countersign-webhook in the namespace of Countersign. The
#   policy webhook checks that the requester controls the key and owns the name, and everything else.
# scope: package
# schemas:
#   - input: schema.input
package countersign.webhook_name

import rego.v2

# The policy webhook checks the key.
subject_controls_key := true

subject_is_authorized if {
	input.pkcs10.dnsNames == [webhook]
	input.pkcs10.ipAddresses == []
}

violations contains {
	"requirement": 2,
	"id": "not-the-webhook",
	"message": sprintf("this signer issues for DNS name %q only: request the certificate from another signer", [webhook]),
	"value": "",
	"retryable": false,
} if {
	not subject_is_authorized
}

webhook := sprintf("countersign-webhook.%s.svc", [input.parameters.namespace])
