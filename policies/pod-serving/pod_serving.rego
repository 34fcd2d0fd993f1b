# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# METADATA
# title: Serving certificates for Pods
# description: >-
#   Allows a certificate for names and addresses that belong to one Pod, to that Pod itself
#   or to someone who may act for it.
#   Parameters: maxExpirationSeconds, the longest lifetime that may be asked for;
#   allowClientAuth, true to allow the usage "client auth"; allowShortNames, true to allow
#   names of the form <service>.<namespace>.
# scope: package
# schemas:
#   - input: schema.input
package countersign.pod_serving

import rego.v2

import data.countersign.lib.names

# METADATA
# title: Requirement 1, the subject controls the private key
# description: >-
#   The PKCS#10 request is signed with the key, so whoever made it has the key: it
#   remains to show that this is the subject, and that no one showed the key before.
subject_controls_key if {
	requester_speaks_for_subject
	every other in input.cluster.sameKey {
		is_later(other)
	}
}

# METADATA
# title: Requirement 2, the subject is authorized to act in the requested context
subject_is_authorized if {
	subject_is_alive
	names_are_owned
	subject_attributes_are_allowed
	usages_are_allowed
	lifetime_is_allowed
}

# METADATA
# title: The requester is the Pod, in the same life and with the same ServiceAccount
requester_speaks_for_subject if {
	subject_is_requester
	service_account_is_subjects
}

# METADATA
# title: The requester is no Pod, and may act for those of the namespace
requester_speaks_for_subject if {
	is_null(input.requester.pod)
	is_object(input.cluster.subject.pod)
	input.cluster.delegation.allowed == true
}

subject_is_requester if input.cluster.subject.pod.uid == input.requester.pod.uid

service_account_is_subjects if {
	input.cluster.subject.pod.serviceAccountName == input.requester.serviceAccount.name
	input.cluster.subject.pod.namespace == input.requester.serviceAccount.namespace
}

is_later(other) if time.parse_rfc3339_ns(other.createdAt) > time.parse_rfc3339_ns(input.request.createdAt)

live_phases := {"Pending", "Running", "Unknown"}

subject_is_alive if {
	input.cluster.subject.pod.phase in live_phases
	input.cluster.subject.pod.deleting == false
	input.cluster.subject.namespace.deleting == false
}

names_are_owned if {
	count(input.pkcs10.dnsNames) + count(input.pkcs10.ipAddresses) > 0
	every name in input.pkcs10.dnsNames {
		dns_name_is_owned(name)
	}
	every ip in input.pkcs10.ipAddresses {
		ip in names.ip_addresses
	}
	count(input.pkcs10.uris) == 0
	count(input.pkcs10.emailAddresses) == 0
}

dns_name_is_owned(name) if names.fold(name) in names.dns_names

dns_name_is_owned(name) if {
	input.parameters.allowShortNames == true
	names.fold(name) in names.short_dns_names
}

subject_attributes_are_allowed if {
	common_name_is_requested
	count(input.pkcs10.subject.organizations) == 0
	count(input.pkcs10.subject.organizationalUnits) == 0
	count(input.pkcs10.subject.other) == 0
}

common_name_is_requested if input.pkcs10.subject.commonName == ""

common_name_is_requested if {
	some name in array.concat(input.pkcs10.dnsNames, input.pkcs10.ipAddresses)
	names.fold(name) == names.fold(input.pkcs10.subject.commonName)
}

allowed_usages contains usage if some usage in ["digital signature", "key encipherment", "server auth"]

allowed_usages contains "client auth" if input.parameters.allowClientAuth == true

usages_are_allowed if {
	every usage in input.request.usages {
		usage in allowed_usages
	}
	every usage in input.pkcs10.usages {
		usage in allowed_usages
	}
	"server auth" in input.request.usages
	has_key_usage
}

# A certificate without a key usage would be good for every one, so the signer issues none.
has_key_usage if "digital signature" in input.request.usages

has_key_usage if {
	"key encipherment" in input.request.usages
	input.pkcs10.key.algorithm == "RSA"
}

lifetime_is_allowed if is_null(input.request.expirationSeconds)

lifetime_is_allowed if object.get(input.parameters, "maxExpirationSeconds", null) == null

lifetime_is_allowed if {
	is_number(input.parameters.maxExpirationSeconds)
	input.request.expirationSeconds <= input.parameters.maxExpirationSeconds
}

# METADATA
# title: pod-gone
# description: The Pod that the requester's token is bound to does not exist any more.
violations contains {"requirement": 1, "id": "pod-gone", "message": msg, "value": input.requester.pod.name, "retryable": false} if {
	is_object(input.requester.pod)
	is_null(input.cluster.subject.pod)
	msg := sprintf("Pod %s, which made the request, does not exist any more: make a new request from the Pod that runs now", [input.requester.pod.name])
}

