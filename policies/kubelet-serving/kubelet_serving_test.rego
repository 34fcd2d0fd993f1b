# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

package countersign.kubelet_serving_test

import rego.v2

import data.countersign.kubelet_serving
import data.countersign.lib.example
import data.countersign.lib.example.joined
import data.countersign.lib.example.parameter
import data.countersign.lib.example.set_to

dns(names) := set_to("/pkcs10/dnsNames", names)

ips(addresses) := set_to("/pkcs10/ipAddresses", addresses)

only_dns(name) := joined([dns([name]), ips([])])

only_ip(address) := joined([dns([]), ips([address])])

usages(list) := set_to("/request/usages", list)

# The addresses that the Node reports.
reports(addresses) := set_to("/cluster/subject/node/addresses", [{"type": pair[0], "address": pair[1]} | some pair in addresses])

no_node := set_to("/cluster/subject/node", null)

# A Pod on the Node, with a bound token.
pod_as_requester := joined([
	set_to("/requester", example.pod_request.requester),
	set_to("/cluster/subject", example.pod_request.cluster.subject),
])

other_request(earlier) := set_to("/cluster/sameKey", [{"name": "theirs", "username": "system:node:other", "createdAt": "2026-01-02T03:04:05Z", "earlier": earlier}])

# Names and addresses that are similar to reserved ones.
not_reserved := ["mysvc", "svc.example.com", "my-pod", "pod.example.com", "localhost.example.com", "mycluster.local", "kubernetes.example.com", "cluster.local.example.com"]

not_reserved_addresses := ["1.0.0.0", "126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0", "223.255.255.255", "240.0.0.0", "::2", "fe7f::1", "fec0::1", "feff::1"]

# Objects with these UIDs have a name.
had_by(name, uids) := {"op": "add", "path": ["cluster", "resolved", name], "value": [{"kind": "Node", "namespace": "", "name": uid, "uid": uid, "selectsSubject": false, "detail": "a Node has it"} | some uid in uids]}

own_uid := "44444444-4444-4444-8444-444444444444"

# The result of each rule of the policy for a patched request.
evaluated(patch) := got if {
	got := results with input as json.patch(example.node_request, patch)
}

results := {
	"controls": {x | x := kubelet_serving.subject_controls_key},
	"authorized": {x | x := kubelet_serving.subject_is_authorized},
	"violations": {[v.requirement, v.id, v.value, v.retryable, v.message] | some v in kubelet_serving.violations},
}

test_allowed[note] if {
	some note, patch in {
		"both families, names of both kinds": [],
		"only a DNS name": only_dns("my-node"),
		"only an IPv4 address": only_ip("192.0.2.7"),
		"only an IPv6 address": only_ip("2001:db8::7"),
		"upper case in the request": dns(["MY-NODE.Example.COM"]),
		"upper case in the Node": joined([reports([["Hostname", "MY-Node"]]), only_dns("my-node")]),
		"trailing dot in the request": only_dns("my-node.example.com."),
		"trailing dot in the Node": joined([reports([["InternalDNS", "my-node.example.com."]]), only_dns("my-node.example.com")]),
		"trailing dot in both": joined([reports([["ExternalDNS", "my-node.example.com."]]), only_dns("my-node.example.com.")]),
		"external name and address": joined([
			reports([["ExternalDNS", "ext.example.com"], ["ExternalIP", "198.51.100.7"]]),
			dns(["ext.example.com"]),
			ips(["198.51.100.7"]),
			parameter("ipPrefixes", ["198.51.100.0/24"]),
		]),
		"Hostname is an IPv4 address": joined([reports([["Hostname", "192.0.2.7"]]), only_ip("192.0.2.7")]),
		"Hostname is an IPv6 address": joined([reports([["Hostname", "2001:db8::7"]]), only_ip("2001:db8::7")]),
		"key encipherment": usages(["key encipherment", "digital signature", "server auth"]),
		"usages of the PKCS#10 request": set_to("/pkcs10/usages", ["server auth"]),
		"longest lifetime": set_to("/request/expirationSeconds", 31536000),
		"no parameters, no address": joined([set_to("/parameters", {}), set_to("/request/expirationSeconds", 2000000000), only_dns("my-node")]),
		"within the prefixes": parameter("ipPrefixes", ["198.51.100.0/24", "192.0.2.0/28", "2001:db8::/64"]),
		"no address, so no prefix": joined([only_dns("my-node"), parameter("ipPrefixes", [])]),
		"every address": parameter("ipPrefixes", ["0.0.0.0/0", "::/0"]),
		"name of the Node, which another Node reports too": joined([only_dns("My-Node."), [had_by("My-Node.", ["other"])]]),
		"not at or below a reserved name": joined([
			reports([[type, name] | some name in not_reserved; some type in ["InternalDNS"]]),
			set_to("/pkcs10/dnsNames", not_reserved),
			ips([]),
		]),
		"beside reserved addresses": joined([reports([["InternalIP", ip] | some ip in not_reserved_addresses]), ips(not_reserved_addresses), dns([]), parameter("ipPrefixes", ["0.0.0.0/0", "::/0"])]),
		"no other has it": joined([only_dns("my-node.example.com"), set_to("/cluster/resolved", {})]),
	}
	evaluated(patch) == {"controls": {true}, "authorized": {true}, "violations": set()}
}

