# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# METADATA
# title: Inputs for tests
# description: >-
#   Documents with every key of the input. Each is a request that a shipped policy allows. A
#   test of a policy replaces the values of its case: json.patch(example.pod_request,
#   example.set_to("/cluster/subject/pod/deleting", true)). Policies do not use this package.
# scope: package
# schemas:
#   - input: schema.input
package countersign.lib.example

import rego.v2

# METADATA
# title: A Pod requests a serving certificate for itself and its Service
pod_request := {
	"request": {
		"kind": "CertificateSigningRequest",
		"name": "my-request",
		"namespace": "",
		"uid": "11111111-1111-4111-8111-111111111111",
		"signerName": "example.com/serving",
		"usages": ["digital signature", "key encipherment", "server auth"],
		"expirationSeconds": 3600,
		"createdAt": "2026-01-02T03:04:05Z",
	},
	"requester": {
		"username": "system:serviceaccount:my-namespace:my-sa",
		"uid": "22222222-2222-4222-8222-222222222222",
		"groups": ["system:serviceaccounts", "system:authenticated"],
		"serviceAccount": {"namespace": "my-namespace", "name": "my-sa"},
		"pod": {"name": "my-pod", "uid": "33333333-3333-4333-8333-333333333333"},
		"node": {"name": "my-node", "uid": "44444444-4444-4444-8444-444444444444"},
		"credentialID": "JTI=55555555-5555-4555-8555-555555555555",
	},
	"pkcs10": {
		"subject": {"commonName": "", "organizations": [], "organizationalUnits": [], "other": []},
		"dnsNames": ["my-svc.my-namespace.svc.cluster.local", "my-pod.my-namespace.pod.cluster.local"],
		"ipAddresses": ["10.0.34.2", "10.96.0.7"],
		"uris": [],
		"emailAddresses": [],
		"usages": [],
		"key": {"algorithm": "ECDSA", "bits": 256, "sha256": "00"},
	},
	"cluster": {
		"domain": "cluster.local",
		"subject": {
			"pod": {
				"name": "my-pod",
				"namespace": "my-namespace",
				"uid": "33333333-3333-4333-8333-333333333333",
				"labels": {"app": "api"},
				"podIPs": ["10.0.34.2"],
				"phase": "Running",
				"deleting": false,
				"hostNetwork": false,
				"hostname": "",
				"subdomain": "",
				"serviceAccountName": "my-sa",
				"nodeName": "my-node",
				"ready": true,
				"owners": [{"kind": "ReplicaSet", "name": "my-rs", "uid": "66666666-6666-4666-8666-666666666666", "controller": true}],
			},
			"serviceAccount": {"namespace": "my-namespace", "name": "my-sa"},
			"namespace": {"name": "my-namespace", "uid": "77777777-7777-4777-8777-777777777777", "labels": {}, "deleting": false},
			"services": [{
				"name": "my-svc",
				"namespace": "my-namespace",
				"uid": "88888888-8888-4888-8888-888888888888",
				"labels": {},
				"type": "ClusterIP",
				"selector": {"app": "api"},
				"clusterIPs": ["10.96.0.7"],
				"ports": [443],
				"deleting": false,
			}],
			"node": null,
			"candidates": 0,
		},
		"resolved": {"my-svc.my-namespace.svc.cluster.local": [{
			"kind": "Service",
			"namespace": "my-namespace",
			"name": "my-svc",
			"uid": "88888888-8888-4888-8888-888888888888",
			"selectsSubject": true,
			"detail": "Service my-namespace/my-svc selects Pod my-pod",
		}]},
		"delegation": {"allowed": false, "reason": "not reviewed"},
		"sameKey": [],
	},
	"parameters": {"maxExpirationSeconds": 86400, "defaultExpirationSeconds": 86400},
	"now": "2026-01-02T03:04:06Z",
}

# METADATA
# title: A Pod requests a client certificate with the username of its ServiceAccount
client_request := json.patch(pod_request, joined([
	set_to("/request/signerName", "example.com/client"),
	set_to("/request/usages", ["digital signature", "client auth"]),
	set_to("/pkcs10/subject/commonName", "system:serviceaccount:my-namespace:my-sa"),
	set_to("/pkcs10/dnsNames", ["my-pod.my-namespace.pod.cluster.local"]),
	set_to("/pkcs10/ipAddresses", ["10.0.34.2"]),
	set_to("/cluster/resolved", {}),
]))

