# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

package countersign.pod_serving_test

import rego.v2

import data.countersign.lib.example
import data.countersign.lib.example.joined
import data.countersign.lib.example.set_to
import data.countersign.pod_serving

# An allowed request. Every case is a patch of it.
base := example.pod_request

# Patches that many cases share.
dns(name) := set_to("/pkcs10/dnsNames", [name])

ip(address) := array.concat(set_to("/pkcs10/dnsNames", []), set_to("/pkcs10/ipAddresses", [address]))

has(name, entry) := [{"op": "add", "path": ["cluster", "resolved", name], "value": [object.union({"kind": "Service", "namespace": "my-namespace", "name": "web", "uid": "99", "selectsSubject": false, "detail": "Service my-namespace/web selects app=web; Pod my-pod has app=api"}, entry)]}]

dns_only(name) := joined([dns(name), set_to("/pkcs10/ipAddresses", [])])

dashed := "10-0-34-2.my-namespace.pod.cluster.local"

# Another Pod has the name too.
shared(name) := [{"op": "add", "path": ["cluster", "resolved", name], "value": [
	{"kind": "Pod", "namespace": "my-namespace", "name": "my-pod", "uid": "33333333-3333-4333-8333-333333333333", "selectsSubject": true, "detail": "Pod my-namespace/my-pod has it"},
	{"kind": "Pod", "namespace": "other", "name": "theirs", "uid": "99", "selectsSubject": false, "detail": "a Pod of another namespace has it"},
]}]

delegate := array.concat(
	set_to("/requester/pod", null),
	array.concat(set_to("/requester/username", "jane"), set_to("/requester/serviceAccount", null)),
)

other_request(earlier) := set_to("/cluster/sameKey", [{"name": "theirs", "username": "mallory", "createdAt": "2026-01-02T03:04:05Z", "earlier": earlier}])

pending := set_to("/cluster/subject/pod/podIPs", [])

host := set_to("/cluster/subject/pod/hostNetwork", true)

# The result of each rule of the policy for a patched request.
evaluated(patch) := got if {
	got := results with input as json.patch(base, patch)
}

results := {
	"controls": {x | x := pod_serving.subject_controls_key},
	"authorized": {x | x := pod_serving.subject_is_authorized},
	"violations": {[v.requirement, v.id, v.value, v.retryable, v.message] | some v in pod_serving.violations},
}

test_allowed[note] if {
	some note, patch in {
		"names of the Pod and its Service": [],
		"every DNS name it owns": set_to("/pkcs10/dnsNames", [
			"my-svc.my-namespace.svc",
			"my-svc.my-namespace.svc.cluster.local",
			"10-0-34-2.my-namespace.pod.cluster.local",
			"my-pod.my-namespace.pod.cluster.local",
		]),
		"upper case": dns("My-SVC.my-namespace.svc.Cluster.Local"),
		"one of two in upper case": set_to("/pkcs10/dnsNames", ["my-svc.my-namespace.svc", "MY-POD.my-namespace.pod.cluster.local"]),
		"only an address": ip("10.0.34.2"),
		"short name by parameter": joined([dns("my-svc.my-namespace"), example.parameter("allowShortNames", true)]),
		"hostname and subdomain": joined([
			dns("web-0.my-svc.my-namespace.svc.cluster.local"),
			set_to("/cluster/subject/pod/hostname", "web-0"),
			set_to("/cluster/subject/pod/subdomain", "my-svc"),
		]),
		"common name is a DNS name in another case": set_to("/pkcs10/subject/commonName", "MY-SVC.my-namespace.svc.cluster.local"),
		"common name is an address": set_to("/pkcs10/subject/commonName", "10.0.34.2"),
		"client auth by parameter": joined([set_to("/request/usages", ["digital signature", "server auth", "client auth"]), example.parameter("allowClientAuth", true)]),
		"RSA key that only enciphers": joined([set_to("/request/usages", ["key encipherment", "server auth"]), set_to("/pkcs10/key/algorithm", "RSA")]),
		"usages of the PKCS#10 request": set_to("/pkcs10/usages", ["server auth", "digital signature"]),
		"no lifetime asked for": set_to("/request/expirationSeconds", null),
		"longest lifetime": set_to("/request/expirationSeconds", 86400),
		"no limit": joined([set_to("/request/expirationSeconds", 2000000000), set_to("/parameters", {})]),
		"Pod is on a Node that is unreachable": set_to("/cluster/subject/pod/phase", "Unknown"),
		"NodePort": set_to("/cluster/subject/services/0/type", "NodePort"),
		"LoadBalancer": set_to("/cluster/subject/services/0/type", "LoadBalancer"),
		"Pod address that a Node reports": joined([ip("10.0.34.2"), has("10.0.34.2", {"kind": "Node", "namespace": "", "detail": "a Node has it"})]),
		"Pod is pending": set_to("/cluster/subject/pod/phase", "Pending"),
		"address that only the Pod has": joined([ip("10.0.34.2"), [{"op": "add", "path": ["cluster", "resolved", "10.0.34.2"], "value": [{"kind": "Pod", "namespace": "my-namespace", "name": "my-pod", "uid": "33333333-3333-4333-8333-333333333333", "selectsSubject": true, "detail": "Pod my-namespace/my-pod has it"}]}]]),
		"hostname that another Pod has too": joined([
			dns("web-0.my-svc.my-namespace.svc.cluster.local"), shared("web-0.my-svc.my-namespace.svc.cluster.local"),
			set_to("/cluster/subject/pod/hostname", "web-0"), set_to("/cluster/subject/pod/subdomain", "my-svc"),
		]),
		"cluster IP that a Node reports": joined([ip("10.96.0.7"), has("10.96.0.7", {"kind": "Node", "namespace": ""})]),
		"Pod with a dot in its name": joined([set_to("/cluster/subject/pod/name", "10-0-34-3.x"), dns("10-0-34-3.x.my-namespace.pod.cluster.local")]),
		"host network, cluster IP of its Service": joined([host, ip("10.96.0.7")]),
		"delegate": joined([delegate, set_to("/cluster/delegation/allowed", true), set_to("/cluster/subject/candidates", 1)]),
	}
	evaluated(patch) == {"controls": {true}, "authorized": {true}, "violations": set()}
}