not_node(username) := sprintf("requester %s is no kubelet, which has a username of the form system:node:<name> and the group system:nodes: make the request with the kubelet's own credentials", [username])

cases := {
	"Pod that asks for its Node": {
		"patch": pod_as_requester,
		"want": {[1, "requester-not-node", "system:serviceaccount:my-namespace:my-sa", false, not_node("system:serviceaccount:my-namespace:my-sa")]},
	},
	"Pod whose token is bound to the Node too, and delegation": {
		"patch": joined([pod_as_requester, set_to("/cluster/delegation/allowed", true), set_to("/cluster/subject/node", example.node_request.cluster.subject.node)]),
		"want": {[1, "requester-not-node", "system:serviceaccount:my-namespace:my-sa", false, not_node("system:serviceaccount:my-namespace:my-sa")]},
	},
	"username of a Node without the group": {
		"patch": joined([set_to("/requester/groups", ["system:authenticated"]), only_dns("other")]),
		"want": {[1, "requester-not-node", "system:node:my-node", false, not_node("system:node:my-node")]},
	},
	"group of Nodes without the username": {
		"patch": set_to("/requester/username", "my-node"),
		"want": {[1, "requester-not-node", "my-node", false, not_node("my-node")]},
	},
	"bootstrap token": {
		"patch": joined([set_to("/requester/username", "system:bootstrap:abcdef"), set_to("/requester/groups", ["system:bootstrappers"]), no_node]),
		"want": {[1, "requester-not-node", "system:bootstrap:abcdef", false, not_node("system:bootstrap:abcdef")]},
	},
	"Node without a name": {
		"patch": joined([set_to("/requester/username", "system:node:"), set_to("/pkcs10/subject/commonName", "system:node:"), set_to("/cluster/subject/node/name", "")]),
		"want": {[1, "requester-not-node", "system:node:", false, not_node("system:node:")]},
	},
	"key used by another before": {
		"patch": other_request(true),
		"want": {[1, "key-used-by-another", "00", false, "another requester used this public key before: make a new key"]},
	},
	"key used by another in the same second": {
		"patch": other_request(false),
		"want": {[1, "key-order-unknown", "00", true, "another requester used this public key in the same second, perhaps before: make a new key and a new request"]},
	},
	"key used by another, without an order": {
		"patch": set_to("/cluster/sameKey", [{"name": "theirs"}]),
		"want": {[1, "key-used-by-another", "00", false, "another requester used this public key before: make a new key"]},
	},
	"identity of another Node": {
		"patch": set_to("/pkcs10/subject/commonName", "system:node:other"),
		"want": {[2, "common-name-not-requester", "system:node:other", false, "common name \"system:node:other\" is not that of the requester: make it system:node:my-node"]},
	},
	"identity of a Node in upper case": {
		"patch": set_to("/pkcs10/subject/commonName", "system:node:MY-NODE"),
		"want": {[2, "common-name-not-requester", "system:node:MY-NODE", false, "common name \"system:node:MY-NODE\" is not that of the requester: make it system:node:my-node"]},
	},
	"no common name": {
		"patch": set_to("/pkcs10/subject/commonName", ""),
		"want": {[2, "common-name-not-requester", "", false, "common name \"\" is not that of the requester: make it system:node:my-node"]},
	},
	"facts of another Node": {
		"patch": set_to("/cluster/subject/node/name", "other"),
		"want": {[2, "node-not-found", "my-node", true, "Node my-node does not exist: the kubelet has to register it"]},
	},
	"Node not registered yet": {
		"patch": no_node,
		"want": {[2, "node-not-found", "my-node", true, "Node my-node does not exist: the kubelet has to register it"]},
	},
	"Node being deleted": {
		"patch": set_to("/cluster/subject/node/deleting", true),
		"want": {[2, "node-deleting", "my-node", true, "Node my-node is being deleted: the kubelet has to register it again"]},
	},
	"masters": {
		"patch": set_to("/pkcs10/subject/organizations", ["system:masters"]),
		"want": {[2, "organization-not-nodes", "system:masters", false, "the organizations are [\"system:masters\"]: make system:nodes the only one"]},
	},
	"masters beside nodes": {
		"patch": set_to("/pkcs10/subject/organizations", ["system:nodes", "system:masters"]),
		"want": {[2, "organization-not-nodes", "system:nodes, system:masters", false, "the organizations are [\"system:nodes\",\"system:masters\"]: make system:nodes the only one"]},
	},
	"nodes twice": {
		"patch": set_to("/pkcs10/subject/organizations", ["system:nodes", "system:nodes"]),
		"want": {[2, "organization-not-nodes", "system:nodes, system:nodes", false, "the organizations are [\"system:nodes\",\"system:nodes\"]: make system:nodes the only one"]},
	},
	"no organization": {
		"patch": set_to("/pkcs10/subject/organizations", []),
		"want": {[2, "organization-not-nodes", "", false, "the organizations are []: make system:nodes the only one"]},
	},
	"other attributes": {
		"patch": joined([set_to("/pkcs10/subject/organizationalUnits", ["ops"]), set_to("/pkcs10/subject/other", [{"oid": "2.5.4.6", "value": "XX"}])]),
		"want": {
			[2, "subject-attribute-not-allowed", "ops", false, "organizational unit \"ops\" is not allowed: remove it from the subject"],
			[2, "subject-attribute-not-allowed", "2.5.4.6", false, "subject attribute 2.5.4.6 (\"XX\") is not allowed: remove it from the subject"],
		},
	},
	"one name too many": {
		"patch": dns(["my-node", "auth.example.com"]),
		"want": {[2, "dns-name-not-owned", "auth.example.com", false, "DNS name \"auth.example.com\" does not belong to Node my-node, which reports my-node, my-node.example.com: ask for the names in status.addresses of the Node"]},
	},
	"one address too many": {
		"patch": ips(["192.0.2.7", "192.0.2.99"]),
		"want": {[2, "ip-address-not-owned", "192.0.2.99", false, "address 192.0.2.99 does not belong to Node my-node, which reports 192.0.2.7, 2001:db8::7: ask for the addresses in status.addresses of the Node"]},
	},
	"address of another Node": {
		"patch": joined([only_ip("192.0.2.8"), [{"op": "add", "path": "/cluster/resolved/192.0.2.8", "value": [{"kind": "Node", "namespace": "", "name": "other", "uid": "99", "selectsSubject": false, "detail": "Node other has it"}]}]]),
		"want": {[2, "ip-address-not-owned", "192.0.2.8", false, "address 192.0.2.8 does not belong to Node my-node, which reports 192.0.2.7, 2001:db8::7: ask for the addresses in status.addresses of the Node"]},
	},
	"wildcard": {
		"patch": dns(["*.example.com"]),
		"want": {[2, "wildcard-not-allowed", "*.example.com", false, "DNS name \"*.example.com\" is a wildcard: ask for each name"]},
	},
	"wildcard that the Node reports": {
		"patch": joined([reports([["Hostname", "*.example.com"]]), only_dns("*.example.com")]),
		"want": {[2, "wildcard-not-allowed", "*.example.com", false, "DNS name \"*.example.com\" is a wildcard: ask for each name"]},
	},
	"no addresses yet": {
		"patch": joined([reports([]), dns(["my-node"]), ips(["192.0.2.7"])]),
		"want": {
			[2, "dns-name-unknown", "my-node", true, "Node my-node reports no DNS name yet: \"my-node\" belongs to it once it stands in its status.addresses"],
			[2, "ip-address-unknown", "192.0.2.7", true, "Node my-node reports no IPv4 address yet: 192.0.2.7 belongs to it once it stands in its status.addresses"],
		},
	},
	"no IP address yet": {
		"patch": joined([reports([["Hostname", "my-node"]]), dns(["my-node"]), ips(["192.0.2.7"])]),
		"want": {[2, "ip-address-unknown", "192.0.2.7", true, "Node my-node reports no IPv4 address yet: 192.0.2.7 belongs to it once it stands in its status.addresses"]},
	},
	"no DNS name yet": {
		"patch": joined([reports([["InternalIP", "192.0.2.7"]]), dns(["my-node"]), ips(["192.0.2.7"])]),
		"want": {[2, "dns-name-unknown", "my-node", true, "Node my-node reports no DNS name yet: \"my-node\" belongs to it once it stands in its status.addresses"]},
	},
	"no address of the second family yet": {
		"patch": joined([reports([["InternalIP", "192.0.2.7"]]), dns([])]),
		"want": {[2, "ip-address-unknown", "2001:db8::7", true, "Node my-node reports no IPv6 address yet: 2001:db8::7 belongs to it once it stands in its status.addresses"]},
	},
	"address of the first family, where the second is not there yet": {
		"patch": joined([reports([["InternalIP", "192.0.2.7"]]), only_ip("192.0.2.8")]),
		"want": {[2, "ip-address-not-owned", "192.0.2.8", false, "address 192.0.2.8 does not belong to Node my-node, which reports 192.0.2.7: ask for the addresses in status.addresses of the Node"]},
	},
	"address that is reported as a type unknown": {
		"patch": joined([reports([["Elsewhere", "192.0.2.7"], ["Elsewhere", "my-node"], ["InternalIP", "192.0.2.9"], ["Hostname", "a"]]), dns(["my-node"]), ips(["192.0.2.7"])]),
		"want": {
			[2, "dns-name-not-owned", "my-node", false, "DNS name \"my-node\" does not belong to Node my-node, which reports a: ask for the names in status.addresses of the Node"],
			[2, "ip-address-not-owned", "192.0.2.7", false, "address 192.0.2.7 does not belong to Node my-node, which reports 192.0.2.9: ask for the addresses in status.addresses of the Node"],
		},
	},
	"address as a DNS name": {
		"patch": joined([reports([["InternalDNS", "192.0.2.7"]]), only_dns("192.0.2.7")]),
		"want": {[2, "dns-name-not-owned", "192.0.2.7", false, "DNS name \"192.0.2.7\" does not belong to Node my-node, which reports none: ask for the names in status.addresses of the Node"]},
	},
	"name as an address": {
		"patch": joined([reports([["InternalIP", "my-node"], ["Hostname", "a"]]), only_dns("my-node")]),
		"want": {[2, "dns-name-not-owned", "my-node", false, "DNS name \"my-node\" does not belong to Node my-node, which reports a: ask for the names in status.addresses of the Node"]},
	},
	"outside of the prefixes": {
		"patch": parameter("ipPrefixes", ["192.0.2.0/30", "2001:db8::/64", "::/1"]),
		"want": {[2, "ip-address-outside-prefixes", "192.0.2.7", false, "address 192.0.2.7 is in none of the prefixes that Nodes may have: ask for others, or have the prefix added to the policy's parameter ipPrefixes"]},
	},
	"prefixes missing": {
		"patch": set_to("/parameters", {}),
		"want": {[2, "prefixes-missing", "", true, missing_prefixes]},
	},
	"prefixes are null": {
		"patch": joined([only_ip("192.0.2.7"), parameter("ipPrefixes", null)]),
		"want": {[2, "prefixes-missing", "", true, missing_prefixes]},
	},
	"name that another Node reports": {
		"patch": [had_by("my-node.example.com", [own_uid, "other"])],
		"want": {[2, "dns-name-of-another", "my-node.example.com", true, "DNS name \"my-node.example.com\" belongs to another Node, a Pod or a Service too: it belongs to Node my-node once only this Node reports it"]},
	},
	"address of another": {
		"patch": [had_by("192.0.2.7", ["other"])],
		"want": {[2, "ip-address-of-another", "192.0.2.7", true, "address 192.0.2.7 belongs to another Node, a Pod or a Service too: it belongs to Node my-node once only this Node reports it"]},
	},
	"name of another, which the Node does not report": {
		"patch": joined([only_dns("other"), [had_by("other", ["other"])]]),
		"want": {[2, "dns-name-not-owned", "other", false, "DNS name \"other\" does not belong to Node my-node, which reports my-node, my-node.example.com: ask for the names in status.addresses of the Node"]},
	},
	"reserved name that a Service has": {
		"patch": joined([reports([["Hostname", "kubernetes.default.svc"]]), only_dns("kubernetes.default.svc"), [had_by("kubernetes.default.svc", ["other"])]]),
		"want": {[2, "dns-name-reserved", "kubernetes.default.svc", false, reserved("kubernetes.default.svc")]},
	},
	"reserved address that a Pod has": {
		"patch": joined([reports([["InternalIP", "127.0.0.1"]]), only_ip("127.0.0.1"), parameter("ipPrefixes", ["0.0.0.0/0"]), [had_by("127.0.0.1", ["other"])]]),
		"want": {[2, "ip-address-reserved", "127.0.0.1", false, "address 127.0.0.1 is never that of one Node: remove it from status.addresses of Node my-node"]},
	},
	"no prefixes": {
		"patch": joined([parameter("ipPrefixes", []), only_ip("192.0.2.7")]),
		"want": {[2, "ip-address-outside-prefixes", "192.0.2.7", false, "address 192.0.2.7 is in none of the prefixes that Nodes may have: ask for others, or have the prefix added to the policy's parameter ipPrefixes"]},
	},
	"no names": {
		"patch": joined([dns([]), ips([])]),
		"want": {[2, "names-missing", "", false, "the request has no subject alternative name: add the DNS names or addresses of the Node"]},
	},
	"URI": {
		"patch": set_to("/pkcs10/uris", ["spiffe://example.com/x"]),
		"want": {[2, "uri-not-allowed", "spiffe://example.com/x", false, "URI \"spiffe://example.com/x\" is not allowed in a serving certificate: remove it"]},
	},
	"e-mail address": {
		"patch": set_to("/pkcs10/emailAddresses", ["root@example.com"]),
		"want": {[2, "email-not-allowed", "root@example.com", false, "e-mail address \"root@example.com\" is not allowed in a serving certificate: remove it"]},
	},
	"client auth": {
		"patch": usages(["digital signature", "server auth", "client auth"]),
		"want": {[2, "usage-not-allowed", "client auth", false, "usage \"client auth\" is not allowed: ask for digital signature, server auth and, if need be, key encipherment"]},
	},
	"usage only in the PKCS#10 request": {
		"patch": set_to("/pkcs10/usages", ["client auth"]),
		"want": {[2, "usage-not-allowed", "client auth", false, "usage \"client auth\" is not allowed: ask for digital signature, server auth and, if need be, key encipherment"]},
	},
	"only key encipherment": {
		"patch": usages(["key encipherment"]),
		"want": {
			[2, "usage-missing", "digital signature", false, "usage \"digital signature\" is missing: add it to spec.usages"],
			[2, "usage-missing", "server auth", false, "usage \"server auth\" is missing: add it to spec.usages"],
		},
	},
	"lifetime too long": {
		"patch": set_to("/request/expirationSeconds", 31536001),
		"want": {[2, "expiration-too-long", "31536001", false, "a lifetime of 31536001 seconds is not allowed: set spec.expirationSeconds to at most 31536000"]},
	},
	"every reason, not only the first": {
		"patch": joined([other_request(true), dns(["my-node", "a.example.com", "b.example.com"]), set_to("/pkcs10/subject/commonName", "x")]),
		"want": {
			[1, "key-used-by-another", "00", false, "another requester used this public key before: make a new key"],
			[2, "dns-name-not-owned", "a.example.com", false, "DNS name \"a.example.com\" does not belong to Node my-node, which reports my-node, my-node.example.com: ask for the names in status.addresses of the Node"],
			[2, "dns-name-not-owned", "b.example.com", false, "DNS name \"b.example.com\" does not belong to Node my-node, which reports my-node, my-node.example.com: ask for the names in status.addresses of the Node"],
			[2, "common-name-not-requester", "x", false, "common name \"x\" is not that of the requester: make it system:node:my-node"],
		},
	},
}

