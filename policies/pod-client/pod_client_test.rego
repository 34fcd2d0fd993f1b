# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

package countersign.pod_client_test

import rego.v2

import data.countersign.lib.example
import data.countersign.lib.example.joined
import data.countersign.lib.example.parameter
import data.countersign.lib.example.set_to
import data.countersign.pod_client

username := "system:serviceaccount:my-namespace:my-sa"

named(common_name, dns_names, addresses) := joined([
	set_to("/pkcs10/subject/commonName", common_name),
	set_to("/pkcs10/dnsNames", dns_names),
	set_to("/pkcs10/ipAddresses", addresses),
])

usages(list) := set_to("/request/usages", list)

delegate := joined([
	set_to("/requester/pod", null),
	set_to("/requester/username", "jane"),
	set_to("/requester/serviceAccount", null),
])

delegated := joined([delegate, set_to("/cluster/delegation/allowed", true), set_to("/cluster/subject/candidates", 1)])

no_pod := set_to("/cluster/subject/pod", null)

other_request(earlier) := set_to("/cluster/sameKey", [{"name": "theirs", "username": "mallory", "createdAt": "2026-01-02T03:04:05Z", "earlier": earlier}])

# The result of each rule of the policy for a patched request.
evaluated(patch) := got if {
	got := results with input as json.patch(example.client_request, patch)
}

results := {
	"controls": {x | x := pod_client.subject_controls_key},
	"authorized": {x | x := pod_client.subject_is_authorized},
	"violations": {[v.requirement, v.id, v.value, v.retryable, v.message] | some v in pod_client.violations},
}

test_allowed[note] if {
	some note, patch in {
		"username, DNS name and address": [],
		"only the username": named(username, [], []),
		"only a DNS name": named("", ["my-svc.my-namespace.svc"], []),
		"only an IPv4 address": named("", [], ["10.0.34.2"]),
		"dual stack": joined([named("", [], ["10.0.34.2", "fd00:10::5"]), set_to("/cluster/subject/pod/podIPs", ["10.0.34.2", "fd00:10::5"])]),
		"common name is a DNS name in another case": named("My-Pod.my-namespace.pod.cluster.local", ["my-pod.my-namespace.pod.cluster.local"], []),
		"common name is an address": named("10.0.34.2", [], ["10.0.34.2"]),
		"short name by parameter": joined([named("", ["my-svc.my-namespace"], []), parameter("allowShortNames", true)]),
		"key encipherment": usages(["digital signature", "key encipherment", "client auth"]),
		"usages of the PKCS#10 request": set_to("/pkcs10/usages", ["client auth"]),
		"longest lifetime": set_to("/request/expirationSeconds", 86400),
		"no lifetime asked for": set_to("/request/expirationSeconds", null),
		"host network, only the username": joined([named(username, [], []), set_to("/cluster/subject/pod/hostNetwork", true)]),
		"delegate, username of the Pod it asks for": delegated,
	}
	evaluated(patch) == {"controls": {true}, "authorized": {true}, "violations": set()}
}

not_owned(common_name) := {[2, "common-name-not-owned", common_name, false, sprintf("common name %q does not belong to Pod my-namespace/my-pod: make it system:serviceaccount:my-namespace:my-sa or one of the subject alternative names, or leave it empty", [common_name])]}

