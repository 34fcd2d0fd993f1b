# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# METADATA
# title: Names a Pod owns
# description: >-
#   The DNS names and addresses that the cluster itself gives to the Pod a request speaks
#   for, directly or by a Service that selects it. Whoever may only edit objects of a
#   namespace cannot make a name or address of someone else appear in these sets.
# scope: package
# schemas:
#   - input: schema.input
package countersign.lib.names

import rego.v2

# METADATA
# title: Services that lend the Pod their names
# description: >-
#   An ExternalName Service is an alias for any name its editor likes, one without a
#   selector sends to any address, and default/kubernetes is the API server.
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
dns_names contains lower(sprintf("%s.%s.svc.%s", [service.name, service.namespace, input.cluster.domain])) if {
	some service in services
}

dns_names contains lower(sprintf("%s.%s.svc", [service.name, service.namespace])) if {
	some service in services
}

dns_names contains lower(sprintf("%s.%s.pod.%s", [pod.name, pod.namespace, input.cluster.domain])) if {
	pod := input.cluster.subject.pod
	not looks_like_address(lower(pod.name))
}

dns_names contains lower(sprintf("%s.%s.pod.%s", [dashed(ip), pod.namespace, input.cluster.domain])) if {
	pod := input.cluster.subject.pod
	some ip in pod_ips
}

dns_names contains lower(sprintf("%s.%s.%s.svc.%s", [pod.hostname, service.name, pod.namespace, input.cluster.domain])) if {
	pod := input.cluster.subject.pod
	some service in services
	service.name == pod.subdomain
	count(pod.hostname) > 0

	# A headless Service answers such a name with the Pod that has this address.
	not looks_like_address(lower(pod.hostname))
}

# METADATA
# title: Names of the form <service>.<namespace>
# description: >-
#   Kept apart from the others, because a namespace may be called like a domain of the
#   world outside: a policy must want them.
short_dns_names contains lower(sprintf("%s.%s", [service.name, service.namespace])) if {
	some service in services
}

# METADATA
# title: Addresses of the Pod
# description: Its own and the cluster IPs of its Services. Never externalIPs, which their editor makes up.
ip_addresses contains ip if some ip in pod_ips

ip_addresses contains ip if {
	some service in services
	some ip in service.clusterIPs
	not ip == "None"
}

# METADATA
# title: The Pod's own addresses
# description: A Pod in the host network has those of its Node, which are not its own.
pod_ips contains ip if {
	input.cluster.subject.pod.hostNetwork == false
	some ip in input.cluster.subject.pod.podIPs
}

# METADATA
# title: A name as it is to be compared
# description: >-
#   Undefined for text outside of ASCII letters, digits, dots, dashes and colons: some
#   other characters have an ASCII letter as their lower case, such as the Kelvin sign.
fold(name) := lower(name) if regex.match(`^[A-Za-z0-9.:-]+$`, name)

# METADATA
# title: Whether a label reads as an address with dashes
# description: >-
#   DNS answers <label>.<namespace>.pod.<domain> with that address, whoever has it. What
#   might be read as an IPv6 address counts as one.
looks_like_address(label) if regex.match(`^[0-9]+(-[0-9]+){3}$`, label)

looks_like_address(label) if regex.match(`^[0-9a-f-]*--[0-9a-f-]*$`, label)

looks_like_address(label) if regex.match(`^[0-9a-f]*(-[0-9a-f]*){7,}$`, label)

# METADATA
# title: An address as it is written in DNS names, 10-0-34-2 for 10.0.34.2
dashed(ip) := replace(replace(ip, ".", "-"), ":", "-")

is_api_server(service) if {
	service.namespace == "default"
	service.name == "kubernetes"
}
