# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# METADATA
# title: Requesters that act for a Pod
# description: >-
#   A requester that is no Pod may ask for one if it may `create`
#   certificatesigningrequests/delegated (API group certificates.k8s.io) in the Pod's
#   namespace. The Pod is the one that the names asked for resolve to.
# scope: package
# schemas:
#   - input: schema.input
package countersign.lib.delegation

import rego.v2

# METADATA
# title: The requester is no Pod, and may act for the one that the names resolve to
is_granted if {
	is_null(input.requester.pod)
	is_object(input.cluster.subject.pod)
	input.cluster.delegation.allowed == true
}

# METADATA
# title: not-delegated
# description: The requester is not the Pod and may not act for it.
violations contains {"requirement": 1, "id": "not-delegated", "message": msg, "value": input.requester.username, "retryable": false} if {
	is_null(input.requester.pod)
	is_object(input.cluster.subject.pod)
	not is_granted
	msg := sprintf("requester %s is not bound to a Pod: use a token that is, or grant it the verb create on certificatesigningrequests/delegated (API group certificates.k8s.io) in namespace %s", [input.requester.username, input.cluster.subject.pod.namespace])
}

# METADATA
# title: subject-not-found
# description: The names of a delegate's request resolve to no Pod.
violations contains {"requirement": 2, "id": "subject-not-found", "message": msg, "value": "", "retryable": true} if {
	is_null(input.requester.pod)
	pod_is_sought
	input.cluster.subject.candidates < 2
	msg := sprintf("no Pod has any of the names asked for, and requester %s is not bound to one: ask for the address of the Pod or for <pod>.<namespace>.pod.%s", [input.requester.username, input.cluster.domain])
}

# METADATA
# title: subject-ambiguous
# description: The names of a delegate's request resolve to several Pods.
violations contains {"requirement": 2, "id": "subject-ambiguous", "message": msg, "value": "", "retryable": false} if {
	is_null(input.requester.pod)
	pod_is_sought
	input.cluster.subject.candidates >= 2
	msg := sprintf("the names asked for belong to %d Pods, and requester %s is not bound to one: make a request for each Pod", [input.cluster.subject.candidates, input.requester.username])
}

# A delegate names its Pod by the names asked for. A request without any is for the policy to refuse.
pod_is_sought if {
	is_null(input.cluster.subject.pod)
	count(input.pkcs10.dnsNames) + count(input.pkcs10.ipAddresses) > 0
}
