// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// elsewhere moves an object to another namespace.
func elsewhere[T client.Object](object T) T {
	object.SetNamespace("secret")
	object.SetUID(types.UID("secret-" + object.GetName()))
	return object
}

func nodeObject(name string, addresses ...string) *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name + "-uid")}}
	for _, address := range addresses {
		node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Address: address})
	}
	return node
}

// TestResolve finds the objects that have a name. Their details name only objects in the namespace of
// the subject.
func TestResolve(t *testing.T) {
	ip := func(ip string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Status.PodIPs[0].IP = ip } }
	external := serviceObject("external", "", myApp)
	external.Spec.Type = corev1.ServiceTypeExternalName
	s := &scene{cached: []client.Object{
		namespaceObject(), podObject("my-pod", nil),
		podObject("x.10-0-34-3", ip("10.0.34.4")), podObject("a.b", ip("10.0.34.5")), podObject("shared", ip("10.0.34.2")),
		podObject("neighbour", ip("10.0.34.3")), elsewhere(podObject("hidden", ip("10.0.34.3"))),
		elsewhere(serviceObject("hidden-svc", "192.0.2.26", myApp)), elsewhere(serviceObject("hidden-selector", "192.0.2.27", nil)), elsewhere(external),
		nodeObject("node-1", "Node-1.Example.COM.", "192.0.2.7"), nodeObject("node-2", "node-1.example.com"), nodeObject("node-3"),
	}}
	const hiddenPod, hiddenService = "a Pod of another namespace has it", "a Service of another namespace has it"
	want := map[string][]string{
		"10.0.34.2":                                {"Pod ns/my-pod has it", "Pod ns/shared has it"},
		"10-0-34-2.ns.pod":                         {"Pod ns/my-pod has it", "Pod ns/shared has it"},
		"10.0.34.3":                                {hiddenPod, "Pod ns/neighbour has it"},
		"10-0-34-3.ns.pod.cluster.local":           {hiddenPod, "Pod ns/neighbour has it"},
		"10-0-34-3.secret.pod.cluster.local":       {hiddenPod, "Pod ns/neighbour has it"},
		"x.10-0-34-3.ns.pod.cluster.local":         {hiddenPod, "Pod ns/neighbour has it"}, // not Pod x.10-0-34-3
		"A.B.ns.pod.cluster.local":                 {"Pod ns/a.b has it"},
		"a.b.ns.pod.cluster.local.":                {"Pod ns/a.b has it"},
		"hidden.secret.pod.cluster.local":          {hiddenPod},
		"hidden-svc.secret.svc":                    {hiddenService},
		"hidden-selector.secret.svc.cluster.local": {hiddenService},
		"external.secret.svc.":                     {hiddenService},
		"192.0.2.26":                               {hiddenService},
		"192.0.2.7":                                {"a Node has it"},
		"node-1.example.com":                       {"a Node has it", "a Node has it"},
		"Node-1.example.com.":                      {"a Node has it", "a Node has it"},
		"node-3":                                   {"a Node has it"},
	}
	for _, live := range []bool{false, true} {
		r := resolver{Gatherer: s.gatherer(t), live: newLiveReader(s.gatherer(t).live), onlyLive: live, resolved: map[string][]Resolved{}}
		for name, want := range want {
			resolved, err := r.resolve(t.Context(), name, podOf(podObject("my-pod", nil)))
			if err != nil {
				t.Fatal(err)
			}
			got := details(resolved)
			slices.Sort(got)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, live %v (-want +got):\n%s", name, live, diff)
			}
		}
	}
}

// TestResolve_withoutPod: a kubelet, or a delegate without a Pod, learns no name of an object.
func TestResolve_withoutPod(t *testing.T) {
	s := &scene{cached: []client.Object{podObject("my-pod", nil), serviceObject("my-svc", "192.0.2.24", myApp), nodeObject("node-1", "192.0.2.7")}}
	r := resolver{Gatherer: s.gatherer(t), live: newLiveReader(s.gatherer(t).live), resolved: map[string][]Resolved{}}
	for name, want := range map[string][]string{
		"10.0.34.2": {"a Pod of another namespace has it"}, "my-svc.ns.svc": {"a Service of another namespace has it"}, "192.0.2.7": {"a Node has it"},
	} {
		got, err := r.resolve(t.Context(), name, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, details(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestDelegate_namespaceOfAddress: a name with an address and a namespace is for a Pod of this namespace.
func TestDelegate_namespaceOfAddress(t *testing.T) {
	s := &scene{cached: []client.Object{namespaceObject(), podObject("my-pod", nil), elsewhere(podObject("hidden", nil))}}
	csr, parsed := request(t, "theirs", byHuman, newKey(t), []string{"10-0-34-2.ns.pod.cluster.local"})
	f, err := s.gatherer(t).Live(t.Context(), csr, parsed, at)
	if err != nil {
		t.Fatal(err)
	}
	if pod := f.Cluster.Subject.Pod; f.Cluster.Subject.Candidates != 1 || pod == nil || pod.Namespace != "ns" {
		t.Errorf("subject %+v", f.Cluster.Subject)
	}
	if resolved := f.Cluster.Resolved["10-0-34-2.ns.pod.cluster.local"]; len(resolved) != 2 {
		t.Errorf("the address belongs to %+v, want both Pods", resolved)
	}
}
