# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

package countersign.spiffe_test

import rego.v2

import data.countersign.lib.example
import data.countersign.lib.example.joined
import data.countersign.lib.example.parameter
import data.countersign.lib.example.set_to
import data.countersign.spiffe

id := "spiffe://example.com/ns/my-namespace/sa/my-sa"

uris(list) := set_to("/pkcs10/uris", list)

usages(list) := set_to("/request/usages", list)

delegate := joined([
	set_to("/requester/pod", null),
	set_to("/requester/username", "jane"),
	set_to("/requester/serviceAccount", null),
])

other_request(earlier) := set_to("/cluster/sameKey", [{"name": "theirs", "username": "mallory", "createdAt": "2026-01-02T03:04:05Z", "earlier": earlier}])

# The result of each rule of the policy for a patched request.
evaluated(patch) := got if {
	got := results with input as json.patch(example.spiffe_request, patch)
}

results := {
	"controls": {x | x := spiffe.subject_controls_key},
	"authorized": {x | x := spiffe.subject_is_authorized},
	"violations": {[v.requirement, v.id, v.value, v.retryable, v.message] | some v in spiffe.violations},
}

test_allowed[note] if {
	some note, patch in {
		"the Pod's own ID": [],
		"another trust domain, which is the policy's": joined([parameter("trustDomain", "k8s_1.prod.example.com"), uris(["spiffe://k8s_1.prod.example.com/ns/my-namespace/sa/my-sa"])]),
		"trust domain of 255 bytes": joined([parameter("trustDomain", long(255)), uris([sprintf("spiffe://%s/ns/my-namespace/sa/my-sa", [long(255)])])]),
		"ServiceAccount with dots": joined([
			set_to("/cluster/subject/pod/serviceAccountName", "my.sa"),
			set_to("/requester/serviceAccount/name", "my.sa"),
			uris(["spiffe://example.com/ns/my-namespace/sa/my.sa"]),
		]),
		"only client auth": usages(["digital signature", "client auth"]),
		"only server auth": usages(["digital signature", "server auth"]),
		"key encipherment": usages(["digital signature", "key encipherment", "client auth"]),
		"usages of the PKCS#10 request": set_to("/pkcs10/usages", ["client auth"]),
		"longest lifetime": set_to("/request/expirationSeconds", 3600),
		"no lifetime asked for": set_to("/request/expirationSeconds", null),
		"Pod in the host network without an address": joined([set_to("/cluster/subject/pod/hostNetwork", true), set_to("/cluster/subject/pod/podIPs", [])]),
	}
	evaluated(patch) == {"controls": {true}, "authorized": {true}, "violations": set()}
}

long(n) := concat("", ["a" | some _ in numbers.range(1, n)])

not_owned(uri) := {[2, "spiffe-id-not-owned", uri, false, sprintf("URI %q is not the SPIFFE ID of Pod my-namespace/my-pod: ask for %s", [uri, id])]}