cases := {
	"Pod gone": {
		"patch": set_to("/cluster/subject/pod", null),
		"want": {[1, "pod-gone", "my-pod", false, "Pod my-pod, which made the request, does not exist any more: make a new request from the Pod that runs now"]},
	},
	"Pod replaced": {
		"patch": set_to("/cluster/subject/pod/uid", "new"),
		"want": {[1, "pod-replaced", "my-pod", false, "Pod my-namespace/my-pod was replaced since it made the request (its UID was 33333333-3333-4333-8333-333333333333 and is new now): make a new request from the Pod that runs now"]},
	},
	"Pod replaced, and names of no one: said once": {
		"patch": joined([
			set_to("/cluster/subject/pod/uid", "new"),
			set_to("/cluster/subject/pod/phase", "Failed"),
			set_to("/cluster/subject/pod/deleting", true),
			set_to("/cluster/subject/namespace/deleting", true),
			set_to("/pkcs10/dnsNames", ["evil.example.com"]),
			set_to("/pkcs10/ipAddresses", ["192.0.2.9"]),
		]),
		"want": {[1, "pod-replaced", "my-pod", false, "Pod my-namespace/my-pod was replaced since it made the request (its UID was 33333333-3333-4333-8333-333333333333 and is new now): make a new request from the Pod that runs now"]},
	},
	"other ServiceAccount": {
		"patch": set_to("/cluster/subject/pod/serviceAccountName", "root"),
		"want": {[1, "service-account-mismatch", "system:serviceaccount:my-namespace:my-sa", false, "Pod my-namespace/my-pod runs as ServiceAccount root, but the requester is system:serviceaccount:my-namespace:my-sa: use the token of the Pod's own ServiceAccount"]},
	},
	"ServiceAccount of another namespace": {
		"patch": set_to("/requester/serviceAccount/namespace", "other"),
		"want": {[1, "service-account-mismatch", "system:serviceaccount:my-namespace:my-sa", false, "Pod my-namespace/my-pod runs as ServiceAccount my-sa, but the requester is system:serviceaccount:my-namespace:my-sa: use the token of the Pod's own ServiceAccount"]},
	},
	"Pod claimed without a ServiceAccount": {
		"patch": joined([set_to("/requester/serviceAccount", null), set_to("/requester/username", "jane")]),
		"want": {[1, "service-account-mismatch", "jane", false, "Pod my-namespace/my-pod runs as ServiceAccount my-sa, but the requester is jane: use the token of the Pod's own ServiceAccount"]},
	},
	"no delegation, and no violation about the names": {
		"patch": joined([delegate, dns("web.my-namespace.svc"), has("web.my-namespace.svc", {})]),
		"want": {[1, "not-delegated", "jane", true, "requester jane is not bound to a Pod: use a token that is, or grant it the verb create on certificatesigningrequests/delegated (API group certificates.k8s.io) in the namespace of the Pod"]},
	},
	"delegation does not apply to a Pod": {
		"patch": joined([set_to("/cluster/delegation/allowed", true), set_to("/cluster/subject/pod", null)]),
		"want": {[1, "pod-gone", "my-pod", false, "Pod my-pod, which made the request, does not exist any more: make a new request from the Pod that runs now"]},
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
		"patch": joined([delegate, set_to("/cluster/subject/pod", null)]),
		"want": {[2, "subject-not-found", "", true, "no Pod has any of the names asked for, and requester jane is not bound to one: ask for the address of the Pod or for <pod>.<namespace>.pod.cluster.local"]},
	},
	"delegate, two Pods": {
		"patch": joined([delegate, set_to("/cluster/subject/pod", null), set_to("/cluster/subject/candidates", 2)]),
		"want": {[2, "subject-ambiguous", "", true, "the names asked for belong to several Pods, and requester jane is not bound to one: make a request for each Pod"]},
	},
	"Pod gone, and names of two others": {
		"patch": joined([set_to("/cluster/subject/pod", null), set_to("/cluster/subject/candidates", 2)]),
		"want": {[1, "pod-gone", "my-pod", false, "Pod my-pod, which made the request, does not exist any more: make a new request from the Pod that runs now"]},
	},
	"delegate, no names, two Pods": {
		"patch": joined([delegate, set_to("/cluster/subject/pod", null), set_to("/cluster/subject/candidates", 2), set_to("/pkcs10/dnsNames", []), set_to("/pkcs10/ipAddresses", [])]),
		"want": {[2, "names-missing", "", false, "the request has no subject alternative name: add the DNS names or addresses to serve on"]},
	},
	"delegate, no names": {
		"patch": joined([delegate, set_to("/cluster/subject/pod", null), set_to("/pkcs10/dnsNames", []), set_to("/pkcs10/ipAddresses", [])]),
		"want": {[2, "names-missing", "", false, "the request has no subject alternative name: add the DNS names or addresses to serve on"]},
	},
	"Pod finished": {
		"patch": set_to("/cluster/subject/pod/phase", "Succeeded"),
		"want": {[2, "pod-finished", "my-namespace/my-pod", false, "Pod my-namespace/my-pod is finished (phase Succeeded): make the request from a running Pod"]},
	},
	"Pod failed and being deleted": {
		"patch": joined([set_to("/cluster/subject/pod/phase", "Failed"), set_to("/cluster/subject/pod/deleting", true)]),
		"want": {
			[2, "pod-finished", "my-namespace/my-pod", false, "Pod my-namespace/my-pod is finished (phase Failed): make the request from a running Pod"],
			[2, "pod-deleting", "my-namespace/my-pod", false, "Pod my-namespace/my-pod is being deleted: make the request from the Pod that takes its place"],
		},
	},
	"namespace being deleted": {
		"patch": set_to("/cluster/subject/namespace/deleting", true),
		"want": {[2, "namespace-deleting", "my-namespace", false, "namespace my-namespace is being deleted: make the request from another one"]},
	},
	"namespace gone": {
		"patch": set_to("/cluster/subject/namespace", null),
		"want": {[2, "namespace-deleting", "my-namespace", false, "namespace my-namespace is being deleted: make the request from another one"]},
	},
	"wildcard": {
		"patch": dns("*.my-namespace.svc.cluster.local"),
		"want": {[2, "wildcard-not-allowed", "*.my-namespace.svc.cluster.local", false, "DNS name \"*.my-namespace.svc.cluster.local\" is a wildcard: ask for each name"]},
	},
	"Service of other Pods": {
		"patch": joined([dns("web.my-namespace.svc"), has("web.my-namespace.svc", {})]),
		"want": {[2, "dns-name-not-owned", "web.my-namespace.svc", false, "DNS name \"web.my-namespace.svc\" does not belong to Pod my-namespace/my-pod (Service my-namespace/web selects app=web; Pod my-pod has app=api): ask for names of the Pod, or of Services that select it"]},
	},
	"one of three, beside others as they are and in upper case": {
		"patch": set_to("/pkcs10/dnsNames", ["my-svc.my-namespace.svc", "MY-SVC.my-namespace.svc", "example.com"]),
		"want": {[2, "dns-name-not-owned", "example.com", false, "DNS name \"example.com\" does not belong to Pod my-namespace/my-pod: ask for names of the Pod, or of Services that select it"]},
	},
	"Service to come": {
		"patch": dns("web.my-namespace.svc.cluster.local"),
		"want": {[2, "dns-name-unknown", "web.my-namespace.svc.cluster.local", true, "DNS name \"web.my-namespace.svc.cluster.local\" does not belong to Pod my-namespace/my-pod yet: it does once Service my-namespace/web exists and selects it"]},
	},
	"Service to come, without the domain": {
		"patch": dns("Web.my-namespace.svc"),
		"want": {[2, "dns-name-unknown", "Web.my-namespace.svc", true, "DNS name \"Web.my-namespace.svc\" does not belong to Pod my-namespace/my-pod yet: it does once Service my-namespace/web exists and selects it"]},
	},
	"Service to come, short name by parameter": {
		"patch": joined([dns("web.my-namespace"), example.parameter("allowShortNames", true)]),
		"want": {[2, "dns-name-unknown", "web.my-namespace", true, "DNS name \"web.my-namespace\" does not belong to Pod my-namespace/my-pod yet: it does once Service my-namespace/web exists and selects it"]},
	},
	"Service of the subdomain to come": {
		"patch": joined([dns("web-0.web.my-namespace.svc.cluster.local"), set_to("/cluster/subject/pod/hostname", "web-0"), set_to("/cluster/subject/pod/subdomain", "web")]),
		"want": {[2, "dns-name-unknown", "web-0.web.my-namespace.svc.cluster.local", true, "DNS name \"web-0.web.my-namespace.svc.cluster.local\" does not belong to Pod my-namespace/my-pod yet: it does once Service my-namespace/web exists and selects it"]},
	},
	"Pod address to come": {
		"patch": joined([pending, set_to("/pkcs10/ipAddresses", []), dns("10-0-34-2.my-namespace.pod.cluster.local")]),
		"want": {[2, "dns-name-unknown", "10-0-34-2.my-namespace.pod.cluster.local", true, "DNS name \"10-0-34-2.my-namespace.pod.cluster.local\" does not belong to Pod my-namespace/my-pod yet: it does once it has that address"]},
	},
	"address of another": {
		"patch": joined([ip("10.0.34.3"), has("10.0.34.3", {"kind": "Pod", "detail": "Pod my-namespace/other has it"})]),
		"want": {[2, "ip-address-not-owned", "10.0.34.3", false, "address 10.0.34.3 does not belong to Pod my-namespace/my-pod (Pod my-namespace/other has it): ask for addresses of the Pod, or for cluster IPs of Services that select it"]},
	},
	"address of a Node, Pod has none yet": {
		"patch": joined([pending, ip("192.168.0.1"), has("192.168.0.1", {"kind": "Node", "namespace": "", "name": "my-node", "detail": "a Node has it"})]),
		"want": {[2, "ip-address-unknown", "192.168.0.1", true, "address 192.168.0.1 does not belong to Pod my-namespace/my-pod yet (a Node has it): the Pod has no address so far"]},
	},
	"address of a Pod that is being deleted, Pod has none yet": {
		"patch": joined([pending, ip("10.0.34.2"), has("10.0.34.2", {"kind": "Pod", "namespace": "other", "detail": "a Pod of another namespace has it"})]),
		"want": {[2, "ip-address-unknown", "10.0.34.2", true, "address 10.0.34.2 does not belong to Pod my-namespace/my-pod yet (a Pod of another namespace has it): the Pod has no address so far"]},
	},
	"address of a Service of another namespace, Pod has none yet": {
		"patch": joined([pending, ip("10.0.34.2"), has("10.0.34.2", {"namespace": "other", "detail": "a Service of another namespace has it"})]),
		"want": {[2, "ip-address-unknown", "10.0.34.2", true, "address 10.0.34.2 does not belong to Pod my-namespace/my-pod yet (a Service of another namespace has it): the Pod has no address so far"]},
	},
	"name with an address of another, Pod has none yet": {
		"patch": joined([pending, dns_only(dashed), has(dashed, {"kind": "Pod", "detail": "Pod my-namespace/other has it"})]),
		"want": {[2, "dns-name-unknown", dashed, true, "DNS name \"10-0-34-2.my-namespace.pod.cluster.local\" does not belong to Pod my-namespace/my-pod yet (Pod my-namespace/other has it): it does once it has that address"]},
	},
	"address that another Pod has too": {
		"patch": joined([ip("10.0.34.2"), shared("10.0.34.2")]),
		"want": {[2, "address-shared", "10.0.34.2", true, "10.0.34.2 does not belong to Pod my-namespace/my-pod alone (a Pod of another namespace has it): it does once no other Pod has this address"]},
	},
	"name with an address that another Pod has too": {
		"patch": joined([dns_only(dashed), shared(dashed)]),
		"want": {[2, "address-shared", dashed, true, "10-0-34-2.my-namespace.pod.cluster.local does not belong to Pod my-namespace/my-pod alone (a Pod of another namespace has it): it does once no other Pod has this address"]},
	},
	"name with an address that another Pod has too, in upper case": {
		"patch": joined([dns_only(upper(dashed)), shared(upper(dashed))]),
		"want": {[2, "address-shared", upper(dashed), true, "10-0-34-2.MY-NAMESPACE.POD.CLUSTER.LOCAL does not belong to Pod my-namespace/my-pod alone (a Pod of another namespace has it): it does once no other Pod has this address"]},
	},
	"address that another Pod has too, requester does not act for the Pod": {
		"patch": joined([ip("10.0.34.2"), shared("10.0.34.2"), delegate]),
		"want": {[1, "not-delegated", "jane", true, "requester jane is not bound to a Pod: use a token that is, or grant it the verb create on certificatesigningrequests/delegated (API group certificates.k8s.io) in the namespace of the Pod"]},
	},
	"no delegation for a Pod that the request names": {
		"patch": joined([delegate, dns("My-Pod.my-namespace.pod.cluster.local")]),
		"want": {[1, "not-delegated", "jane", false, "requester jane is not bound to a Pod: use a token that is, or grant it the verb create on certificatesigningrequests/delegated (API group certificates.k8s.io) in the namespace of the Pod"]},
	},
	"Service to come, a Pod with the hostname exists": {
		"patch": joined([
			dns("web-0.web.my-namespace.svc.cluster.local"), set_to("/cluster/subject/pod/hostname", "web-0"), set_to("/cluster/subject/pod/subdomain", "web"),
			has("web-0.web.my-namespace.svc.cluster.local", {"kind": "Pod", "detail": "Pod my-namespace/other has it"}),
		]),
		"want": {[2, "dns-name-unknown", "web-0.web.my-namespace.svc.cluster.local", true, "DNS name \"web-0.web.my-namespace.svc.cluster.local\" does not belong to Pod my-namespace/my-pod yet (Pod my-namespace/other has it): it does once Service my-namespace/web exists and selects it"]},
	},
	"Service that selects the Pod, and is of type ExternalName": {
		"patch": joined([
			dns("my-svc.my-namespace.svc"), set_to("/cluster/subject/services/0/type", "ExternalName"), set_to("/pkcs10/ipAddresses", []),
			has("my-svc.my-namespace.svc", {"uid": "88888888-8888-4888-8888-888888888888", "detail": "Service my-namespace/my-svc is of type ExternalName"}),
		]),
		"want": {[2, "dns-name-not-owned", "my-svc.my-namespace.svc", false, "DNS name \"my-svc.my-namespace.svc\" does not belong to Pod my-namespace/my-pod (Service my-namespace/my-svc is of type ExternalName): ask for names of the Pod, or of Services that select it"]},
	},
	"Service of other Pods, while another Service is being deleted": {
		"patch": joined([dns("web.my-namespace.svc"), has("web.my-namespace.svc", {}), set_to("/cluster/subject/services/0/deleting", true), set_to("/pkcs10/ipAddresses", [])]),
		"want": {[2, "dns-name-not-owned", "web.my-namespace.svc", false, "DNS name \"web.my-namespace.svc\" does not belong to Pod my-namespace/my-pod (Service my-namespace/web selects app=web; Pod my-pod has app=api): ask for names of the Pod, or of Services that select it"]},
	},
	"Service that is being deleted": {
		"patch": joined([
			dns("my-svc.my-namespace.svc"), set_to("/cluster/subject/services/0/deleting", true), set_to("/pkcs10/ipAddresses", []),
			has("my-svc.my-namespace.svc", {"uid": "88888888-8888-4888-8888-888888888888", "selectsSubject": true}),
		]),
		"want": {[2, "dns-name-unknown", "my-svc.my-namespace.svc", true, "DNS name \"my-svc.my-namespace.svc\" does not belong to Pod my-namespace/my-pod yet: it does once Service my-namespace/my-svc exists and selects it"]},
	},
	"address that nothing has": {
		"patch": ip("10.0.34.9"),
		"want": {[2, "ip-address-not-owned", "10.0.34.9", false, "address 10.0.34.9 does not belong to Pod my-namespace/my-pod: ask for addresses of the Pod, or for cluster IPs of Services that select it"]},
	},
	"address that nothing has, Pod has none yet": {
		"patch": joined([pending, ip("10.0.34.2")]),
		"want": {[2, "ip-address-unknown", "10.0.34.2", true, "address 10.0.34.2 does not belong to Pod my-namespace/my-pod yet: the Pod has no address so far"]},
	},
	"address of the Node of a host network Pod": {
		"patch": joined([host, ip("10.0.34.2")]),
		"want": {[2, "host-network-address", "10.0.34.2", false, "address 10.0.34.2 does not belong to Pod my-namespace/my-pod, which is in the host network and has the addresses of its Node: ask for DNS names, or for cluster IPs of Services that select it"]},
	},
	"no names": {
		"patch": joined([set_to("/pkcs10/dnsNames", []), set_to("/pkcs10/ipAddresses", [])]),
		"want": {[2, "names-missing", "", false, "the request has no subject alternative name: add the DNS names or addresses to serve on"]},
	},
	"URI": {
		"patch": set_to("/pkcs10/uris", ["spiffe://example.com/x"]),
		"want": {[2, "uri-not-allowed", "spiffe://example.com/x", false, "URI \"spiffe://example.com/x\" is not allowed in a serving certificate: remove it"]},
	},
	"e-mail address": {
		"patch": set_to("/pkcs10/emailAddresses", ["root@example.com"]),
		"want": {[2, "email-not-allowed", "root@example.com", false, "e-mail address \"root@example.com\" is not allowed in a serving certificate: remove it"]},
	},
	"common name of another": {
		"patch": set_to("/pkcs10/subject/commonName", "system:node:my-node"),
		"want": {[2, "common-name-not-requested", "system:node:my-node", false, "common name \"system:node:my-node\" is none of the subject alternative names: leave it empty, or make it one of them"]},
	},
	"organization": {
		"patch": set_to("/pkcs10/subject/organizations", ["system:masters"]),
		"want": {[2, "organization-not-allowed", "system:masters", false, "organization \"system:masters\" is not allowed: remove it from the subject"]},
	},
	"other attributes": {
		"patch": joined([set_to("/pkcs10/subject/organizationalUnits", ["ops"]), set_to("/pkcs10/subject/other", [{"oid": "2.5.4.6", "value": "XX"}])]),
		"want": {
			[2, "subject-attribute-not-allowed", "ops", false, "organizational unit \"ops\" is not allowed: remove it from the subject"],
			[2, "subject-attribute-not-allowed", "2.5.4.6", false, "subject attribute 2.5.4.6 (\"XX\") is not allowed: remove it from the subject"],
		},
	},
	"client auth": {
		"patch": set_to("/request/usages", ["digital signature", "server auth", "client auth"]),
		"want": {[2, "usage-not-allowed", "client auth", false, "usage \"client auth\" is not allowed: ask only for digital signature, key encipherment, server auth"]},
	},
	"client auth, parameter is not a boolean": {
		"patch": joined([set_to("/request/usages", ["digital signature", "server auth", "client auth"]), example.parameter("allowClientAuth", "true")]),
		"want": {[2, "usage-not-allowed", "client auth", false, "usage \"client auth\" is not allowed: ask only for digital signature, key encipherment, server auth"]},
	},
	"usage only in the PKCS#10 request": {
		"patch": set_to("/pkcs10/usages", ["cert sign"]),
		"want": {[2, "usage-not-allowed", "cert sign", false, "usage \"cert sign\" is not allowed: ask only for digital signature, key encipherment, server auth"]},
	},
	"no server auth": {
		"patch": set_to("/request/usages", ["digital signature"]),
		"want": {[2, "usage-missing", "server auth", false, "usage \"server auth\" is missing: add it to spec.usages"]},
	},
	"no key usage": {
		"patch": set_to("/request/usages", ["server auth"]),
		"want": {[2, "usage-missing", "digital signature", false, "usage \"digital signature\" is missing, without which a key of type ECDSA cannot serve: add it to spec.usages"]},
	},
	"no key usage, RSA": {
		"patch": joined([set_to("/request/usages", ["server auth"]), set_to("/pkcs10/key/algorithm", "RSA")]),
		"want": {[2, "usage-missing", "digital signature", false, "usage \"digital signature\" is missing, without which a key of type RSA cannot serve: add it to spec.usages"]},
	},
	"no key usage that fits the key": {
		"patch": set_to("/request/usages", ["key encipherment", "server auth"]),
		"want": {[2, "usage-missing", "digital signature", false, "usage \"digital signature\" is missing, without which a key of type ECDSA cannot serve: add it to spec.usages"]},
	},
	"lifetime too long": {
		"patch": set_to("/request/expirationSeconds", 86401),
		"want": {[2, "expiration-too-long", "86401", false, "a lifetime of 86401 seconds is not allowed: set spec.expirationSeconds to at most 86400"]},
	},
	"no lifetime asked for, and the signer's own is not known": {
		"patch": array.concat(example.set_to("/request/expirationSeconds", null), example.set_to("/parameters", {"maxExpirationSeconds": 86400})),
		"want": {[2, "expiration-missing", "", false, "no lifetime is asked for, and the signer's own may be longer than the policy allows: set spec.expirationSeconds to at most 86400"]},
	},
	"no lifetime asked for, and the signer's own is too long": {
		"patch": array.concat(example.set_to("/request/expirationSeconds", null), example.parameter("defaultExpirationSeconds", 86401)),
		"want": {[2, "expiration-missing", "", false, "no lifetime is asked for, and the signer's own may be longer than the policy allows: set spec.expirationSeconds to at most 86400"]},
	},
	# Every string is greater than every number in Rego.
	"limit is not a number": {
		"patch": example.parameter("maxExpirationSeconds", "1h"),
		"want": {[2, "expiration-too-long", "3600", false, "a lifetime of 3600 seconds is not allowed: set spec.expirationSeconds to at most 1h"]},
	},
	"no lifetime asked for, limit is not a number": {
		"patch": joined([set_to("/request/expirationSeconds", null), example.parameter("maxExpirationSeconds", "1h")]),
		"want": {[2, "expiration-missing", "", false, "no lifetime is asked for, and the signer's own may be longer than the policy allows: set spec.expirationSeconds to at most 1h"]},
	},
	"every reason, not only the first": {
		"patch": joined([dns("my-svc.my-namespace.svc"), other_request(true), set_to("/pkcs10/subject/organizations", ["a", "b"])]),
		"want": {
			[1, "key-used-by-another", "00", false, "another requester used this public key before: make a new key"],
			[2, "organization-not-allowed", "a", false, "organization \"a\" is not allowed: remove it from the subject"],
			[2, "organization-not-allowed", "b", false, "organization \"b\" is not allowed: remove it from the subject"],
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

# Delegation requires a requester without a Pod, and an existing Pod.
test_delegation_does_not_replace_the_subject[note] if {
	some note, patch in {
		"requester is a Pod that was replaced": set_to("/cluster/subject/pod/uid", "new"),
		"requester is a Pod of another ServiceAccount": set_to("/cluster/subject/pod/serviceAccountName", "root"),
		"no Pod": joined([delegate, set_to("/cluster/subject/pod", null)]),
	}
	got := evaluated(joined([set_to("/cluster/delegation/allowed", true), patch]))
	got.controls == set()
	count(got.violations) == 1
}

# The address in the request of a delegate can be that of another Pod, such as one that is being deleted.
# Violations of that Pod are not final, unless the request contains the name of the Pod.
test_delegate_of_another_pod[note] if {
	some note, tc in {
		"Pod is being deleted": {"patch": set_to("/cluster/subject/pod/deleting", true), "id": "pod-deleting"},
		"Pod is finished": {"patch": set_to("/cluster/subject/pod/phase", "Failed"), "id": "pod-finished"},
		"namespace is being deleted": {"patch": set_to("/cluster/subject/namespace/deleting", true), "id": "namespace-deleting"},
		"not delegated": {"patch": set_to("/cluster/delegation/allowed", false), "id": "not-delegated"},
		"name of another Pod": {"patch": [{"op": "add", "path": "/pkcs10/dnsNames/-", "value": "web.my-namespace.pod.cluster.local"}], "id": "dns-name-not-owned"},
		"address of another Pod": {"patch": [{"op": "add", "path": "/pkcs10/ipAddresses/-", "value": "10.0.34.3"}], "id": "ip-address-not-owned"},
		"host network": {"patch": joined([host, set_to("/pkcs10/ipAddresses", ["192.168.0.1"])]), "id": "host-network-address"},
	}
	every retryable, names in {true: [], false: ["my-pod.my-namespace.pod.cluster.local"]} {
		got := evaluated(joined([delegate, set_to("/cluster/delegation/allowed", true), set_to("/pkcs10/ipAddresses", ["10.0.34.2"]), set_to("/pkcs10/dnsNames", names), tc.patch]))
		{[v[1], v[3]] | some v in got.violations} == {[tc.id, retryable]}
	}
}

# Names that no later Service or address can give to the Pod. They are denied immediately.
test_never_owned[name] if {
	some name in {
		"example.com",
		"my-svc.other.svc.cluster.local",
		"other.my-namespace.pod.cluster.local",
		"10-0-34-3.my-namespace.pod.cluster.local",
		"my-svc.my-namespace.svc.cluster.local.",
		"my-svc.my-namespace.svc.cluster.local.example.com",
		"my-svc.my-namespace",
		"my-svc",
		"x.my-svc.my-namespace.svc.cluster.local",
		".my-namespace.svc.cluster.local",
		"-.my-namespace.svc",
		"my-namespace.svc.cluster.local",
		"cluster.local",
		"wor\u212Aer.my-namespace.svc",
		"my-svc.my-namespace.svc.cluster.loca\u217C",
		"my-svc.my-namespace.svc\u0000.example.com",
		"localhost",
		"",
	}
	got := evaluated(dns(name))
	got.authorized == set()
	got.violations == {[2, "dns-name-not-owned", name, false, sprintf("DNS name %q does not belong to Pod my-namespace/my-pod: ask for names of the Pod, or of Services that select it", [name])]}
}

# A Pod with the name or the hostname of another address does not own it.
test_named_like_an_address[note] if {
	some note, tc in {
		"Pod": {"patch": set_to("/cluster/subject/pod/name", "10-0-34-3"), "name": "10-0-34-3.my-namespace.pod.cluster.local"},
		"last label of the Pod": {"patch": set_to("/cluster/subject/pod/name", "x.10-0-34-3"), "name": "x.10-0-34-3.my-namespace.pod.cluster.local"},
		"last label of the Pod, IPv6": {"patch": set_to("/cluster/subject/pod/name", "x.fd00--5"), "name": "x.fd00--5.my-namespace.pod.cluster.local"},
		"hostname": {
			"patch": joined([set_to("/cluster/subject/pod/hostname", "10-0-34-3"), set_to("/cluster/subject/pod/subdomain", "my-svc")]),
			"name": "10-0-34-3.my-svc.my-namespace.svc.cluster.local",
		},
		"hostname, Service to come": {
			"patch": joined([set_to("/cluster/subject/pod/hostname", "10-0-34-3"), set_to("/cluster/subject/pod/subdomain", "web")]),
			"name": "10-0-34-3.web.my-namespace.svc.cluster.local",
		},
		"none, Pod without address": {"patch": pending, "name": "other.my-namespace.pod.cluster.local"},
		"host network Pod without address": {"patch": joined([host, pending, set_to("/pkcs10/ipAddresses", [])]), "name": "10-0-34-3.my-namespace.pod.cluster.local"},
	}
	got := evaluated(joined([tc.patch, set_to("/pkcs10/ipAddresses", []), dns(tc.name)]))
	got.authorized == set()
	{[v[1], v[2], v[3]] | some v in got.violations} == {["dns-name-not-owned", tc.name, false]}
}

# A missing field never allows. The approver always sets all fields.
test_missing_field_never_allows[path] if {
	some path in [
		"/request/usages", "/request/expirationSeconds", "/request",
		"/requester/pod", "/requester/pod/uid", "/requester/serviceAccount", "/requester",
		"/pkcs10/dnsNames", "/pkcs10/ipAddresses", "/pkcs10/uris", "/pkcs10/emailAddresses", "/pkcs10/usages",
		"/pkcs10/subject", "/pkcs10/subject/commonName", "/pkcs10/subject/organizations",
		"/pkcs10/subject/organizationalUnits", "/pkcs10/subject/other", "/pkcs10",
		"/cluster/domain", "/cluster/subject", "/cluster/subject/pod", "/cluster/subject/pod/uid",
		"/cluster/subject/pod/phase", "/cluster/subject/pod/deleting", "/cluster/subject/pod/hostNetwork",
		"/cluster/subject/pod/podIPs", "/cluster/subject/pod/serviceAccountName", "/cluster/subject/namespace",
		"/cluster/subject/services", "/cluster/sameKey", "/cluster/resolved", "/cluster",
	]
	request := json.patch(base, [{"op": "remove", "path": path}])
	both := {[x, y] |
		x := pod_serving.subject_controls_key
		y := pod_serving.subject_is_authorized
	} with input as request
	both == set()
}

# A name that is requested twice is reported once.
test_each_name_once if {
	got := evaluated(set_to("/pkcs10/dnsNames", ["example.com", "example.com", "example.org"]))
	{[v[1], v[2]] | some v in got.violations} == {["dns-name-not-owned", "example.com"], ["dns-name-not-owned", "example.org"]}
	count(got.violations) == 2
}
