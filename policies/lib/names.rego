# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# METADATA
# title: Names that a Pod owns
# description: >-
#   The DNS names and addresses that the cluster assigns to the subject Pod, directly or by a
#   Service that selects it. A user that can only edit objects in a namespace cannot add a name
#   or an address of another subject to these sets. violations reports the other requested names.
#   Parameter: allowShortNames, true to include names of the form <service>.<namespace>.
# scope: package
# schemas:
#   - input: schema.input
package countersign.lib.names

import rego.v2

import data.countersign.lib.delegation
import data.countersign.lib.subject

# METADATA
# title: Services whose names the Pod owns
# description: >-
#   ExternalName Services are excluded, because their editor chooses any name. Services
#   without a selector are excluded, because they send to any address. default/kubernetes is
#   the API server.
services contains service if {
	some service in input.cluster.subject.services
	service.namespace == input.cluster.subject.pod.namespace
	service.type in {"ClusterIP", "NodePort", "LoadBalancer"}
	count(service.selector) > 0
	service.deleting == false
	not is_api_server(service)
}

# METADATA
# title: DNS names of the Pod, in lower case and without a trailing dot
# description: >-
#   The API server accepts only lower-case names of Pods and Services, and --cluster-domain
#   accepts only lower-case domains.
dns_names contains sprintf("%s.%s.svc", [service.name, service.namespace]) if {
	some service in services
}

dns_names contains sprintf("%s.%s.svc.%s", [service.name, service.namespace, input.cluster.domain]) if {
	some service in services
}

dns_names contains sprintf("%s.%s.pod.%s", [pod.name, pod.namespace, input.cluster.domain]) if {
	pod := input.cluster.subject.pod

	# CoreDNS resolves the label before the namespace, whatever stands before it.
	labels := split(pod.name, ".")
	not looks_like_address(labels[count(labels) - 1])
}

dns_names contains name if some name in dashed_names

dns_names contains sprintf("%s.%s.%s.svc.%s", [pod.hostname, pod.subdomain, pod.namespace, input.cluster.domain]) if {
	pod := input.cluster.subject.pod
	not pod.hostname == ""
	some service in services
	service.name == pod.subdomain

	# A headless Service resolves such a name to the Pod with this address.
	not looks_like_address(pod.hostname)
}

# METADATA
# title: Names of the form <service>.<namespace>
# description: >-
#   A separate set, because a namespace can have the name of an external domain. A policy must
#   allow them explicitly.
short_dns_names contains sprintf("%s.%s", [service.name, service.namespace]) if {
	some service in services
}

# METADATA
# title: Addresses of the Pod
# description: The addresses of the Pod and the cluster IPs of its Services. externalIPs of Services are not in the input.
ip_addresses contains ip if some ip in pod_addresses

ip_addresses contains ip if {
	some service in services
	some ip in service.clusterIPs
	not ip == "None"
}

# METADATA
# title: A name in the form for comparisons
# description: >-
#   Undefined for text outside of ASCII letters, digits, dots, dashes and colons. The lower
#   case of some other characters, such as the Kelvin sign, is an ASCII letter.
fold(name) := lower(name) if regex.match(`^[A-Za-z0-9.:-]+$`, name)

# METADATA
# title: A label that has the form of an address with dashes
# description: >-
#   DNS resolves <label>.<namespace>.pod.<domain> to that address, regardless of its owner. A
#   label that can be parsed as an IPv6 address is included.
looks_like_address(label) if regex.match(`^([0-9]+(-[0-9]+){3}|[0-9a-f-]*--[0-9a-f-]*|[0-9a-f]*(-[0-9a-f]*){7,})$`, label)

is_api_server(service) if {
	service.namespace == "default"
	service.name == "kubernetes"
}

# A Pod in the host network has the addresses of its Node, which are not its own.
pod_addresses contains ip if {
	input.cluster.subject.pod.hostNetwork == false
	some ip in input.cluster.subject.pod.podIPs
}

