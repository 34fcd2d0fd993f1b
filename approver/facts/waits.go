// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Awaited identifies objects that a held request waits for: one object, all objects of a kind in a
// namespace if Name is empty, or, with the kind IP, all objects that have the IP address Name.
type Awaited struct {
	Kind, Namespace, Name string
}

// Awaits lists the objects that the result of a request depends on. If one of them changes, evaluate
// the request again.
func (f *Facts) Awaits() []Awaited {
	if name, ok := nodeOf(&f.Requester); ok {
		return []Awaited{{Kind: "Node", Name: name}}
	}
	namespace, pod := "", ""
	switch {
	case f.Requester.Pod != nil:
		namespace, pod = f.Requester.ServiceAccount.Namespace, f.Requester.Pod.Name
	case f.Cluster.Subject.Pod != nil:
		namespace, pod = f.Cluster.Subject.Pod.Namespace, f.Cluster.Subject.Pod.Name
	default: // a delegate: its Pod does not exist yet
		var out []Awaited
		r := resolver{Gatherer: &Gatherer{domain: f.Cluster.Domain}}
		for _, name := range f.PKCS10.DNSNames {
			name = foldName(name)
			if parts, ok := r.cut(name, "pod"); ok && len(parts) > 1 {
				out = append(out, Awaited{"Pod", parts[len(parts)-1], ""})
			}
			if parts, ok := r.cut(name, "svc"); ok && len(parts) == 3 {
				out = append(out, Awaited{"Pod", parts[2], ""})
			}
		}
		for _, ip := range f.PKCS10.IPAddresses {
			out = append(out, Awaited{Kind: "IP", Name: ip})
		}
		return out
	}
	return []Awaited{{"Pod", namespace, pod}, {"Service", namespace, ""}}
}

// awaitedBy lists each Awaited that matches a Pod.
func (p *knownPod) awaitedBy() []Awaited {
	out := []Awaited{{"Pod", p.key.Namespace, p.key.Name}, {"Pod", p.key.Namespace, ""}}
	for _, ip := range p.ips {
		out = append(out, Awaited{Kind: "IP", Name: ip})
	}
	return out
}

// AwaitedBy lists each Awaited that matches a Service or a Node from the cache. [Pods] reports changes
// of Pods.
func AwaitedBy(object client.Object) []Awaited {
	switch o := object.(type) {
	case *corev1.Service:
		return []Awaited{{"Service", o.Namespace, ""}}
	case *corev1.Node:
		return []Awaited{{Kind: "Node", Name: o.Name}}
	default:
		return nil
	}
}