# METADATA
# title: pod-replaced
# description: A Pod of that name exists, but it is not the one that the token is bound to.
violations contains {"requirement": 1, "id": "pod-replaced", "message": msg, "value": input.requester.pod.name, "retryable": false} if {
	is_object(input.requester.pod)
	is_object(input.cluster.subject.pod)
	not subject_is_requester
	msg := sprintf("Pod %s was replaced since it made the request (its UID was %s and is %s now): make a new request from the Pod that runs now", [subject, input.requester.pod.uid, input.cluster.subject.pod.uid])
}

# METADATA
# title: service-account-mismatch
# description: The Pod does not run as the ServiceAccount that the requester has.
violations contains {"requirement": 1, "id": "service-account-mismatch", "message": msg, "value": input.requester.username, "retryable": false} if {
	subject_is_requester
	not service_account_is_subjects
	msg := sprintf("Pod %s runs as ServiceAccount %s, but the requester is %s: use the token of the Pod's own ServiceAccount", [subject, input.cluster.subject.pod.serviceAccountName, input.requester.username])
}

# METADATA
# title: not-delegated
# description: The requester is not the Pod and may not act for it.
violations contains {"requirement": 1, "id": "not-delegated", "message": msg, "value": input.requester.username, "retryable": false} if {
	is_null(input.requester.pod)
	is_object(input.cluster.subject.pod)
	not requester_speaks_for_subject
	msg := sprintf("requester %s is not bound to a Pod: use a token that is, or grant it the verb create on certificatesigningrequests/delegated (API group certificates.k8s.io) in namespace %s", [input.requester.username, input.cluster.subject.pod.namespace])
}

# METADATA
# title: key-used-by-another
# description: Another requester has shown this public key before, or in the same second. Who copies it later does not count.
violations contains {"requirement": 1, "id": "key-used-by-another", "message": msg, "value": other.name, "retryable": false} if {
	some other in input.cluster.sameKey
	not is_later(other)
	msg := sprintf("request %s of %s has the same public key and is not younger: make a new key", [other.name, other.username])
}

# METADATA
# title: subject-not-found
# description: The names of a delegate's request resolve to no Pod.
violations contains {"requirement": 2, "id": "subject-not-found", "message": msg, "value": "", "retryable": true} if {
	subject_is_sought
	input.cluster.subject.candidates < 2
	msg := sprintf("no Pod has any of the names asked for, and requester %s is not bound to one: ask for the address of the Pod or for <pod>.<namespace>.pod.%s", [input.requester.username, input.cluster.domain])
}

# METADATA
# title: subject-ambiguous
# description: The names of a delegate's request resolve to several Pods.
violations contains {"requirement": 2, "id": "subject-ambiguous", "message": msg, "value": "", "retryable": false} if {
	subject_is_sought
	input.cluster.subject.candidates >= 2
	msg := sprintf("the names asked for belong to %d Pods, and requester %s is not bound to one: make a request for each Pod", [input.cluster.subject.candidates, input.requester.username])
}

# METADATA
# title: pod-finished
# description: The Pod has run to its end, and its addresses may be those of others.
violations contains {"requirement": 2, "id": "pod-finished", "message": msg, "value": subject, "retryable": false} if {
	requester_speaks_for_subject
	not input.cluster.subject.pod.phase in live_phases
	msg := sprintf("Pod %s is finished (phase %s): make the request from a running Pod", [subject, input.cluster.subject.pod.phase])
}

# METADATA
# title: pod-deleting
# description: The Pod is being deleted.
violations contains {"requirement": 2, "id": "pod-deleting", "message": msg, "value": subject, "retryable": false} if {
	requester_speaks_for_subject
	not input.cluster.subject.pod.deleting == false
	msg := sprintf("Pod %s is being deleted: make the request from the Pod that takes its place", [subject])
}

# METADATA
# title: namespace-deleting
# description: The namespace of the Pod is being deleted, or is gone.
violations contains {"requirement": 2, "id": "namespace-deleting", "message": msg, "value": input.cluster.subject.pod.namespace, "retryable": false} if {
	requester_speaks_for_subject
	not input.cluster.subject.namespace.deleting == false
	msg := sprintf("namespace %s is being deleted: make the request from another one", [input.cluster.subject.pod.namespace])
}

# METADATA
# title: wildcard-not-allowed
# description: A wildcard stands for names of others.
violations contains {"requirement": 2, "id": "wildcard-not-allowed", "message": msg, "value": name, "retryable": false} if {
	some name in foreign_dns_names
	contains(name, "*")
	msg := sprintf("DNS name %q is a wildcard: ask for each name", [name])
}