# METADATA
# title: A Pod requests a certificate with its SPIFFE ID
spiffe_request := json.patch(pod_request, joined([
	set_to("/request/signerName", "example.com/spiffe"),
	set_to("/request/usages", ["digital signature", "server auth", "client auth"]),
	set_to("/pkcs10/dnsNames", []),
	set_to("/pkcs10/ipAddresses", []),
	set_to("/pkcs10/uris", ["spiffe://example.com/ns/my-namespace/sa/my-sa"]),
	set_to("/cluster/resolved", {}),
	set_to("/parameters", {"trustDomain": "example.com", "maxExpirationSeconds": 3600, "defaultExpirationSeconds": 3600}),
]))

# METADATA
# title: A kubelet requests its serving certificate
node_request := {
	"request": {
		"kind": "CertificateSigningRequest",
		"name": "csr-x7k2p",
		"namespace": "",
		"uid": "11111111-1111-4111-8111-111111111111",
		"signerName": "kubernetes.io/kubelet-serving",
		"usages": ["digital signature", "server auth"],
		"expirationSeconds": null,
		"createdAt": "2026-01-02T03:04:05Z",
	},
	"requester": {
		"username": "system:node:my-node",
		"uid": "",
		"groups": ["system:nodes", "system:authenticated"],
		"serviceAccount": null,
		"pod": null,
		"node": null,
		"credentialID": "",
	},
	"pkcs10": {
		"subject": {"commonName": "system:node:my-node", "organizations": ["system:nodes"], "organizationalUnits": [], "other": []},
		"dnsNames": ["my-node.example.com", "my-node"],
		"ipAddresses": ["192.0.2.7", "2001:db8::7"],
		"uris": [],
		"emailAddresses": [],
		"usages": [],
		"key": {"algorithm": "ECDSA", "bits": 256, "sha256": "00"},
	},
	"cluster": {
		"domain": "cluster.local",
		"subject": {
			"pod": null,
			"serviceAccount": null,
			"namespace": null,
			"services": [],
			"node": {
				"name": "my-node",
				"uid": "44444444-4444-4444-8444-444444444444",
				"labels": {"kubernetes.io/hostname": "my-node"},
				"deleting": false,
				"addresses": [
					{"type": "Hostname", "address": "my-node"},
					{"type": "InternalDNS", "address": "my-node.example.com"},
					{"type": "InternalIP", "address": "192.0.2.7"},
					{"type": "InternalIP", "address": "2001:db8::7"},
				],
			},
			"candidates": 0,
		},
		"resolved": {
			"my-node": [{"kind": "Node", "namespace": "", "name": "my-node", "uid": "44444444-4444-4444-8444-444444444444", "selectsSubject": false, "detail": "a Node has it"}],
			"my-node.example.com": [{"kind": "Node", "namespace": "", "name": "my-node", "uid": "44444444-4444-4444-8444-444444444444", "selectsSubject": false, "detail": "a Node has it"}],
			"192.0.2.7": [{"kind": "Node", "namespace": "", "name": "my-node", "uid": "44444444-4444-4444-8444-444444444444", "selectsSubject": false, "detail": "a Node has it"}],
			"2001:db8::7": [{"kind": "Node", "namespace": "", "name": "my-node", "uid": "44444444-4444-4444-8444-444444444444", "selectsSubject": false, "detail": "a Node has it"}],
		},
		"delegation": {"allowed": false, "reason": "not reviewed: the requester is a Node and acts for itself"},
		"sameKey": [],
	},
	"parameters": {
		"maxExpirationSeconds": 31536000,
		"defaultExpirationSeconds": 31536000,
		"ipPrefixes": ["192.0.2.0/24", "2001:db8::/64"],
	},
	"now": "2026-01-02T03:04:06Z",
}

# METADATA
# title: A patch that replaces a value
set_to(path, value) := [{"op": "replace", "path": path, "value": value}]

# METADATA
# title: A patch that sets a parameter
parameter(name, value) := [{"op": "add", "path": ["parameters", name], "value": value}]

# METADATA
# title: One patch that applies an array of patches in order
joined(patches) := [op | some patch in patches; some op in patch]
