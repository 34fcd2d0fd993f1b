# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# METADATA
# title: Lifetime, usages and subject attributes of a request
# description: >-
#   Parameters: maxExpirationSeconds, the longest lifetime that a request can have; without it
#   only the limit of the signer applies. defaultExpirationSeconds, the lifetime that the signer
#   gives to requests without spec.expirationSeconds; without it, such requests are not allowed
#   if maxExpirationSeconds is set.
# scope: package
# schemas:
#   - input: schema.input
package countersign.lib.request

import rego.v2

import data.countersign.lib.names

# METADATA
# title: The requested lifetime, or the default of the signer, is within the parameter maxExpirationSeconds
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

# object.get is required: the schema of the parameters of a policy can omit these parameters.
max_expiration_seconds := object.get(input.parameters, "maxExpirationSeconds", null)

default_expiration_seconds := object.get(input.parameters, "defaultExpirationSeconds", null)

# METADATA
# title: The subject has no attributes except a common name and organizations
other_attributes_are_absent if {
	input.pkcs10.subject.organizationalUnits == []
	input.pkcs10.subject.other == []
}

# METADATA
# title: The common name is one of the requested DNS names or addresses
common_name_is_among_names if {
	some name in array.concat(input.pkcs10.dnsNames, input.pkcs10.ipAddresses)
	names.fold(name) == names.fold(input.pkcs10.subject.commonName)
}

# METADATA
# title: Every requested usage is in a set
usages_are_within(allowed) if {
	# Evaluated outside of the comprehension: there, a missing field would give the empty set, which is allowed.
	asked := array.concat(input.request.usages, input.pkcs10.usages)
	{usage | some usage in asked} - allowed == set()
}

# METADATA
# title: The usages in spec.usages and in the PKCS#10 request
usages contains usage if some usage in input.request.usages

usages contains usage if some usage in input.pkcs10.usages

# METADATA
# title: subject-attribute-not-allowed
# description: The subject has an attribute that is neither a common name nor an organization.
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
# description: The requested lifetime is longer than the parameter maxExpirationSeconds of the policy.
violations contains {"requirement": 2, "id": "expiration-too-long", "message": msg, "value": sprintf("%d", [input.request.expirationSeconds]), "retryable": false} if {
	not lifetime_is_allowed
	is_number(input.request.expirationSeconds)
	msg := sprintf("a lifetime of %d seconds is not allowed: set spec.expirationSeconds to at most %v", [input.request.expirationSeconds, max_expiration_seconds])
}

# METADATA
# title: expiration-missing
# description: The request has no lifetime, and the default of the signer can be longer than the policy allows.
violations contains {"requirement": 2, "id": "expiration-missing", "message": msg, "value": "", "retryable": false} if {
	not lifetime_is_allowed
	not is_number(input.request.expirationSeconds)
	msg := sprintf("no lifetime is asked for, and the signer's own may be longer than the policy allows: set spec.expirationSeconds to at most %v", [max_expiration_seconds])
}