# DNS resolves these names to the addresses of the Pod.
dashed_names contains sprintf("%s.%s.pod.%s", [dashed, input.cluster.subject.pod.namespace, input.cluster.domain]) if {
	some ip in pod_addresses
	dashed := strings.replace_n({".": "-", ":": "-"}, ip)
}

# METADATA
# title: The Pod owns every requested DNS name and address, and no other Pod has one of its addresses
are_owned if {
	dns_names_are_owned
	own := ip_addresses
	every ip in input.pkcs10.ipAddresses {
		ip in own
	}
	is_object(input.cluster.resolved)
	shared_names == set()
}

# METADATA
# title: wildcard-not-allowed
# description: A wildcard matches names of other subjects.
violations contains {"requirement": 2, "id": "wildcard-not-allowed", "message": msg, "value": name, "retryable": false} if {
	some name in foreign_dns_names
	contains(name, "*")
	msg := sprintf("DNS name %q is a wildcard: ask for each name", [name])
}

# METADATA
# title: dns-name-not-owned
# description: The name belongs to another object, or can never belong to the Pod.
violations contains {"requirement": 2, "id": "dns-name-not-owned", "message": msg, "value": name, "retryable": delegation.pod_may_change} if {
	some name in foreign_dns_names
	not contains(name, "*")
	not awaited(name)
	msg := sprintf("DNS name %q does not belong to Pod %s%s: ask for names of the Pod, or of Services that select it", [name, subject.name, owners(name)])
}

# METADATA
# title: dns-name-unknown
# description: The name can become a name of the Pod, when a Service exists or the Pod has an address.
violations contains {"requirement": 2, "id": "dns-name-unknown", "message": msg, "value": name, "retryable": true} if {
	some name in foreign_dns_names
	msg := sprintf("DNS name %q does not belong to Pod %s yet%s: it does once %s", [name, subject.name, owners(name), awaited(name)])
}

# METADATA
# title: host-network-address
# description: A Pod in the host network has no address of its own.
violations contains {"requirement": 2, "id": "host-network-address", "message": msg, "value": ip, "retryable": delegation.pod_may_change} if {
	input.cluster.subject.pod.hostNetwork == true
	some ip in foreign_addresses
	msg := sprintf("address %s does not belong to Pod %s, which is in the host network and has the addresses of its Node: ask for DNS names, or for cluster IPs of Services that select it", [ip, subject.name])
}

# METADATA
# title: ip-address-not-owned
# description: The address belongs to another object, or can never belong to the Pod.
violations contains {"requirement": 2, "id": "ip-address-not-owned", "message": msg, "value": ip, "retryable": delegation.pod_may_change} if {
	some ip in foreign_addresses
	input.cluster.subject.pod.hostNetwork == false
	not address_may_come(ip)
	msg := sprintf("address %s does not belong to Pod %s%s: ask for addresses of the Pod, or for cluster IPs of Services that select it", [ip, subject.name, owners(ip)])
}

# METADATA
# title: ip-address-unknown
# description: >-
#   The Pod has no address yet. Another object can have the requested address until the Pod gets
#   it, such as a Pod that is being deleted.
violations contains {"requirement": 2, "id": "ip-address-unknown", "message": msg, "value": ip, "retryable": true} if {
	some ip in foreign_addresses
	address_may_come(ip)
	msg := sprintf("address %s does not belong to Pod %s yet%s: the Pod has no address so far", [ip, subject.name, owners(ip)])
}

# METADATA
# title: address-shared
# description: >-
#   Another Pod has the address too, or the address in the name. One of the two can be about to
#   lose it, such as a Pod that is being deleted.
violations contains {"requirement": 2, "id": "address-shared", "message": msg, "value": name, "retryable": true} if {
	subject.requester_speaks_for_pod
	some name in shared_names
	msg := sprintf("%s does not belong to Pod %s alone%s: it does once no other Pod has this address", [name, subject.name, owners(name)])
}

