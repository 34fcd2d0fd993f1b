# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# METADATA
# title: Serving certificates for kubelets
# description: >-
#   Allows a kubelet a certificate for the names and addresses that its own Node reports, in
#   the form that Kubernetes wants of the signer kubernetes.io/kubelet-serving.
#   Parameters: maxExpirationSeconds, the longest lifetime that may be asked for; ipPrefixes,
#   a list of CIDR prefixes of which one must contain each address. A kubelet may write what
#   its Node reports, so this list bounds what a stolen one can have.
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
#   The PKCS#10 request is signed with the key, so whoever made it has the key: it
#   remains to show that this is a kubelet, and that no one showed the key before.
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
# title: The Node is there, and it is the one that the requester is
node_is_requesters if {
	requester_is_node
	concat("", ["system:node:", input.cluster.subject.node.name]) == input.requester.username
}

# METADATA
# title: DNS names that the Node reports
# description: >-
#   An address is none of them, whatever the type it is reported as: it would be one that
#   ipPrefixes does not see.
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

addresses_are_within_prefixes if {
	prefixes_are_valid
	every ip in input.pkcs10.ipAddresses {
		is_within_prefixes(ip)
	}
}

prefixes_are_valid if object.get(input.parameters, "ipPrefixes", null) == null

prefixes_are_valid if {
	is_array(input.parameters.ipPrefixes)
	every prefix in input.parameters.ipPrefixes {
		is_string(prefix)
		net.cidr_is_valid(prefix)
	}
}

is_within_prefixes(_) if object.get(input.parameters, "ipPrefixes", null) == null

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

# What is wrong with the key, the lifetime and other attributes is said by the library.
violations contains v if some v in key.violations

violations contains v if some v in request.violations

# METADATA
# title: requester-not-node
# description: The requester has not the username and the group of a kubelet.
violations contains {"requirement": 1, "id": "requester-not-node", "message": msg, "value": input.requester.username, "retryable": false} if {
	not requester_is_node
	msg := sprintf("requester %s is no kubelet, which has a username of the form system:node:<name> and the group system:nodes: make the request with the kubelet's own credentials", [input.requester.username])
}

# METADATA
# title: node-not-found
# description: >-
#   There is no Node of the kubelet's name. A kubelet may ask for its certificate before it
#   has registered its Node.
violations contains {"requirement": 2, "id": "node-not-found", "message": msg, "value": node_name, "retryable": true} if {
	not node_is_requesters
	msg := sprintf("Node %s does not exist: the kubelet has to register it", [node_name])
}

# METADATA
# title: node-deleting
# description: The Node is being deleted.
violations contains {"requirement": 2, "id": "node-deleting", "message": msg, "value": node_name, "retryable": false} if {
	node_is_requesters
	not input.cluster.subject.node.deleting == false
	msg := sprintf("Node %s is being deleted: make the request when it is registered again", [node_name])
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
# description: The Node reports DNS names, but not this one, or it is one that no Node can report.
violations contains {"requirement": 2, "id": "dns-name-not-owned", "message": msg, "value": name, "retryable": false} if {
	some name in foreign_dns_names
	not contains(name, "*")
	not dns_name_may_come(name)
	msg := sprintf("DNS name %q does not belong to Node %s, which reports %s: ask for the names in status.addresses of the Node", [name, node_name, listed(dns_names)])
}

# METADATA
# title: dns-name-unknown
# description: The Node reports no DNS name yet.
violations contains {"requirement": 2, "id": "dns-name-unknown", "message": msg, "value": name, "retryable": true} if {
	some name in foreign_dns_names
	dns_name_may_come(name)
	msg := sprintf("Node %s reports no DNS name yet: %q belongs to it once it stands in its status.addresses", [node_name, name])
}

# METADATA
# title: ip-address-not-owned
# description: The Node reports addresses of that family, but not this one.
violations contains {"requirement": 2, "id": "ip-address-not-owned", "message": msg, "value": ip, "retryable": false} if {
	some ip in foreign_addresses
	not address_may_come(ip)
	msg := sprintf("address %s does not belong to Node %s, which reports %s: ask for the addresses in status.addresses of the Node", [ip, node_name, listed(ip_addresses)])
}

# METADATA
# title: ip-address-unknown
# description: >-
#   The Node reports no address of that family yet. Families are told apart because a Node
#   with two gets the second by itself, from a cloud provider for one: denied, the kubelet
#   would have to ask again; held, it waits no longer than holdFor.
violations contains {"requirement": 2, "id": "ip-address-unknown", "message": msg, "value": ip, "retryable": true} if {
	some ip in foreign_addresses
	address_may_come(ip)
	msg := sprintf("Node %s reports no %s address yet: %s belongs to it once it stands in its status.addresses", [node_name, family(ip), ip])
}

# METADATA
# title: ip-address-outside-prefixes
# description: None of the prefixes of the policy's parameter ipPrefixes contains the address.
violations contains {"requirement": 2, "id": "ip-address-outside-prefixes", "message": msg, "value": ip, "retryable": false} if {
	prefixes_are_valid
	some ip in input.pkcs10.ipAddresses
	not is_within_prefixes(ip)
	msg := sprintf("address %s is in none of the prefixes that Nodes may have: ask for others, or have the prefix added to the policy's parameter ipPrefixes", [ip])
}

# METADATA
# title: prefixes-invalid
# description: The policy's parameter ipPrefixes cannot be read, so that it allows nothing. Its owner can mend that.
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
# description: A Node has no mail address.
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
# description: Kubernetes reads an organization as a group, and wants exactly that of kubelets.
violations contains {"requirement": 2, "id": "organization-not-nodes", "message": msg, "value": concat(", ", input.pkcs10.subject.organizations), "retryable": false} if {
	not input.pkcs10.subject.organizations == ["system:nodes"]
	msg := sprintf("the organizations are %s: make system:nodes the only one", [json.marshal(input.pkcs10.subject.organizations)])
}

# METADATA
# title: usage-not-allowed
# description: The usage is not one that Kubernetes allows to serving certificates of kubelets.
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

# Undefined for a requester that is none.
node_name := trim_prefix(input.requester.username, "system:node:") if requester_is_node

# Names are judged only for the Node itself: no one else is told what it reports.
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

dns_name_may_come(name) if {
	bare(name)
	not looks_like_address(name)
	count(dns_names) == 0
}

address_may_come(ip) if not family(ip) in {family(reported) | some reported in ip_addresses}

# A DNS name as it is to be compared: in lower case, and without the one dot that ends it
# where a cloud provider reports it fully qualified. Undefined for what is no name of labels.
bare(name) := trim_suffix(names.fold(name), ".") if regex.match(`^[^.:]+(\.[^.:]+)*\.?$`, name)

# Facts have addresses in their canonical form.
looks_like_address(text) if contains(text, ":")

looks_like_address(text) if regex.match(`^[0-9]+(\.[0-9]+){3}\.?$`, text)

family(ip) := "IPv6" if contains(ip, ":")

family(ip) := "IPv4" if not contains(ip, ":")

listed(set) := "none" if count(set) == 0

listed(set) := concat(", ", sort(set)) if count(set) > 0
