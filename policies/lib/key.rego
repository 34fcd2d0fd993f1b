# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# METADATA
# title: First use of a public key
# description: >-
#   The signature of the PKCS#10 request proves that its creator has the private key. Other
#   users can read the request and present it as their own. Only the requester that first used
#   a public key is accepted.
# scope: package
# schemas:
#   - input: schema.input
package countersign.lib.key

import rego.v2

# METADATA
# title: No other requester used the public key before, or in the same second
is_first_shown if input.cluster.sameKey == []

is_first_shown if {
	every other in input.cluster.sameKey {
		is_later(other.createdAt)
	}
}

# METADATA
# title: key-used-by-another
# description: Another requester used the public key before, or in the same second. Later copies are ignored.
violations contains {"requirement": 1, "id": "key-used-by-another", "message": msg, "value": other.name, "retryable": false} if {
	some other in input.cluster.sameKey
	not is_later(other.createdAt)
	msg := sprintf("request %s of %s has the same public key and is not younger: make a new key", [other.name, other.username])
}

is_later(created) if time.parse_rfc3339_ns(created) > time.parse_rfc3339_ns(input.request.createdAt)