# Most requested names are in lower case. fold is evaluated only if one of them is not. A name outside of
# ASCII never matches without fold: dns_names contains names of objects and the cluster domain, and the
# API server and --cluster-domain allow only ASCII.
dns_names_are_owned if {
	own := dns_names
	every name in input.pkcs10.dnsNames {
		name in own
	}
}

dns_names_are_owned if {
	every name in input.pkcs10.dnsNames {
		is_owned_dns_name(name)
	}
}

# A name that does not match exactly can match in lower case, or as a short name.
is_owned_dns_name(name) if fold(name) in dns_names

is_owned_dns_name(name) if {
	short_names_are_allowed
	fold(name) in short_dns_names
}

# object.get is required: the schema of the parameters of a policy can omit this parameter.
short_names_are_allowed if object.get(input.parameters, "allowShortNames", false) == true

# Names are evaluated only for requesters that act on behalf of the Pod. Others must not learn the owners of names.
foreign_dns_names contains name if {
	subject.requester_speaks_for_pod
	some name in ({name | some name in input.pkcs10.dnsNames} - dns_names)
	not is_owned_dns_name(name)
}

foreign_addresses := {ip | some ip in input.pkcs10.ipAddresses} - ip_addresses if subject.requester_speaks_for_pod

# The requested names with addresses of the Pod that another Pod has too.
shared_names contains name if {
	own := pod_addresses | dashed_names
	some name, entries in input.cluster.resolved
	fold(name) in own
	some entry in entries
	entry.kind == "Pod"
	not entry.uid == input.cluster.subject.pod.uid
}

# The objects that have a name instead of the subject, as a clause for messages.
owners(name) := "" if count(details(name)) == 0

owners(name) := sprintf(" (%s)", [concat(" and ", details(name))]) if count(details(name)) > 0

# Objects that select the subject, or are the subject, are omitted: their use of the name does not explain the violation.
details(name) := {entry.detail |
	some entry in object.get(input.cluster.resolved, name, [])
	entry.selectsSubject == false
}

# The change that would give a name to the Pod, as a clause for messages. Undefined if there is none.
# Objects of other namespaces do not prevent it.
awaited(name) := sprintf("Service %s/%s exists and selects it", [input.cluster.subject.pod.namespace, service_in(name)]) if {
	not service_exists(name)
}

awaited(name) := "it has that address" if {
	has_no_address_yet
	label := label_before(name, sprintf(".%s.pod.%s", [input.cluster.subject.pod.namespace, input.cluster.domain]))
	looks_like_address(label)
}

# The Service in the subject's namespace to which a name belongs. Undefined if no Service can have the name.
service_in(name) := label_before(name, sprintf(".%s.svc.%s", [input.cluster.subject.pod.namespace, input.cluster.domain]))

service_in(name) := label_before(name, sprintf(".%s.svc", [input.cluster.subject.pod.namespace]))

service_in(name) := label_before(name, sprintf(".%s", [input.cluster.subject.pod.namespace])) if {
	short_names_are_allowed
}

service_in(name) := pod.subdomain if {
	pod := input.cluster.subject.pod
	fold(name) == lower(sprintf("%s.%s.%s.svc.%s", [pod.hostname, pod.subdomain, pod.namespace, input.cluster.domain]))
	not looks_like_address(lower(pod.hostname))
}

# The single label before a suffix, in lower case. Undefined if there is no such label.
label_before(name, suffix) := label if {
	folded := fold(name)
	endswith(folded, lower(suffix))
	label := trim_suffix(folded, lower(suffix))
	regex.match(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`, label)
}

service_exists(name) if {
	some entry in object.get(input.cluster.resolved, name, [])
	entry.kind == "Service"
	not service_is_deleting(entry.uid)
}

service_is_deleting(uid) if {
	some service in input.cluster.subject.services
	service.uid == uid
	service.deleting == true
}

# While the Pod has no address, another object that has the requested one does not prevent that the
# Pod gets it.
address_may_come(_) if has_no_address_yet

has_no_address_yet if {
	input.cluster.subject.pod.hostNetwork == false
	input.cluster.subject.pod.podIPs == []
}
