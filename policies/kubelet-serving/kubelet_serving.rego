# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# METADATA
# title: Serving certificates for kubelets
# description: >-
#   Allows a kubelet to request a certificate for the names and addresses that its Node reports,
#   in the form that Kubernetes requires for the signer kubernetes.io/kubelet-serving.
#   A kubelet can change the names and addresses that its Node reports. Names and addresses of
#   Services, Pods and other Nodes are therefore not allowed, and addresses are allowed only within
#   ipPrefixes.
#   Parameters: ipPrefixes, a list of CIDR prefixes, which is required to allow an address: the
#   networks of the Nodes, without those of Services and Pods; maxExpirationSeconds, the longest
#   lifetime that a request can have.
# related_resources:
#   - https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers
# scope: package
# schemas:
#   - input: schema.input
package countersign.kubelet_serving

import rego.v2

import data.countersign.lib.key
import data.countersign.lib.names
import data.countersign.lib.request

# METADATA
# title: Requirement 1, the subject controls the private key
# description: >-
#   The signature of the PKCS#10 request proves that its creator has the private key. The
#   rule checks that the requester is a kubelet, and that no other requester used the key.
subject_controls_key if {
	requester_is_node
	key.is_first_shown
}

# METADATA
# title: Requirement 2, the subject is authorized to act in the requested context
subject_is_authorized if {
	node_is_requesters
	input.cluster.subject.node.deleting == false
	names_are_nodes
	names_are_of_no_other
	addresses_are_within_prefixes
	subject_attributes_are_nodes
	usages_are_exact
	request.lifetime_is_allowed
}

# METADATA
# title: The requester has the identity of a kubelet
requester_is_node if {
	startswith(input.requester.username, "system:node:")
	not input.requester.username == "system:node:"
	"system:nodes" in input.requester.groups
}

# METADATA
# title: The Node of the requester exists
node_is_requesters if {
	requester_is_node
	concat("", ["system:node:", input.cluster.subject.node.name]) == input.requester.username
}

# METADATA
# title: DNS names that the Node reports
# description: >-
#   Addresses are excluded, regardless of their reported type, because ipPrefixes does not
#   apply to DNS names.
dns_names contains bare(address.address) if {
	some address in input.cluster.subject.node.addresses
	address.type in {"Hostname", "InternalDNS", "ExternalDNS"}
	not looks_like_address(address.address)
}

# METADATA
# title: IP addresses that the Node reports
ip_addresses contains address.address if {
	some address in input.cluster.subject.node.addresses
	address.type in {"Hostname", "InternalIP", "ExternalIP"}
	looks_like_address(address.address)
}

names_are_nodes if {
	count(input.pkcs10.dnsNames) + count(input.pkcs10.ipAddresses) > 0
	every name in input.pkcs10.dnsNames {
		bare(name) in dns_names
	}
	every ip in input.pkcs10.ipAddresses {
		ip in ip_addresses
	}
	count(input.pkcs10.uris) == 0
	count(input.pkcs10.emailAddresses) == 0
}

# A Service, a Pod or another Node that has a name does not allow the request, even if it is from a cache.
names_are_of_no_other if {
	is_object(input.cluster.resolved)
	is_string(input.cluster.domain)
	every name in input.pkcs10.dnsNames {
		not is_reserved_name(name)
		not is_of_another(name)
	}
	every ip in input.pkcs10.ipAddresses {
		not is_reserved_address(ip)
		not is_of_another(ip)
	}
}

# METADATA
# title: Names that no Node can have
# description: >-
#   In a Pod, the search domains <namespace>.svc.<domain>, svc.<domain> and <domain> apply to a
#   name. Names at or below svc, pod and the cluster domain therefore belong to Services and Pods.
#   The API server has the names kubernetes and kubernetes.default too. Every machine is localhost.
is_reserved_name(name) if {
	some reserved in {"svc", "pod", "localhost", input.cluster.domain}
	is_at_or_below(bare(name), reserved)
}

is_reserved_name(name) if bare(name) in {"kubernetes", "kubernetes.default"}

is_at_or_below(name, domain) if name == domain

is_at_or_below(name, domain) if endswith(name, sprintf(".%s", [domain]))