# The violations are exactly these, and no positive rule is true despite a violation. The rules
# do not read violations, so the test fails if either of the two is incomplete.
test_refused[note] if {
	some note, tc in cases
	got := evaluated(tc.patch)
	got.violations == tc.want
	requirements := {v[0] | some v in tc.want}
	every requirement in requirements {
		[got.controls, got.authorized][requirement - 1] == set()
	}
}

missing_prefixes := "the policy allows no address without its parameter ipPrefixes: have the networks of the Nodes added to it"

reserved(name) := sprintf("DNS name %q is never that of a Node: remove it from status.addresses of Node my-node", [name])

# The Node of another requester, or of one without the group of kubelets, is not evaluated.
test_node_of_another[note] if {
	some note, patch in {
		"without the group": set_to("/requester/groups", []),
		"another Node": joined([set_to("/requester/username", "system:node:other"), set_to("/pkcs10/subject/commonName", "system:node:other")]),
	}
	others := [had_by("my-node", ["other"]), had_by("my-node.example.com", ["other"]), had_by("192.0.2.7", ["other"])]
	got := evaluated(joined([patch, others]))
	count(got.violations) == 1
	evaluated(patch).authorized == set()
}

# Names that a Node reports, and that can never be its own.
test_reserved_name[name] if {
	some name in [
		"svc", "x.svc", "kubernetes.default.svc", "svc.", "x.svc.", "X.SVC",
		"pod", "10-0-34-2.my-namespace.pod",
		"cluster.local", "kubernetes.default.svc.cluster.local", "10-0-34-2.my-namespace.pod.cluster.local", "x.Cluster.Local.",
		"localhost", "x.localhost", "Localhost.",
		"kubernetes", "kubernetes.default", "Kubernetes.Default.",
	]
	got := evaluated(joined([reports([["Hostname", name]]), only_dns(name)]))
	got.authorized == set()
	got.violations == {[2, "dns-name-reserved", name, false, reserved(name)]}

	# A name that the Node does not report yet.
	later := evaluated(joined([reports([]), only_dns(name)]))
	{[v[1], v[3]] | some v in later.violations} == {["dns-name-not-owned", false]}
}

