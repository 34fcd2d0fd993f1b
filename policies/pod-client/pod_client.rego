# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# METADATA
# title: Client certificates for Pods
# description: >-
#   Allows a Pod, or a requester that can act on its behalf, to request a client certificate
#   for names and addresses of the Pod, or with the username of its ServiceAccount.
#   A server that uses the common name as the username, such as the Kubernetes API server,
#   authenticates the holder as that ServiceAccount. Delegation therefore includes every
#   ServiceAccount of the Pods in the namespace.
#   Parameters: maxExpirationSeconds, the longest lifetime that a request can have;
#   allowShortNames, true to allow names of the form <service>.<namespace>.
# scope: package
# schemas:
#   - input: schema.input
package countersign.pod_client

import rego.v2

import data.countersign.lib.delegation
import data.countersign.lib.key
import data.countersign.lib.names
import data.countersign.lib.organization
import data.countersign.lib.request
import data.countersign.lib.subject

# METADATA
# title: Requirement 1, the subject controls the private key
# description: >-
#   The signature of the PKCS#10 request proves that its creator has the private key. The
#   rule checks that the requester is the subject, and that no other requester used the key.
subject_controls_key if {
	subject.requester_speaks_for_pod
	key.is_first_shown
}

# METADATA
# title: Requirement 2, the subject is authorized to act in the requested context
subject_is_authorized if {
	subject.pod_is_alive
	names_are_owned
	organization.is_absent
	request.other_attributes_are_absent
	usages_are_allowed
	request.lifetime_is_allowed
}

# METADATA
# title: The username of the Pod's ServiceAccount
username := sprintf("system:serviceaccount:%s:%s", [input.cluster.subject.pod.namespace, input.cluster.subject.pod.serviceAccountName])

names_are_owned if {
	common_name_is_owned
	is_named
	names.are_owned
	count(input.pkcs10.uris) == 0
	count(input.pkcs10.emailAddresses) == 0
}

# names.are_owned checks the names that the common name repeats.
common_name_is_owned if input.pkcs10.subject.commonName == ""

common_name_is_owned if request.common_name_is_among_names

common_name_is_owned if input.pkcs10.subject.commonName == username

is_named if has_alternative_name

is_named if count(input.pkcs10.subject.commonName) > 0

has_alternative_name if count(input.pkcs10.dnsNames) + count(input.pkcs10.ipAddresses) > 0

allowed_usages := {"digital signature", "key encipherment", "client auth"}

# A client proves possession of the key with a signature (RFC 8446, section 4.4.2.3; RFC 5246,
# section 7.4.8). It cannot use a key with the usage "key encipherment" only, regardless of its type.
required_usages := {"digital signature", "client auth"}

usages_are_allowed if {
	request.usages_are_within(allowed_usages)
	every usage in required_usages {
		usage in input.request.usages
	}
}

# Violations of the library: the requester, the Pod, the key, the names and the subject attributes.
violations contains v if some v in subject.violations

violations contains v if some v in delegation.violations

violations contains v if some v in key.violations

violations contains v if some v in names.violations

violations contains v if some v in organization.violations

violations contains v if some v in request.violations

# METADATA
# title: subject-not-named
# description: The request has no DNS name or address to identify the Pod of the delegate.
violations contains {"requirement": 2, "id": "subject-not-named", "message": msg, "value": input.requester.username, "retryable": false} if {
	is_null(input.requester.pod)
	is_named
	not has_alternative_name
	msg := sprintf("requester %s is not bound to a Pod, and no DNS name or address says which Pod it asks for: add one of the Pod", [input.requester.username])
}

# METADATA
# title: names-missing
# description: The request has no common name, no DNS name and no address.
violations contains {"requirement": 2, "id": "names-missing", "message": msg, "value": "", "retryable": false} if {
	not is_named
	msg := "the request names no one: add the username of the ServiceAccount as common name, or DNS names or addresses of the Pod"
}

# METADATA
# title: common-name-not-owned
# description: The common name is neither a requested name nor the username of the Pod's ServiceAccount.
violations contains {"requirement": 2, "id": "common-name-not-owned", "message": msg, "value": input.pkcs10.subject.commonName, "retryable": delegation.pod_may_change} if {
	subject.requester_speaks_for_pod
	not common_name_is_owned
	msg := sprintf("common name %q does not belong to Pod %s: make it %s or one of the subject alternative names, or leave it empty", [input.pkcs10.subject.commonName, subject.name, username])
}

# METADATA
# title: uri-not-allowed
# description: The cluster has no owner for a URI.
violations contains {"requirement": 2, "id": "uri-not-allowed", "message": msg, "value": uri, "retryable": false} if {
	some uri in input.pkcs10.uris
	msg := sprintf("URI %q is not allowed in a client certificate: remove it", [uri])
}

# METADATA
# title: email-not-allowed
# description: A Pod has no e-mail address.
violations contains {"requirement": 2, "id": "email-not-allowed", "message": msg, "value": address, "retryable": false} if {
	some address in input.pkcs10.emailAddresses
	msg := sprintf("e-mail address %q is not allowed in a client certificate: remove it", [address])
}

# METADATA
# title: usage-not-allowed
# description: The usage is not allowed for client certificates.
violations contains {"requirement": 2, "id": "usage-not-allowed", "message": msg, "value": usage, "retryable": false} if {
	some usage in request.usages
	not usage in allowed_usages
	msg := sprintf("usage %q is not allowed: ask only for %s", [usage, concat(", ", sort(allowed_usages))])
}

# METADATA
# title: usage-missing
# description: A client cannot use a certificate without the usage.
violations contains {"requirement": 2, "id": "usage-missing", "message": msg, "value": usage, "retryable": false} if {
	some usage in required_usages
	not usage in input.request.usages
	msg := sprintf("usage %q is missing, without which the certificate is of no use to a client: add it to spec.usages", [usage])
}