# METADATA
# title: Addresses that no Node has to itself
# description: Unspecified, loopback, link-local, multicast and broadcast addresses.
is_reserved_address(ip) if {
	some prefix in {"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32", "::/127", "fe80::/10", "ff00::/8"}
	net.cidr_contains(prefix, ip)
}

# The Node owns its own name, whichever names another Node reports.
is_of_another(name) if {
	not bare(name) == input.cluster.subject.node.name
	some entry in input.cluster.resolved[name]
	not entry.uid == input.cluster.subject.node.uid
}

addresses_are_within_prefixes if {
	prefixes_are_valid
	every ip in input.pkcs10.ipAddresses {
		is_within_prefixes(ip)
	}
}

prefixes_are_missing if object.get(input.parameters, "ipPrefixes", null) == null

prefixes_are_valid if prefixes_are_missing

prefixes_are_valid if {
	is_array(input.parameters.ipPrefixes)
	every prefix in input.parameters.ipPrefixes {
		is_string(prefix)
		net.cidr_is_valid(prefix)
	}
}

is_within_prefixes(ip) if {
	some prefix in input.parameters.ipPrefixes
	net.cidr_contains(prefix, ip)
}

subject_attributes_are_nodes if {
	input.pkcs10.subject.commonName == input.requester.username
	input.pkcs10.subject.organizations == ["system:nodes"]
	request.other_attributes_are_absent
}

required_usages := {"digital signature", "server auth"}

allowed_usages := required_usages | {"key encipherment"}

usages_are_exact if {
	{usage | some usage in input.request.usages} in {required_usages, allowed_usages}
	request.usages_are_within(allowed_usages)
}

# Violations of the library: the key, the lifetime and the subject attributes.
violations contains v if some v in key.violations

violations contains v if some v in request.violations

# METADATA
# title: requester-not-node
# description: The requester does not have the username and the group of a kubelet.
violations contains {"requirement": 1, "id": "requester-not-node", "message": msg, "value": input.requester.username, "retryable": false} if {
	not requester_is_node
	msg := sprintf("requester %s is no kubelet, which has a username of the form system:node:<name> and the group system:nodes: make the request with the kubelet's own credentials", [input.requester.username])
}

# METADATA
# title: node-not-found
# description: >-
#   No Node has the name of the kubelet. A kubelet can request its certificate before it
#   registers its Node.
violations contains {"requirement": 2, "id": "node-not-found", "message": msg, "value": node_name, "retryable": true} if {
	not node_is_requesters
	msg := sprintf("Node %s does not exist: the kubelet has to register it", [node_name])
}

