# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# METADATA
# title: Who showed the key first
# description: >-
#   The PKCS#10 request is signed with the key, so whoever made it has the key. Requests are
#   readable by others, who could present the same one as their own: the first to show a key
#   has it.
# scope: package
# schemas:
#   - input: schema.input
package countersign.lib.key

import rego.v2

# METADATA
# title: No other requester showed this key before, or in the same second
is_first_shown if input.cluster.sameKey == []

is_first_shown if {
	every other in input.cluster.sameKey {
		is_later(other.createdAt)
	}
}

# METADATA
# title: key-used-by-another
# description: Another requester has shown this public key before, or in the same second. Who copies it later does not count.
violations contains {"requirement": 1, "id": "key-used-by-another", "message": msg, "value": other.name, "retryable": false} if {
	some other in input.cluster.sameKey
	not is_later(other.createdAt)
	msg := sprintf("request %s of %s has the same public key and is not younger: make a new key", [other.name, other.username])
}

is_later(created) if time.parse_rfc3339_ns(created) > time.parse_rfc3339_ns(input.request.createdAt)