cases := {
	"Pod gone": {
		"patch": no_pod,
		"want": {[1, "pod-gone", "my-pod", false, "Pod my-pod, which made the request, does not exist any more: make a new request from the Pod that runs now"]},
	},
	"Pod gone, only the username": {
		"patch": joined([no_pod, named(username, [], [])]),
		"want": {[1, "pod-gone", "my-pod", false, "Pod my-pod, which made the request, does not exist any more: make a new request from the Pod that runs now"]},
	},
	"sibling of the same ServiceAccount took the name": {
		"patch": set_to("/cluster/subject/pod/uid", "new"),
		"want": {[1, "pod-replaced", "my-pod", false, "Pod my-namespace/my-pod was replaced since it made the request (its UID was 33333333-3333-4333-8333-333333333333 and is new now): make a new request from the Pod that runs now"]},
	},
	"sibling ServiceAccount": {
		"patch": set_to("/requester/serviceAccount/name", "sibling"),
		"want": {[1, "service-account-mismatch", username, false, "Pod my-namespace/my-pod runs as ServiceAccount my-sa, but the requester is system:serviceaccount:my-namespace:my-sa: use the token of the Pod's own ServiceAccount"]},
	},
	"no delegation, and no violation about the names": {
		"patch": joined([delegate, named("x", ["web.my-namespace.svc"], [])]),
		"want": {[1, "not-delegated", "jane", true, "requester jane is not bound to a Pod: use a token that is, or grant it the verb create on certificatesigningrequests/delegated (API group certificates.k8s.io) in the namespace of the Pod"]},
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
	"delegate, no Pod": {
		"patch": joined([delegate, no_pod]),
		"want": {[2, "subject-not-found", "", true, "no Pod has any of the names asked for, and requester jane is not bound to one: ask for the address of the Pod or for <pod>.<namespace>.pod.cluster.local"]},
	},
	"delegate, only a username": {
		"patch": joined([delegate, no_pod, named(username, [], [])]),
		"want": {[2, "subject-not-named", "jane", false, "requester jane is not bound to a Pod, and no DNS name or address says which Pod it asks for: add one of the Pod"]},
	},
	"delegate, no name at all": {
		"patch": joined([delegate, no_pod, named("", [], [])]),
		"want": {[2, "names-missing", "", false, "the request names no one: add the username of the ServiceAccount as common name, or DNS names or addresses of the Pod"]},
	},
	"delegate, username of another Pod's ServiceAccount": {
		"patch": joined([delegated, set_to("/pkcs10/subject/commonName", "system:serviceaccount:my-namespace:other")]),
		"want": not_owned("system:serviceaccount:my-namespace:other"),
	},
	"delegate, common name that another Pod with the address can have": {
		"patch": joined([delegated, named("system:serviceaccount:my-namespace:other", [], ["10.0.34.2"])]),
		"want": {[v[0], v[1], v[2], true, v[4]] | some v in not_owned("system:serviceaccount:my-namespace:other")},
	},
	"Pod failed": {
		"patch": set_to("/cluster/subject/pod/phase", "Failed"),
		"want": {[2, "pod-finished", "my-namespace/my-pod", false, "Pod my-namespace/my-pod is finished (phase Failed): make the request from a running Pod"]},
	},
	"no name at all": {
		"patch": named("", [], []),
		"want": {[2, "names-missing", "", false, "the request names no one: add the username of the ServiceAccount as common name, or DNS names or addresses of the Pod"]},
	},
	"name of another": {
		"patch": named(username, ["my-svc.other.svc"], []),
		"want": {[2, "dns-name-not-owned", "my-svc.other.svc", false, "DNS name \"my-svc.other.svc\" does not belong to Pod my-namespace/my-pod: ask for names of the Pod, or of Services that select it"]},
	},
	"address of another": {
		"patch": named(username, [], ["10.0.34.3"]),
		"want": {[2, "ip-address-not-owned", "10.0.34.3", false, "address 10.0.34.3 does not belong to Pod my-namespace/my-pod: ask for addresses of the Pod, or for cluster IPs of Services that select it"]},
	},
	"address that the Pod has not yet": {
		"patch": joined([named(username, [], ["10.0.34.2"]), set_to("/cluster/subject/pod/podIPs", [])]),
		"want": {[2, "ip-address-unknown", "10.0.34.2", true, "address 10.0.34.2 does not belong to Pod my-namespace/my-pod yet: the Pod has no address so far"]},
	},
	"wildcard": {
		"patch": named(username, ["*.my-namespace.svc"], []),
		"want": {[2, "wildcard-not-allowed", "*.my-namespace.svc", false, "DNS name \"*.my-namespace.svc\" is a wildcard: ask for each name"]},
	},
	"short name without the parameter": {
		"patch": named(username, ["my-svc.my-namespace"], []),
		"want": {[2, "dns-name-not-owned", "my-svc.my-namespace", false, "DNS name \"my-svc.my-namespace\" does not belong to Pod my-namespace/my-pod: ask for names of the Pod, or of Services that select it"]},
	},
	"masters": {
		"patch": set_to("/pkcs10/subject/organizations", ["system:masters"]),
		"want": {[2, "organization-not-allowed", "system:masters", false, "organization \"system:masters\" is not allowed: remove it from the subject"]},
	},
	"groups of the ServiceAccount, though it is in them": {
		"patch": set_to("/pkcs10/subject/organizations", ["system:serviceaccounts"]),
		"want": {[2, "organization-not-allowed", "system:serviceaccounts", false, "organization \"system:serviceaccounts\" is not allowed: remove it from the subject"]},
	},
	"other attributes": {
		"patch": joined([set_to("/pkcs10/subject/organizationalUnits", ["ops"]), set_to("/pkcs10/subject/other", [{"oid": "0.9.2342.19200300.100.1.1", "value": "admin"}])]),
		"want": {
			[2, "subject-attribute-not-allowed", "ops", false, "organizational unit \"ops\" is not allowed: remove it from the subject"],
			[2, "subject-attribute-not-allowed", "0.9.2342.19200300.100.1.1", false, "subject attribute 0.9.2342.19200300.100.1.1 (\"admin\") is not allowed: remove it from the subject"],
		},
	},
	"URI": {
		"patch": set_to("/pkcs10/uris", ["spiffe://example.com/ns/my-namespace/sa/my-sa"]),
		"want": {[2, "uri-not-allowed", "spiffe://example.com/ns/my-namespace/sa/my-sa", false, "URI \"spiffe://example.com/ns/my-namespace/sa/my-sa\" is not allowed in a client certificate: remove it"]},
	},
	"e-mail address": {
		"patch": set_to("/pkcs10/emailAddresses", ["root@example.com"]),
		"want": {[2, "email-not-allowed", "root@example.com", false, "e-mail address \"root@example.com\" is not allowed in a client certificate: remove it"]},
	},
	"server auth": {
		"patch": usages(["digital signature", "client auth", "server auth"]),
		"want": {[2, "usage-not-allowed", "server auth", false, "usage \"server auth\" is not allowed: ask only for client auth, digital signature, key encipherment"]},
	},
	"usage only in the PKCS#10 request": {
		"patch": set_to("/pkcs10/usages", ["server auth"]),
		"want": {[2, "usage-not-allowed", "server auth", false, "usage \"server auth\" is not allowed: ask only for client auth, digital signature, key encipherment"]},
	},
	"no client auth": {
		"patch": usages(["digital signature"]),
		"want": {[2, "usage-missing", "client auth", false, "usage \"client auth\" is missing, without which the certificate is of no use to a client: add it to spec.usages"]},
	},
	"RSA key that only enciphers": {
		"patch": joined([usages(["key encipherment", "client auth"]), set_to("/pkcs10/key/algorithm", "RSA")]),
		"want": {[2, "usage-missing", "digital signature", false, "usage \"digital signature\" is missing, without which the certificate is of no use to a client: add it to spec.usages"]},
	},
	"lifetime too long": {
		"patch": set_to("/request/expirationSeconds", 86401),
		"want": {[2, "expiration-too-long", "86401", false, "a lifetime of 86401 seconds is not allowed: set spec.expirationSeconds to at most 86400"]},
	},
	"every reason, not only the first": {
		"patch": joined([named("system:admin", ["a.example.com"], []), other_request(true)]),
		"want": ({
			[1, "key-used-by-another", "00", false, "another requester used this public key before: make a new key"],
			[2, "dns-name-not-owned", "a.example.com", false, "DNS name \"a.example.com\" does not belong to Pod my-namespace/my-pod: ask for names of the Pod, or of Services that select it"],
		} | not_owned("system:admin")),
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

# Usernames of other subjects, and texts that are similar to the Pod's username.
test_common_name_of_another[name] if {
	some name in {
		"system:serviceaccount:my-namespace:other",
		"system:serviceaccount:other:my-sa",
		"system:serviceaccount:my-namespace:my-sa:",
		"system:serviceaccount:my-namespace:",
		"system:serviceaccount:my-namespace",
		"System:ServiceAccount:my-namespace:my-sa",
		"system:serviceaccount:my-namespace:MY-SA",
		" system:serviceaccount:my-namespace:my-sa",
		"system:serviceaccount:my-namespace:my-sa ",
		"system:\u017Ferviceaccount:my-namespace:my-sa",
		"system:serviceaccount:my-namespace:my-sa\u0000",
		"system:node:my-node",
		"system:admin",
		"system:masters",
		"kubernetes-admin",
		"my-sa",
		"my-pod",
	}
	got := evaluated(set_to("/pkcs10/subject/commonName", name))
	got.authorized == set()
	got.violations == not_owned(name)
}

# U+212A is the Kelvin sign. Its lower case is the letter k.
test_look_alike_of_a_name[name] if {
	some name in [
		"wor\u212Aer.my-namespace.pod.cluster.local",
		"worker.my-namespace.pod.cluster.local.",
		"worker.my-namespace.pod.cluster.local.example.com",
	]
	got := evaluated(joined([set_to("/cluster/subject/pod/name", "worker"), named("", [name], [])]))
	got.authorized == set()
	{[v[1], v[2], v[3]] | some v in got.violations} == {["dns-name-not-owned", name, false]}
}

# A missing field never allows. The approver always sets all fields.
test_missing_field_never_allows[path] if {
	some path in [
		"/request", "/request/usages", "/request/expirationSeconds",
		"/requester", "/requester/pod", "/requester/pod/uid", "/requester/serviceAccount", "/requester/serviceAccount/name",
		"/pkcs10", "/pkcs10/dnsNames", "/pkcs10/ipAddresses", "/pkcs10/uris", "/pkcs10/emailAddresses", "/pkcs10/usages",
		"/pkcs10/subject", "/pkcs10/subject/commonName", "/pkcs10/subject/organizations",
		"/pkcs10/subject/organizationalUnits", "/pkcs10/subject/other",
		"/cluster", "/cluster/domain", "/cluster/subject", "/cluster/subject/pod", "/cluster/subject/pod/uid",
		"/cluster/subject/pod/namespace", "/cluster/subject/pod/phase", "/cluster/subject/pod/deleting",
		"/cluster/subject/pod/hostNetwork", "/cluster/subject/pod/podIPs", "/cluster/subject/pod/serviceAccountName",
		"/cluster/subject/namespace", "/cluster/sameKey",
	]
	request := json.patch(example.client_request, [{"op": "remove", "path": path}])
	both := {[x, y] |
		x := pod_client.subject_controls_key
		y := pod_client.subject_is_authorized
	} with input as request
	both == set()
}