# Addresses that a Node reports, and that can never be its own.
test_reserved_address[ip] if {
	some ip in [
		"0.0.0.0", "0.255.255.255", "127.0.0.1", "127.255.255.255", "169.254.0.0", "169.254.169.254", "224.0.0.1", "239.255.255.255", "255.255.255.255",
		"::", "::1", "fe80::1", "febf::1", "ff02::1",
	]
	every_address := parameter("ipPrefixes", ["0.0.0.0/0", "::/0"])
	got := evaluated(joined([reports([["InternalIP", ip]]), only_ip(ip), every_address]))
	got.authorized == set()
	{[v[1], v[3]] | some v in got.violations} == {["ip-address-reserved", false]}
	later := evaluated(joined([reports([]), only_ip(ip), every_address]))
	{[v[1], v[3]] | some v in later.violations} == {["ip-address-not-owned", false]}
}

# Texts that are similar to a name of the Node, which reports my-node and worker.example.com. None is
# held, because no Node can report most of them.
test_look_alike[name] if {
	some name in {
		"wor\u212Aer.example.com",
		"worker.example.com..",
		".worker.example.com",
		"worker..example.com",
		"worker.example.com.example.org",
		"sub.worker.example.com",
		"worker.example",
		"example.com",
		"my-nod",
		"my-node\u0000.example.com",
		"my-node ",
		"my_node",
		"my-n\u043Ede",
		"xn--my-nde-k1g",
		"localhost",
		".",
		"",
	}
	got := evaluated(joined([reports([["Hostname", "my-node"], ["InternalDNS", "worker.example.com"]]), only_dns(name)]))
	got.authorized == set()
	{[v[1], v[2], v[3]] | some v in got.violations} == {["dns-name-not-owned", name, false]}
}