# METADATA
# title: node-deleting
# description: The Node is being deleted. A kubelet that still runs registers it again.
violations contains {"requirement": 2, "id": "node-deleting", "message": msg, "value": node_name, "retryable": true} if {
	node_is_requesters
	not input.cluster.subject.node.deleting == false
	msg := sprintf("Node %s is being deleted: the kubelet has to register it again", [node_name])
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
# description: The Node reports other DNS names, or no Node can report this name.
violations contains {"requirement": 2, "id": "dns-name-not-owned", "message": msg, "value": name, "retryable": false} if {
	some name in foreign_dns_names
	not contains(name, "*")
	not dns_name_may_come(name)
	msg := sprintf("DNS name %q does not belong to Node %s, which reports %s: ask for the names in status.addresses of the Node", [name, node_name, listed(dns_names)])
}

# METADATA
# title: dns-name-unknown
# description: The Node does not report a DNS name yet.
violations contains {"requirement": 2, "id": "dns-name-unknown", "message": msg, "value": name, "retryable": true} if {
	some name in foreign_dns_names
	dns_name_may_come(name)
	msg := sprintf("Node %s reports no DNS name yet: %q belongs to it once it stands in its status.addresses", [node_name, name])
}

# METADATA
# title: ip-address-not-owned
# description: The Node reports other addresses of the same family.
violations contains {"requirement": 2, "id": "ip-address-not-owned", "message": msg, "value": ip, "retryable": false} if {
	some ip in foreign_addresses
	not address_may_come(ip)
	msg := sprintf("address %s does not belong to Node %s, which reports %s: ask for the addresses in status.addresses of the Node", [ip, node_name, listed(ip_addresses)])
}

# METADATA
# title: ip-address-unknown
# description: >-
#   The Node does not report an address of that family yet. A dual-stack Node can receive the
#   address of the second family later, for example from a cloud provider. The request is held
#   for at most holdFor. After a denial the kubelet would have to create another request.
violations contains {"requirement": 2, "id": "ip-address-unknown", "message": msg, "value": ip, "retryable": true} if {
	some ip in foreign_addresses
	address_may_come(ip)
	msg := sprintf("Node %s reports no %s address yet: %s belongs to it once it stands in its status.addresses", [node_name, family(ip), ip])
}

# METADATA
# title: dns-name-reserved
# description: The name belongs to Services, to Pods, to the API server or to every machine, whatever the Node reports.
violations contains {"requirement": 2, "id": "dns-name-reserved", "message": msg, "value": name, "retryable": false} if {
	some name in own_dns_names
	is_reserved_name(name)
	msg := sprintf("DNS name %q is never that of a Node: remove it from status.addresses of Node %s", [name, node_name])
}

# METADATA
# title: ip-address-reserved
# description: The address is unspecified, loopback, link-local, multicast or broadcast, whatever the Node reports.
violations contains {"requirement": 2, "id": "ip-address-reserved", "message": msg, "value": ip, "retryable": false} if {
	some ip in own_addresses
	is_reserved_address(ip)
	msg := sprintf("address %s is never that of one Node: remove it from status.addresses of Node %s", [ip, node_name])
}

# METADATA
# title: dns-name-of-another
# description: >-
#   A Service, a Pod or another Node has the name too. Held, because one of them can be about to
#   be deleted, such as the Node that this one replaces.
violations contains {"requirement": 2, "id": "dns-name-of-another", "message": msg, "value": name, "retryable": true} if {
	some name in own_dns_names
	not is_reserved_name(name)
	is_of_another(name)
	msg := sprintf("DNS name %q belongs to another Node, a Pod or a Service too: it belongs to Node %s once only this Node reports it", [name, node_name])
}

# METADATA
# title: ip-address-of-another
# description: >-
#   A Service, a Pod or another Node has the address too. Pods in the host network do not count.
#   Held, because one of them can be about to be deleted, such as the Node that this one replaces.
violations contains {"requirement": 2, "id": "ip-address-of-another", "message": msg, "value": ip, "retryable": true} if {
	some ip in own_addresses
	not is_reserved_address(ip)
	is_of_another(ip)
	msg := sprintf("address %s belongs to another Node, a Pod or a Service too: it belongs to Node %s once only this Node reports it", [ip, node_name])
}

# METADATA
# title: prefixes-missing
# description: The parameter ipPrefixes of the policy is missing, and the policy allows no address until its owner adds it.
violations contains {"requirement": 2, "id": "prefixes-missing", "message": msg, "value": "", "retryable": true} if {
	prefixes_are_missing
	count(input.pkcs10.ipAddresses) > 0
	msg := "the policy allows no address without its parameter ipPrefixes: have the networks of the Nodes added to it"
}

# METADATA
# title: ip-address-outside-prefixes
# description: The address is not in a prefix of the parameter ipPrefixes of the policy.
violations contains {"requirement": 2, "id": "ip-address-outside-prefixes", "message": msg, "value": ip, "retryable": false} if {
	prefixes_are_valid
	not prefixes_are_missing
	some ip in input.pkcs10.ipAddresses
	not is_within_prefixes(ip)
	msg := sprintf("address %s is in none of the prefixes that Nodes may have: ask for others, or have the prefix added to the policy's parameter ipPrefixes", [ip])
}

# METADATA
# title: prefixes-invalid
# description: The parameter ipPrefixes of the policy is invalid, and the policy allows nothing until its owner fixes it.
violations contains {"requirement": 2, "id": "prefixes-invalid", "message": msg, "value": json.marshal(input.parameters.ipPrefixes), "retryable": true} if {
	not prefixes_are_valid
	msg := "the policy's parameter ipPrefixes is no list of CIDR prefixes: have it corrected"
}

# METADATA
# title: names-missing
# description: The request asks for neither a DNS name nor an address.
violations contains {"requirement": 2, "id": "names-missing", "message": msg, "value": "", "retryable": false} if {
	count(input.pkcs10.dnsNames) + count(input.pkcs10.ipAddresses) == 0
	msg := "the request has no subject alternative name: add the DNS names or addresses of the Node"
}

# METADATA
# title: uri-not-allowed
# description: A Node has no URI.
violations contains {"requirement": 2, "id": "uri-not-allowed", "message": msg, "value": uri, "retryable": false} if {
	some uri in input.pkcs10.uris
	msg := sprintf("URI %q is not allowed in a serving certificate: remove it", [uri])
}

# METADATA
# title: email-not-allowed
# description: A Node has no e-mail address.
violations contains {"requirement": 2, "id": "email-not-allowed", "message": msg, "value": address, "retryable": false} if {
	some address in input.pkcs10.emailAddresses
	msg := sprintf("e-mail address %q is not allowed in a serving certificate: remove it", [address])
}

# METADATA
# title: common-name-not-requester
# description: The common name is not the username of the kubelet.
violations contains {"requirement": 2, "id": "common-name-not-requester", "message": msg, "value": input.pkcs10.subject.commonName, "retryable": false} if {
	requester_is_node
	not input.pkcs10.subject.commonName == input.requester.username
	msg := sprintf("common name %q is not that of the requester: make it %s", [input.pkcs10.subject.commonName, input.requester.username])
}

# METADATA
# title: organization-not-nodes
# description: Kubernetes interprets organizations as groups, and requires exactly the group of kubelets.
violations contains {"requirement": 2, "id": "organization-not-nodes", "message": msg, "value": concat(", ", input.pkcs10.subject.organizations), "retryable": false} if {
	not input.pkcs10.subject.organizations == ["system:nodes"]
	msg := sprintf("the organizations are %s: make system:nodes the only one", [json.marshal(input.pkcs10.subject.organizations)])
}

# METADATA
# title: usage-not-allowed
# description: Kubernetes does not allow the usage for serving certificates of kubelets.
violations contains {"requirement": 2, "id": "usage-not-allowed", "message": msg, "value": usage, "retryable": false} if {
	some usage in request.usages
	not usage in allowed_usages
	msg := sprintf("usage %q is not allowed: ask for digital signature, server auth and, if need be, key encipherment", [usage])
}

# METADATA
# title: usage-missing
# description: Kubernetes does not issue the certificate without the usage.
violations contains {"requirement": 2, "id": "usage-missing", "message": msg, "value": usage, "retryable": false} if {
	some usage in required_usages
	not usage in input.request.usages
	msg := sprintf("usage %q is missing: add it to spec.usages", [usage])
}

# Undefined for a requester that is not a kubelet.
node_name := trim_prefix(input.requester.username, "system:node:") if requester_is_node

# Names are evaluated only for the Node itself. Others must not learn the names that it reports.
foreign_dns_names contains name if {
	node_is_requesters
	some name in input.pkcs10.dnsNames
	not bare(name) in dns_names
}

foreign_addresses contains ip if {
	node_is_requesters
	some ip in input.pkcs10.ipAddresses
	not ip in ip_addresses
}

# Names and addresses that the Node reports.
own_dns_names contains name if {
	node_is_requesters
	some name in input.pkcs10.dnsNames
	bare(name) in dns_names
}

own_addresses contains ip if {
	node_is_requesters
	some ip in input.pkcs10.ipAddresses
	ip in ip_addresses
}

dns_name_may_come(name) if {
	bare(name)
	not looks_like_address(name)
	not is_reserved_name(name)
	count(dns_names) == 0
}

address_may_come(ip) if {
	not is_reserved_address(ip)
	not family(ip) in {family(reported) | some reported in ip_addresses}
}

# A DNS name in the form for comparisons: in lower case, and without the trailing dot of the fully
# qualified names that some cloud providers report. Undefined for text that is not a DNS name.
bare(name) := trim_suffix(names.fold(name), ".") if regex.match(`^[^.:]+(\.[^.:]+)*\.?$`, name)

# Addresses in the facts have their canonical form.
looks_like_address(text) if contains(text, ":")

looks_like_address(text) if regex.match(`^[0-9]+(\.[0-9]+){3}\.?$`, text)

family(ip) := "IPv6" if contains(ip, ":")

family(ip) := "IPv4" if not contains(ip, ":")

listed(set) := "none" if count(set) == 0

listed(set) := concat(", ", sort(set)) if count(set) > 0
