# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# METADATA
# title: The subject Pod of a request
# description: >-
#   Checks that the requester is the Pod or can act on its behalf, and that the Pod is alive.
#   The approver reads the Pod from the API server when it evaluates the request. The claims of
#   a token were valid only when the request was created.
# scope: package
# schemas:
#   - input: schema.input
package countersign.lib.subject

import rego.v2

import data.countersign.lib.delegation

# METADATA
# title: The requester is the Pod, with the same UID and the same ServiceAccount
requester_is_pod if {
	input.cluster.subject.pod.uid == input.requester.pod.uid
	input.cluster.subject.pod.serviceAccountName == input.requester.serviceAccount.name
	input.cluster.subject.pod.namespace == input.requester.serviceAccount.namespace
}

# METADATA
# title: The requester is the Pod, or can act on its behalf
requester_speaks_for_pod if requester_is_pod

requester_speaks_for_pod if delegation.is_granted

# METADATA
# title: The Pod is not finished, and neither it nor its namespace is being deleted
pod_is_alive if {
	input.cluster.subject.pod.phase in {"Pending", "Running", "Unknown"}
	input.cluster.subject.pod.deleting == false
	input.cluster.subject.namespace.deleting == false
}

# METADATA
# title: The Pod in messages, <namespace>/<name>
name := sprintf("%s/%s", [input.cluster.subject.pod.namespace, input.cluster.subject.pod.name])

# METADATA
# title: pod-gone
# description: The Pod to which the requester's token is bound no longer exists.
violations contains {"requirement": 1, "id": "pod-gone", "message": msg, "value": input.requester.pod.name, "retryable": false} if {
	is_null(input.cluster.subject.pod)
	msg := sprintf("Pod %s, which made the request, does not exist any more: make a new request from the Pod that runs now", [input.requester.pod.name])
}

# METADATA
# title: pod-replaced
# description: A Pod with that name exists, but the token is bound to another UID.
violations contains {"requirement": 1, "id": "pod-replaced", "message": msg, "value": input.requester.pod.name, "retryable": false} if {
	not input.cluster.subject.pod.uid == input.requester.pod.uid
	msg := sprintf("Pod %s was replaced since it made the request (its UID was %s and is %s now): make a new request from the Pod that runs now", [name, input.requester.pod.uid, input.cluster.subject.pod.uid])
}

# METADATA
# title: service-account-mismatch
# description: The Pod does not run as the ServiceAccount of the requester.
violations contains {"requirement": 1, "id": "service-account-mismatch", "message": msg, "value": input.requester.username, "retryable": false} if {
	input.cluster.subject.pod.uid == input.requester.pod.uid
	not input.requester.serviceAccount == {"namespace": input.cluster.subject.pod.namespace, "name": input.cluster.subject.pod.serviceAccountName}
	msg := sprintf("Pod %s runs as ServiceAccount %s, but the requester is %s: use the token of the Pod's own ServiceAccount", [name, input.cluster.subject.pod.serviceAccountName, input.requester.username])
}

# METADATA
# title: pod-finished
# description: The Pod is finished, and other Pods can have its addresses.
violations contains {"requirement": 2, "id": "pod-finished", "message": msg, "value": name, "retryable": delegation.pod_may_change} if {
	not input.cluster.subject.pod.phase in {"Pending", "Running", "Unknown"}
	requester_speaks_for_pod
	msg := sprintf("Pod %s is finished (phase %s): make the request from a running Pod", [name, input.cluster.subject.pod.phase])
}

# METADATA
# title: pod-deleting
# description: The Pod is being deleted.
violations contains {"requirement": 2, "id": "pod-deleting", "message": msg, "value": name, "retryable": delegation.pod_may_change} if {
	input.cluster.subject.pod.deleting == true
	requester_speaks_for_pod
	msg := sprintf("Pod %s is being deleted: make the request from the Pod that takes its place", [name])
}

# METADATA
# title: namespace-deleting
# description: The namespace of the Pod is being deleted, or does not exist.
violations contains {"requirement": 2, "id": "namespace-deleting", "message": msg, "value": input.cluster.subject.pod.namespace, "retryable": delegation.pod_may_change} if {
	not input.cluster.subject.namespace.deleting == false
	requester_speaks_for_pod
	msg := sprintf("namespace %s is being deleted: make the request from another one", [input.cluster.subject.pod.namespace])
}
