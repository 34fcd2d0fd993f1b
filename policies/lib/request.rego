# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# METADATA
# title: What a request asks for beside names
# description: >-
#   Parameters: maxExpirationSeconds, the longest lifetime that may be asked for; without it
#   every lifetime may be, and the signer's own limit holds. defaultExpirationSeconds, what the
#   signer gives to who asks for no lifetime: without it, such a request is not allowed where
#   there is a longest.
# scope: package
# schemas:
#   - input: schema.input
package countersign.lib.request

import rego.v2

import data.countersign.lib.names

# METADATA
# title: The lifetime asked for, or given without asking, is within the parameter maxExpirationSeconds
lifetime_is_allowed if {
	is_number(input.request.expirationSeconds)
	is_number(max_expiration_seconds)
	input.request.expirationSeconds <= max_expiration_seconds
}

lifetime_is_allowed if {
	is_null(input.request.expirationSeconds)
	is_number(default_expiration_seconds)
	is_number(max_expiration_seconds)
	default_expiration_seconds <= max_expiration_seconds
}

lifetime_is_allowed if is_null(max_expiration_seconds)

# By object.get, since a policy whose parameters have a schema need not have these.
max_expiration_seconds := object.get(input.parameters, "maxExpirationSeconds", null)

default_expiration_seconds := object.get(input.parameters, "defaultExpirationSeconds", null)

# METADATA
# title: The subject has no attribute but a common name and organizations
other_attributes_are_absent if {
	input.pkcs10.subject.organizationalUnits == []
	input.pkcs10.subject.other == []
}

# METADATA
# title: The common name is one of the DNS names or addresses asked for
common_name_is_among_names if {
	some name in array.concat(input.pkcs10.dnsNames, input.pkcs10.ipAddresses)
	names.fold(name) == names.fold(input.pkcs10.subject.commonName)
}

# METADATA
# title: Every usage asked for is one of a set
usages_are_within(allowed) if {
	# Made outside of the set, which would be empty, and so within any, if one of them were missing.
	asked := array.concat(input.request.usages, input.pkcs10.usages)
	{usage | some usage in asked} - allowed == set()
}

# METADATA
# title: Usages asked for, by spec.usages or by the PKCS#10 request itself
usages contains usage if some usage in input.request.usages

usages contains usage if some usage in input.pkcs10.usages

# METADATA
# title: subject-attribute-not-allowed
# description: The attribute is neither a common name nor an organization.
violations contains {"requirement": 2, "id": "subject-attribute-not-allowed", "message": msg, "value": unit, "retryable": false} if {
	some unit in input.pkcs10.subject.organizationalUnits
	msg := sprintf("organizational unit %q is not allowed: remove it from the subject", [unit])
}

violations contains {"requirement": 2, "id": "subject-attribute-not-allowed", "message": msg, "value": attribute.oid, "retryable": false} if {
	some attribute in input.pkcs10.subject.other
	msg := sprintf("subject attribute %s (%q) is not allowed: remove it from the subject", [attribute.oid, attribute.value])
}

# METADATA
# title: expiration-too-long
# description: The lifetime asked for is longer than the policy's parameter maxExpirationSeconds.
violations contains {"requirement": 2, "id": "expiration-too-long", "message": msg, "value": sprintf("%d", [input.request.expirationSeconds]), "retryable": false} if {
	not lifetime_is_allowed
	is_number(input.request.expirationSeconds)
	msg := sprintf("a lifetime of %d seconds is not allowed: set spec.expirationSeconds to at most %v", [input.request.expirationSeconds, max_expiration_seconds])
}

# METADATA
# title: expiration-missing
# description: No lifetime is asked for, and what the signer gives may be longer than the policy allows.
violations contains {"requirement": 2, "id": "expiration-missing", "message": msg, "value": "", "retryable": false} if {
	not lifetime_is_allowed
	not is_number(input.request.expirationSeconds)
	msg := sprintf("no lifetime is asked for, and the signer's own may be longer than the policy allows: set spec.expirationSeconds to at most %v", [max_expiration_seconds])
}