# METADATA
# title: dns-name-not-owned
# description: The name belongs to something else, or can never belong to the Pod.
violations contains {"requirement": 2, "id": "dns-name-not-owned", "message": msg, "value": name, "retryable": false} if {
	some name in foreign_dns_names
	not contains(name, "*")
	not dns_name_may_come(name)
	msg := sprintf("DNS name %q does not belong to Pod %s%s: ask for names of the Pod, or of Services that select it", [name, subject, owners(name)])
}

# METADATA
# title: dns-name-unknown
# description: Nothing has the name yet, and it may become the Pod's.
violations contains {"requirement": 2, "id": "dns-name-unknown", "message": msg, "value": name, "retryable": true} if {
	some name in foreign_dns_names
	dns_name_may_come(name)
	msg := sprintf("nothing has DNS name %q yet: it belongs to Pod %s once %s", [name, subject, awaited(name)])
}

# METADATA
# title: host-network-address
# description: A Pod in the host network has no address of its own.
violations contains {"requirement": 2, "id": "host-network-address", "message": msg, "value": ip, "retryable": false} if {
	some ip in foreign_addresses
	not input.cluster.subject.pod.hostNetwork == false
	msg := sprintf("address %s does not belong to Pod %s, which is in the host network and has the addresses of its Node: ask for DNS names, or for cluster IPs of Services that select it", [ip, subject])
}

# METADATA
# title: ip-address-not-owned
# description: The address belongs to something else, or can never belong to the Pod.
violations contains {"requirement": 2, "id": "ip-address-not-owned", "message": msg, "value": ip, "retryable": false} if {
	some ip in foreign_addresses
	input.cluster.subject.pod.hostNetwork == false
	not address_may_come(ip)
	msg := sprintf("address %s does not belong to Pod %s%s: ask for addresses of the Pod, or for cluster IPs of Services that select it", [ip, subject, owners(ip)])
}

# METADATA
# title: ip-address-unknown
# description: Nothing has the address yet, and the Pod has none.
violations contains {"requirement": 2, "id": "ip-address-unknown", "message": msg, "value": ip, "retryable": true} if {
	some ip in foreign_addresses
	address_may_come(ip)
	msg := sprintf("nothing has address %s yet: Pod %s has no address so far", [ip, subject])
}

# METADATA
# title: names-missing
# description: The request asks for neither a DNS name nor an address.
violations contains {"requirement": 2, "id": "names-missing", "message": msg, "value": "", "retryable": false} if {
	count(input.pkcs10.dnsNames) + count(input.pkcs10.ipAddresses) == 0
	msg := "the request has no subject alternative name: add the DNS names or addresses to serve on"
}

# METADATA
# title: uri-not-allowed
# description: The cluster does not tell whose a URI is.
violations contains {"requirement": 2, "id": "uri-not-allowed", "message": msg, "value": uri, "retryable": false} if {
	some uri in input.pkcs10.uris
	msg := sprintf("URI %q is not allowed in a serving certificate: remove it", [uri])
}

# METADATA
# title: email-not-allowed
# description: A Pod has no mail address.
violations contains {"requirement": 2, "id": "email-not-allowed", "message": msg, "value": address, "retryable": false} if {
	some address in input.pkcs10.emailAddresses
	msg := sprintf("e-mail address %q is not allowed in a serving certificate: remove it", [address])
}

# METADATA
# title: common-name-not-requested
# description: The common name is none of the names that are checked.
violations contains {"requirement": 2, "id": "common-name-not-requested", "message": msg, "value": input.pkcs10.subject.commonName, "retryable": false} if {
	not common_name_is_requested
	msg := sprintf("common name %q is none of the subject alternative names: leave it empty, or make it one of them", [input.pkcs10.subject.commonName])
}

# METADATA
# title: organization-not-allowed
# description: Kubernetes reads an organization as a group.
violations contains {"requirement": 2, "id": "organization-not-allowed", "message": msg, "value": organization, "retryable": false} if {
	some organization in input.pkcs10.subject.organizations
	msg := sprintf("organization %q is not allowed: remove it from the subject", [organization])
}

# METADATA
# title: subject-attribute-not-allowed
# description: Nothing but a common name may stand in the subject.
violations contains {"requirement": 2, "id": "subject-attribute-not-allowed", "message": msg, "value": unit, "retryable": false} if {
	some unit in input.pkcs10.subject.organizationalUnits
	msg := sprintf("organizational unit %q is not allowed: remove it from the subject", [unit])
}

violations contains {"requirement": 2, "id": "subject-attribute-not-allowed", "message": msg, "value": attribute.oid, "retryable": false} if {
	some attribute in input.pkcs10.subject.other
	msg := sprintf("subject attribute %s (%q) is not allowed: remove it from the subject", [attribute.oid, attribute.value])
}

