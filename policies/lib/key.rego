# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# METADATA
# title: First use of a public key
# description: >-
#   The signature of the PKCS#10 request proves that its creator has the private key. Other
#   users can read the request and present it as their own. Only the requester that first used
#   a public key is accepted. Later copies are not in input.cluster.sameKey.
# scope: package
# schemas:
#   - input: schema.input
package countersign.lib.key

import rego.v2

# METADATA
# title: No other requester used the public key before
is_first_shown if input.cluster.sameKey == []

# METADATA
# title: key-used-by-another
# description: >-
#   Another requester used the public key before. The message does not name that requester, because
#   this one can be unable to read its request. The record of the decision does.
violations contains {"requirement": 1, "id": "key-used-by-another", "message": msg, "value": input.pkcs10.key.sha256, "retryable": false} if {
	some other in input.cluster.sameKey
	not other.earlier == false
	msg := "another requester used this public key before: make a new key"
}

# METADATA
# title: key-order-unknown
# description: >-
#   Another requester used the public key in the same second, and the API server no longer has the
#   order of the two requests.
violations contains {"requirement": 1, "id": "key-order-unknown", "message": msg, "value": input.pkcs10.key.sha256, "retryable": true} if {
	some other in input.cluster.sameKey
	other.earlier == false
	msg := "another requester used this public key in the same second, perhaps before: make a new key and a new request"
}
