# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

package countersign.lib.names_test

import rego.v2

import data.countersign.lib.names

pod := {
	"name": "my-pod",
	"namespace": "my-namespace",
	"podIPs": ["10.0.34.2", "fd00:10::5"],
	"hostNetwork": false,
	"hostname": "",
	"subdomain": "",
}

service := {
	"name": "web",
	"namespace": "my-namespace",
	"type": "ClusterIP",
	"selector": {"app": "web"},
	"clusterIPs": ["10.96.0.7"],
	"deleting": false,
}

cluster(p, services) := {"domain": "cluster.local", "subject": {"pod": object.union(pod, p), "services": services}}

pod_names := {
	"my-pod.my-namespace.pod.cluster.local",
	"10-0-34-2.my-namespace.pod.cluster.local",
	"fd00-10--5.my-namespace.pod.cluster.local",
}

service_names := {"web.my-namespace.svc.cluster.local", "web.my-namespace.svc"}

test_pod_without_services if {
	names.dns_names == pod_names with input.cluster as cluster({}, [])
	names.short_dns_names == set() with input.cluster as cluster({}, [])
	names.ip_addresses == {"10.0.34.2", "fd00:10::5"} with input.cluster as cluster({}, [])
}

test_service if {
	names.dns_names == pod_names | service_names with input.cluster as cluster({}, [service])
	names.short_dns_names == {"web.my-namespace"} with input.cluster as cluster({}, [service])
	names.ip_addresses == {"10.0.34.2", "fd00:10::5", "10.96.0.7"} with input.cluster as cluster({}, [service])
}

test_headless_service if {
	headless := object.union(service, {"clusterIPs": ["None"]})
	names.dns_names == pod_names | service_names with input.cluster as cluster({}, [headless])
	names.ip_addresses == {"10.0.34.2", "fd00:10::5"} with input.cluster as cluster({}, [headless])
}

# object.union merges objects, so object.remove is required for a Service without a selector.
test_service_that_lends_nothing[note] if {
	some note, other in {
		"ExternalName": object.union(service, {"type": "ExternalName"}),
		"type unknown": object.union(service, {"type": ""}),
		"no selector": object.union(object.remove(service, ["selector"]), {"selector": {}}),
		"deleting": object.union(service, {"deleting": true}),
		"another namespace": object.union(service, {"namespace": "other"}),
		"a field is missing": object.remove(service, ["deleting"]),
	}
	names.dns_names == pod_names with input.cluster as cluster({}, [other])
	names.ip_addresses == {"10.0.34.2", "fd00:10::5"} with input.cluster as cluster({}, [other])
}

test_kubernetes_service_is_api_servers if {
	kubernetes := object.union(service, {"name": "kubernetes", "namespace": "default"})
	names.services == set() with input.cluster as cluster({"namespace": "default"}, [kubernetes])
}

test_other_service_of_default if {
	other := object.union(service, {"namespace": "default"})
	names.services == {other} with input.cluster as cluster({"namespace": "default"}, [other])
}

test_service_called_kubernetes_elsewhere if {
	kubernetes := object.union(service, {"name": "kubernetes"})
	names.services == {kubernetes} with input.cluster as cluster({}, [kubernetes])
}

test_host_network_pod_has_no_address if {
	host := cluster({"hostNetwork": true}, [])
	names.ip_addresses == set() with input.cluster as host
	names.dns_names == {"my-pod.my-namespace.pod.cluster.local"} with input.cluster as host
}

test_no_pod if {
	none := {"domain": "cluster.local", "subject": {"pod": null, "services": [service]}}
	names.dns_names == set() with input.cluster as none
	names.ip_addresses == set() with input.cluster as none
}

test_hostname_and_subdomain if {
	named := cluster({"hostname": "web-0", "subdomain": "web"}, [service])
	names.dns_names == (pod_names | service_names) | {"web-0.web.my-namespace.svc.cluster.local"} with input.cluster as named
}

test_hostname_without_effect[note] if {
	some note, p in {
		"no Service of the subdomain's name": {"hostname": "web-0", "subdomain": "db"},
		"no hostname": {"hostname": "", "subdomain": "web"},
		"no subdomain": {"hostname": "web-0", "subdomain": ""},
		"hostname like the address of another Pod": {"hostname": "10-0-34-3", "subdomain": "web"},
	}
	names.dns_names == pod_names | service_names with input.cluster as cluster(p, [service])
}

test_pod_named_like_an_address_of_another if {
	named := cluster({"name": "10-0-34-3", "podIPs": []}, [])
	names.dns_names == set() with input.cluster as named
}

test_looks_like_address[label] if {
	some label, want in {
		"10-0-34-2": true,
		"999-0-0-1": true,
		"fd00-10--5": true,
		"2001-db8-0-0-0-0-0-1": true,
		"cafe--1": true,
		"my-pod": false,
		"10-0-34": false,
		"10-0-34-2-1": false,
		"web-0": false,
		"web--0": false,
		"deadbeef": false,
		"a-b-c-d-e-f-0": false,
	}
	got := {true | names.looks_like_address(label)}
	got == {true | want}
}

test_fold if {
	names.fold("Web.My-Namespace.SVC") == "web.my-namespace.svc"
	names.fold("fd00:10::5") == "fd00:10::5"
}

# U+212A is the Kelvin sign. Its lower case is the letter k.
test_fold_is_undefined[name] if {
	some name in ["wor\u212Aer", "*.web", "web_1", "", "web\n", "web "]
	not names.fold(name)
}
