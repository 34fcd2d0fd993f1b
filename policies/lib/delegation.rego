# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# METADATA
# title: Requesters that act on behalf of a Pod
# description: >-
#   A requester without a Pod can request a certificate for a Pod. It requires the verb
#   `create` on certificatesigningrequests/delegated (API group certificates.k8s.io) in the
#   namespace of the Pod. The requested names resolve to the Pod.
# scope: package
# schemas:
#   - input: schema.input
package countersign.lib.delegation

import rego.v2

# METADATA
# title: The requester has no Pod, and can act on behalf of the Pod to which the names resolve
is_granted if {
	is_null(input.requester.pod)
	is_object(input.cluster.subject.pod)
	input.cluster.delegation.allowed == true
}

# METADATA
# title: The request can be for another Pod later
# description: >-
#   The request of a delegate does not contain the name of the Pod, only its address or hostname.
#   Another Pod can have had it, such as one that is being deleted. Violations of such a Pod are
#   retryable.
pod_may_change if not pod_is_fixed

pod_may_change := false if pod_is_fixed

pod_is_fixed if is_object(input.requester.pod)

pod_is_fixed if {
	pod := input.cluster.subject.pod
	some name in input.pkcs10.dnsNames
	lower(name) == sprintf("%s.%s.pod.%s", [pod.name, pod.namespace, input.cluster.domain])
}

# METADATA
# title: not-delegated
# description: >-
#   The requester is not the Pod and is not allowed to act on its behalf. The message does not
#   name the namespace of the Pod, because the requester can be unable to read it.
violations contains {"requirement": 1, "id": "not-delegated", "message": msg, "value": input.requester.username, "retryable": pod_may_change} if {
	is_null(input.requester.pod)
	is_object(input.cluster.subject.pod)
	not is_granted
	msg := sprintf("requester %s is not bound to a Pod: use a token that is, or grant it the verb create on certificatesigningrequests/delegated (API group certificates.k8s.io) in the namespace of the Pod", [input.requester.username])
}

# METADATA
# title: subject-not-found
# description: No Pod has the names that the delegate requests.
violations contains {"requirement": 2, "id": "subject-not-found", "message": msg, "value": "", "retryable": true} if {
	is_null(input.requester.pod)
	pod_is_sought
	input.cluster.subject.candidates < 2
	msg := sprintf("no Pod has any of the names asked for, and requester %s is not bound to one: ask for the address of the Pod or for <pod>.<namespace>.pod.%s", [input.requester.username, input.cluster.domain])
}

# METADATA
# title: subject-ambiguous
# description: >-
#   Several Pods have the names that the delegate requests. One of them can be about to lose its
#   address, or to be deleted.
violations contains {"requirement": 2, "id": "subject-ambiguous", "message": msg, "value": "", "retryable": true} if {
	is_null(input.requester.pod)
	pod_is_sought
	input.cluster.subject.candidates >= 2
	msg := sprintf("the names asked for belong to several Pods, and requester %s is not bound to one: make a request for each Pod", [input.requester.username])
}

# The requested names identify the Pod of a delegate. The policy refuses a request without names.
pod_is_sought if {
	is_null(input.cluster.subject.pod)
	count(input.pkcs10.dnsNames) + count(input.pkcs10.ipAddresses) > 0
}