cases := {
	"Pod gone": {
		"patch": set_to("/cluster/subject/pod", null),
		"want": {[1, "pod-gone", "my-pod", false, "Pod my-pod, which made the request, does not exist any more: make a new request from the Pod that runs now"]},
	},
	"Pod replaced": {
		"patch": set_to("/cluster/subject/pod/uid", "new"),
		"want": {[1, "pod-replaced", "my-pod", false, "Pod my-namespace/my-pod was replaced since it made the request (its UID was 33333333-3333-4333-8333-333333333333 and is new now): make a new request from the Pod that runs now"]},
	},
	"token of a sibling ServiceAccount": {
		"patch": joined([set_to("/requester/serviceAccount/name", "sibling"), set_to("/requester/username", "system:serviceaccount:my-namespace:sibling"), uris(["spiffe://example.com/ns/my-namespace/sa/sibling"])]),
		"want": {[1, "service-account-mismatch", "system:serviceaccount:my-namespace:sibling", false, "Pod my-namespace/my-pod runs as ServiceAccount my-sa, but the requester is system:serviceaccount:my-namespace:sibling: use the token of the Pod's own ServiceAccount"]},
	},
	"delegate": {
		"patch": joined([delegate, set_to("/cluster/delegation/allowed", true)]),
		"want": {[1, "delegation-not-allowed", "jane", false, "requester jane is not bound to a Pod, and no one may ask for the SPIFFE ID of another: make the request from the Pod, with a token that is bound to it"]},
	},
	"ServiceAccount without a Pod": {
		"patch": joined([set_to("/requester/pod", null), set_to("/cluster/subject/pod", null)]),
		"want": {[1, "delegation-not-allowed", "system:serviceaccount:my-namespace:my-sa", false, "requester system:serviceaccount:my-namespace:my-sa is not bound to a Pod, and no one may ask for the SPIFFE ID of another: make the request from the Pod, with a token that is bound to it"]},
	},
	"kubelet": {
		"patch": joined([set_to("/requester", example.node_request.requester), set_to("/cluster/subject", example.node_request.cluster.subject)]),
		"want": {[1, "delegation-not-allowed", "system:node:my-node", false, "requester system:node:my-node is not bound to a Pod, and no one may ask for the SPIFFE ID of another: make the request from the Pod, with a token that is bound to it"]},
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
	"Pod being deleted": {
		"patch": set_to("/cluster/subject/pod/deleting", true),
		"want": {[2, "pod-deleting", "my-namespace/my-pod", false, "Pod my-namespace/my-pod is being deleted: make the request from the Pod that takes its place"]},
	},
	"no trust domain": {
		"patch": set_to("/parameters", {}),
		"want": {[2, "trust-domain-missing", "", true, "the policy's parameter trustDomain is not set: have it set to the name of the trust domain"]},
	},
	"no trust domain, and a URI that would fit an empty one": {
		"patch": joined([parameter("trustDomain", null), uris(["spiffe:///ns/my-namespace/sa/my-sa"])]),
		"want": {[2, "trust-domain-missing", "", true, "the policy's parameter trustDomain is not set: have it set to the name of the trust domain"]},
	},
	"no URI": {
		"patch": uris([]),
		"want": {[2, "spiffe-id-missing", "", false, "the request has no URI: add spiffe://example.com/ns/my-namespace/sa/my-sa"]},
	},
	"no URI and no trust domain": {
		"patch": joined([uris([]), set_to("/parameters", {})]),
		"want": {
			[2, "spiffe-id-missing", "", false, "the request has no URI: add the SPIFFE ID of the Pod"],
			[2, "trust-domain-missing", "", true, "the policy's parameter trustDomain is not set: have it set to the name of the trust domain"],
		},
	},
	"two URIs": {
		"patch": uris([id, "https://example.com/"]),
		"want": ({[2, "spiffe-id-not-single", "spiffe://example.com/ns/my-namespace/sa/my-sa, https://example.com/", false, "the request has 2 URIs: keep only spiffe://example.com/ns/my-namespace/sa/my-sa"]} | not_owned("https://example.com/")),
	},
	"its ID twice": {
		"patch": uris([id, id]),
		"want": {[2, "spiffe-id-not-single", "spiffe://example.com/ns/my-namespace/sa/my-sa, spiffe://example.com/ns/my-namespace/sa/my-sa", false, "the request has 2 URIs: keep only spiffe://example.com/ns/my-namespace/sa/my-sa"]},
	},
	"other names": {
		"patch": joined([
			set_to("/pkcs10/dnsNames", ["my-pod.my-namespace.pod.cluster.local"]),
			set_to("/pkcs10/ipAddresses", ["10.0.34.2"]),
			set_to("/pkcs10/emailAddresses", ["root@example.com"]),
		]),
		"want": {
			[2, "dns-name-not-allowed", "my-pod.my-namespace.pod.cluster.local", false, "DNS name \"my-pod.my-namespace.pod.cluster.local\" is not allowed beside a SPIFFE ID: remove it"],
			[2, "ip-address-not-allowed", "10.0.34.2", false, "address 10.0.34.2 is not allowed beside a SPIFFE ID: remove it"],
			[2, "email-not-allowed", "root@example.com", false, "e-mail address \"root@example.com\" is not allowed beside a SPIFFE ID: remove it"],
		},
	},
	"common name": {
		"patch": set_to("/pkcs10/subject/commonName", "system:serviceaccount:my-namespace:my-sa"),
		"want": {[2, "common-name-not-allowed", "system:serviceaccount:my-namespace:my-sa", false, "common name \"system:serviceaccount:my-namespace:my-sa\" is not allowed beside a SPIFFE ID: leave the subject empty"]},
	},
	"masters": {
		"patch": set_to("/pkcs10/subject/organizations", ["system:masters"]),
		"want": {[2, "organization-not-allowed", "system:masters", false, "organization \"system:masters\" is not allowed: remove it from the subject"]},
	},
	"other attributes": {
		"patch": joined([set_to("/pkcs10/subject/organizationalUnits", ["ops"]), set_to("/pkcs10/subject/other", [{"oid": "2.5.4.6", "value": "US"}])]),
		"want": {
			[2, "subject-attribute-not-allowed", "ops", false, "organizational unit \"ops\" is not allowed: remove it from the subject"],
			[2, "subject-attribute-not-allowed", "2.5.4.6", false, "subject attribute 2.5.4.6 (\"US\") is not allowed: remove it from the subject"],
		},
	},
	"cert sign": {
		"patch": usages(["digital signature", "server auth", "cert sign"]),
		"want": {[2, "usage-not-allowed", "cert sign", false, "usage \"cert sign\" is not allowed: ask only for client auth, digital signature, key encipherment, server auth"]},
	},
	"usage only in the PKCS#10 request": {
		"patch": set_to("/pkcs10/usages", ["code signing"]),
		"want": {[2, "usage-not-allowed", "code signing", false, "usage \"code signing\" is not allowed: ask only for client auth, digital signature, key encipherment, server auth"]},
	},
	"no digital signature": {
		"patch": usages(["key encipherment", "client auth"]),
		"want": {[2, "usage-missing", "digital signature", false, "usage \"digital signature\" is missing, which every X.509-SVID has: add it to spec.usages"]},
	},
	"neither client nor server auth": {
		"patch": usages(["digital signature"]),
		"want": {[2, "usage-missing", "client auth", false, "usages \"client auth\" and \"server auth\" are both missing: add to spec.usages what the Pod is to be, or both"]},
	},
	"lifetime too long": {
		"patch": set_to("/request/expirationSeconds", 3601),
		"want": {[2, "expiration-too-long", "3601", false, "a lifetime of 3601 seconds is not allowed: set spec.expirationSeconds to at most 3600"]},
	},
	"every reason, not only the first": {
		"patch": joined([other_request(true), uris(["spiffe://example.com/ns/my-namespace/sa/other"]), set_to("/pkcs10/subject/organizations", ["a", "b"])]),
		"want": ({
			[1, "key-used-by-another", "00", false, "another requester used this public key before: make a new key"],
			[2, "organization-not-allowed", "a", false, "organization \"a\" is not allowed: remove it from the subject"],
			[2, "organization-not-allowed", "b", false, "organization \"b\" is not allowed: remove it from the subject"],
		} | not_owned("spiffe://example.com/ns/my-namespace/sa/other")),
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

# A requester that is not the Pod has no ID, so neither requirement is met.
test_delegate_has_no_id[note] if {
	some note in {"delegate", "ServiceAccount without a Pod", "kubelet", "Pod replaced", "token of a sibling ServiceAccount"}
	got := evaluated(cases[note].patch)
	got.controls == set()
	got.authorized == set()
}

# IDs of other subjects, and URIs that parsers can confuse with the ID of the Pod.
test_other_id[uri] if {
	some uri in {
		"spiffe://example.org/ns/my-namespace/sa/my-sa",
		"spiffe://example.com.example.org/ns/my-namespace/sa/my-sa",
		"spiffe://sub.example.com/ns/my-namespace/sa/my-sa",
		"spiffe://example.com./ns/my-namespace/sa/my-sa",
		"spiffe://EXAMPLE.com/ns/my-namespace/sa/my-sa",
		"spiffe://example.com:443/ns/my-namespace/sa/my-sa",
		"spiffe://user@example.com/ns/my-namespace/sa/my-sa",
		"spiffe://example.com/ns/other/sa/my-sa",
		"spiffe://example.com/ns/my-namespace/sa/sibling",
		"spiffe://example.com/ns/my-namespace/sa/my-sa2",
		"spiffe://example.com/ns/my-namespace/sa/MY-SA",
		"spiffe://example.com/ns/my-namespace/sa/my-sa/",
		"spiffe://example.com/ns/my-namespace/sa/my-sa/admin",
		"spiffe://example.com/ns/my-namespace/sa/../sa/my-sa",
		"spiffe://example.com/ns/my-namespace/sa/./my-sa",
		"spiffe://example.com/ns/my-namespace/sa/my-sa/../sibling",
		"spiffe://example.com//ns/my-namespace/sa/my-sa",
		"spiffe://example.com/ns/my-namespace/sa/my%2Dsa",
		"spiffe://example.com/ns/my-namespace%2Fsa%2Fmy-sa",
		"spiffe://example.com/ns/my-namespace/sa/my-sa?",
		"spiffe://example.com/ns/my-namespace/sa/my-sa?a=b",
		"spiffe://example.com/ns/my-namespace/sa/my-sa#",
		"spiffe://example.com/ns/my-namespace/sa/my-sa#a",
		"spiffe://example.com/ns/my-namespace/sa/my-\u017Fa",
		"spiffe://example.com/ns/my-namespace/sa/my-sa\u0000",
		"spiffe://example.com/ns/my-namespace/sa/my-sa ",
		"SPIFFE://example.com/ns/my-namespace/sa/my-sa",
		"spiffe:/example.com/ns/my-namespace/sa/my-sa",
		"https://example.com/ns/my-namespace/sa/my-sa",
		"//example.com/ns/my-namespace/sa/my-sa",
		"spiffe://example.com",
		"spiffe://example.com/",
		"spiffe://example.com/*",
		"",
	}
	got := evaluated(uris([uri]))
	got.authorized == set()
	got.violations == not_owned(uri)
}

# An invalid trust domain allows nothing, not even a URI that repeats it.
test_trust_domain_that_is_none[note] if {
	some note, value in {
		"empty": "",
		"a URI": "spiffe://example.com",
		"a path": "example.com/ns/other",
		"a port": "example.com:443",
		"user information": "user@example.com",
		"upper case": "Example.com",
		"a percent sign": "example%2ecom",
		"a wildcard": "*.example.com",
		"a trailing dot": "example.com.",
		"a leading dot": ".example.com",
		"an empty label": "example..com",
		"a space": "example.com ",
		"a line break": "example.com\n",
		"the Kelvin sign": "\u212A8s.example.com",
		"256 bytes": long(256),
		"a number": 7,
		"a list": ["example.com"],
		"false": false,
	}
	got := evaluated(joined([parameter("trustDomain", value), uris([sprintf("spiffe://%v/ns/my-namespace/sa/my-sa", [value])])]))
	got.authorized == set()
	got.violations == {[2, "trust-domain-invalid", json.marshal(value), true, sprintf("the policy's parameter trustDomain is %s, which is no trust domain name: have it corrected, to a name such as example.com", [json.marshal(value)])]}
}

# A missing field never allows. The approver always sets all fields.
test_missing_field_never_allows[path] if {
	some path in [
		"/request", "/request/usages", "/request/expirationSeconds",
		"/requester", "/requester/pod", "/requester/pod/uid", "/requester/serviceAccount", "/requester/serviceAccount/namespace",
		"/requester/serviceAccount/name",
		"/pkcs10", "/pkcs10/dnsNames", "/pkcs10/ipAddresses", "/pkcs10/uris", "/pkcs10/emailAddresses", "/pkcs10/usages",
		"/pkcs10/subject", "/pkcs10/subject/commonName", "/pkcs10/subject/organizations",
		"/pkcs10/subject/organizationalUnits", "/pkcs10/subject/other",
		"/cluster", "/cluster/subject", "/cluster/subject/pod", "/cluster/subject/pod/uid", "/cluster/subject/pod/namespace",
		"/cluster/subject/pod/phase", "/cluster/subject/pod/deleting", "/cluster/subject/pod/serviceAccountName",
		"/cluster/subject/namespace", "/cluster/subject/namespace/deleting", "/cluster/sameKey",
		"/parameters", "/parameters/trustDomain",
	]
	request := json.patch(example.spiffe_request, [{"op": "remove", "path": path}])
	both := {[x, y] |
		x := spiffe.subject_controls_key
		y := spiffe.subject_is_authorized
	} with input as request
	both == set()
}