# METADATA
# title: usage-not-allowed
# description: The usage is not one of serving.
violations contains {"requirement": 2, "id": "usage-not-allowed", "message": msg, "value": usage, "retryable": false} if {
	some usage in array.concat(input.request.usages, input.pkcs10.usages)
	not usage in allowed_usages
	msg := sprintf("usage %q is not allowed: ask only for %s", [usage, concat(", ", sort(allowed_usages))])
}

# METADATA
# title: usage-missing
# description: The certificate would not do for serving.
violations contains {"requirement": 2, "id": "usage-missing", "message": msg, "value": "server auth", "retryable": false} if {
	not "server auth" in input.request.usages
	msg := `usage "server auth" is missing: add it to spec.usages`
}

violations contains {"requirement": 2, "id": "usage-missing", "message": msg, "value": "digital signature", "retryable": false} if {
	not has_key_usage
	msg := sprintf("usage \"digital signature\" is missing, without which a key of type %s cannot serve: add it to spec.usages", [input.pkcs10.key.algorithm])
}

# METADATA
# title: expiration-too-long
# description: The lifetime asked for is longer than the policy's parameter maxExpirationSeconds.
violations contains {"requirement": 2, "id": "expiration-too-long", "message": msg, "value": sprintf("%d", [input.request.expirationSeconds]), "retryable": false} if {
	not lifetime_is_allowed
	msg := sprintf("a lifetime of %d seconds is not allowed: set spec.expirationSeconds to at most %v", [input.request.expirationSeconds, input.parameters.maxExpirationSeconds])
}

subject := sprintf("%s/%s", [input.cluster.subject.pod.namespace, input.cluster.subject.pod.name])

# A delegate names its Pod by the names asked for; without any, names-missing says enough.
subject_is_sought if {
	is_null(input.requester.pod)
	is_null(input.cluster.subject.pod)
	count(input.pkcs10.dnsNames) + count(input.pkcs10.ipAddresses) > 0
}

# Names are judged only for who speaks for the Pod: no one else is told what has them.
foreign_dns_names contains name if {
	requester_speaks_for_subject
	some name in input.pkcs10.dnsNames
	not dns_name_is_owned(name)
}

foreign_addresses contains ip if {
	requester_speaks_for_subject
	some ip in input.pkcs10.ipAddresses
	not ip in names.ip_addresses
}

nothing_has(name) if count(object.get(input.cluster.resolved, name, [])) == 0

# What has a name instead of the subject, as a clause for messages.
owners(name) := "" if count(details(name)) == 0

owners(name) := sprintf(" (%s)", [concat(" and ", details(name))]) if count(details(name)) > 0

# What selects the subject, or is it, explains nothing: it has the name in a way that does not count.
details(name) := {entry.detail |
	some entry in object.get(input.cluster.resolved, name, [])
	entry.selectsSubject == false
}

dns_name_may_come(name) if {
	nothing_has(name)
	awaited(name)
}

# What would make a name the Pod's, as a clause for messages. Undefined if nothing can.
awaited(name) := sprintf("Service %s/%s exists and selects it", [input.cluster.subject.pod.namespace, service_in(name)])

awaited(name) := "it has that address" if {
	has_no_address_yet
	label := label_before(name, sprintf(".%s.pod.%s", [input.cluster.subject.pod.namespace, input.cluster.domain]))
	names.looks_like_address(label)
}

# The Service of the subject's namespace that a name is a name of. Undefined if there can be none.
service_in(name) := label_before(name, sprintf(".%s.svc.%s", [input.cluster.subject.pod.namespace, input.cluster.domain]))

service_in(name) := label_before(name, sprintf(".%s.svc", [input.cluster.subject.pod.namespace]))

service_in(name) := label_before(name, sprintf(".%s", [input.cluster.subject.pod.namespace])) if {
	input.parameters.allowShortNames == true
}

service_in(name) := pod.subdomain if {
	pod := input.cluster.subject.pod
	names.fold(name) == lower(sprintf("%s.%s.%s.svc.%s", [pod.hostname, pod.subdomain, pod.namespace, input.cluster.domain]))
	not names.looks_like_address(lower(pod.hostname))
}

# The one label before a suffix, in lower case. Undefined if there is no such label.
label_before(name, suffix) := label if {
	folded := names.fold(name)
	endswith(folded, lower(suffix))
	label := trim_suffix(folded, lower(suffix))
	regex.match(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`, label)
}

address_may_come(ip) if {
	nothing_has(ip)
	has_no_address_yet
}

has_no_address_yet if {
	input.cluster.subject.pod.hostNetwork == false
	count(input.cluster.subject.pod.podIPs) == 0
}