# Texts that cannot be DNS names are denied, although the Node reports no DNS name yet.
test_never_a_name[name] if {
	some name in ["wor\u212Aer", "my-node..", ".my-node", "a..b", "192.0.2.7", "192.0.2.7.", "2001:db8::7", ".", ""]
	got := evaluated(joined([reports([]), only_dns(name)]))
	got.authorized == set()
	{[v[1], v[2], v[3]] | some v in got.violations} == {["dns-name-not-owned", name, false]}
}

# Invalid parameters allow nothing, not even a request without an address.
test_prefixes_that_cannot_be_read[note] if {
	some note, value in {
		"text": "192.0.2.0/24",
		"an object": {"a": "192.0.2.0/24"},
		"a number in the list": ["192.0.2.0/24", 7],
		"an address in the list": ["192.0.2.7"],
		"nonsense in the list": ["192.0.2.0/24", "everything"],
		"false": false,
	}
	every patch in [[], only_dns("my-node")] {
		got := evaluated(joined([patch, parameter("ipPrefixes", value)]))
		got.authorized == set()
		got.violations == {[2, "prefixes-invalid", json.marshal(value), true, "the policy's parameter ipPrefixes is no list of CIDR prefixes: have it corrected"]}
	}
}

# A missing field never allows. The approver always sets all fields.
test_missing_field_never_allows[path] if {
	some path in [
		"/request", "/request/usages", "/request/expirationSeconds",
		"/requester", "/requester/username", "/requester/groups",
		"/pkcs10", "/pkcs10/dnsNames", "/pkcs10/ipAddresses", "/pkcs10/uris", "/pkcs10/emailAddresses", "/pkcs10/usages",
		"/pkcs10/subject", "/pkcs10/subject/commonName", "/pkcs10/subject/organizations",
		"/pkcs10/subject/organizationalUnits", "/pkcs10/subject/other",
		"/cluster", "/cluster/domain", "/cluster/resolved", "/cluster/subject", "/cluster/subject/node", "/cluster/subject/node/name",
		"/cluster/subject/node/deleting", "/cluster/subject/node/addresses", "/cluster/subject/node/addresses/1/type",
		"/cluster/subject/node/addresses/1/address", "/cluster/sameKey",
	]
	request := json.patch(example.node_request, [{"op": "remove", "path": path}])
	both := {[x, y] |
		x := kubelet_serving.subject_controls_key
		y := kubelet_serving.subject_is_authorized
	} with input as request
	both == set()
}
