// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// resolver finds the objects that have a name or an address, for one request.
type resolver struct {
	*Gatherer
	// live reads each object from the API server at most once.
	live *liveReader
	// onlyLive means that every object from a cache is confirmed with a read from the API server.
	onlyLive bool
	resolved map[string][]Resolved // by name in lower case
}

// maxResolved is the maximum number of objects of a kind that are examined for one name. A user who
// can create Pods can give a thousand of them the same name.
const maxResolved = 8

// resolve returns the Services, Pods and Nodes that have a DNS name or an IP address. Their details
// can be in messages to the requester. They do not name objects outside of the subject's namespace,
// because the requester can be unable to read these.
func (r resolver) resolve(ctx context.Context, name string, subject *Pod) ([]Resolved, error) {
	name = foldName(name)
	if known, ok := r.resolved[name]; ok {
		return known, nil
	}
	services, err := r.servicesOf(ctx, name)
	if err != nil {
		return nil, err
	}
	pods, err := r.podsOf(ctx, name, anyNamespace)
	if err != nil {
		return nil, err
	}
	nodes, err := r.nodesOf(ctx, name)
	if err != nil {
		return nil, err
	}
	out := []Resolved{}
	for i := range services {
		out = append(out, resolvedService(&services[i], subject))
	}
	for _, pod := range pods {
		own := subject != nil && pod.uid == subject.UID
		detail := "a Pod of another namespace has it"
		if subject != nil && pod.key.Namespace == subject.Namespace {
			detail = fmt.Sprintf("Pod %s has it", pod.key)
		}
		out = append(out, Resolved{Kind: "Pod", Namespace: pod.key.Namespace, Name: pod.key.Name, UID: pod.uid, SelectsSubject: own, Detail: detail})
	}
	for i := range nodes {
		out = append(out, Resolved{Kind: "Node", Name: nodes[i].Name, UID: nodes[i].UID, Detail: "a Node has it"})
	}
	r.resolved[name] = out
	return out, nil
}

func resolvedService(service *corev1.Service, subject *Pod) Resolved {
	id := "Service " + service.Namespace + "/" + service.Name
	out := Resolved{Kind: "Service", Namespace: service.Namespace, Name: service.Name, UID: service.UID, SelectsSubject: selects(service, subject)}
	switch {
	case subject == nil || service.Namespace != subject.Namespace:
		out.Detail = "a Service of another namespace has it"
	case service.Spec.Type == corev1.ServiceTypeExternalName:
		out.SelectsSubject = false // a selector has no effect on this type
		out.Detail = id + " is of type ExternalName"
	case len(service.Spec.Selector) == 0:
		out.Detail = id + " has no selector"
	case !out.SelectsSubject:
		out.Detail = fmt.Sprintf("%s selects %s; Pod %s has %s", id, labelText(service.Spec.Selector), subject.Name, labelText(withKeysOf(subject.Labels, service.Spec.Selector)))
	default:
		out.Detail = fmt.Sprintf("%s selects Pod %s", id, subject.Name)
	}
	return out
}

// podsNamed returns the Pods that some names resolve to, without the Pods behind Services. A name with
// an address and a namespace resolves to the Pods with this address in this namespace.
func (r resolver) podsNamed(ctx context.Context, names []string) (map[types.NamespacedName]bool, error) {
	out := map[types.NamespacedName]bool{}
	for _, name := range names {
		pods, err := r.podsOf(ctx, foldName(name), ownNamespace)
		if err != nil {
			return nil, err
		}
		for _, pod := range pods {
			out[pod.key] = true
		}
	}
	return out, nil
}

func (r resolver) servicesOf(ctx context.Context, name string) ([]corev1.Service, error) {
	if _, err := netip.ParseAddr(name); err == nil {
		var list corev1.ServiceList
		if err := r.cache.List(ctx, &list, client.UnsafeDisableDeepCopy, client.MatchingFields{servicesByIP: name}); err != nil {
			return nil, err
		}
		return current(ctx, r, list.Items, func(s *corev1.Service) bool { return slices.Contains(clusterIPs(s), name) })
	}
	parts, ok := r.cut(name, "svc")
	if !ok || len(parts) < 2 || len(parts) > 3 {
		return nil, nil
	}
	// <service>.<namespace> or <hostname>.<subdomain>.<namespace>, where the subdomain is a Service too.
	service := corev1.Service{}
	key := types.NamespacedName{Namespace: parts[len(parts)-1], Name: parts[len(parts)-2]}
	reader := r.cache
	if r.onlyLive {
		reader = r.live
	}
	if ok, err := found(reader.Get(ctx, key, &service)); !ok {
		return nil, err
	}
	return []corev1.Service{service}, nil
}

// The namespaces of the Pods that have an address, if a name contains the address and a namespace.
const (
	ownNamespace = false
	// anyNamespace are all of them, because DNS resolves the name to the address regardless of the namespace.
	anyNamespace = true
)

func (r resolver) podsOf(ctx context.Context, name string, anyNamespace bool) ([]*knownPod, error) {
	if _, err := netip.ParseAddr(name); err == nil {
		return r.podsWithIP(ctx, name, "")
	}
	if parts, ok := r.cut(name, "svc"); ok && len(parts) == 3 {
		hostname := parts[0] + "." + parts[1]
		pods, err := r.pods.withHostname(ctx, hostname, parts[2])
		return r.currentPods(ctx, pods, err, func(pod *knownPod) bool { return pod.hostname == hostname })
	}
	parts, ok := r.cut(name, "pod")
	if !ok || len(parts) < 2 {
		return nil, nil
	}
	labels, namespace := parts[:len(parts)-1], parts[len(parts)-1]
	// CoreDNS resolves the label before the namespace to this address, even if a Pod has this name.
	if ip, ok := undash(labels[len(labels)-1]); ok {
		if anyNamespace {
			namespace = ""
		}
		return r.podsWithIP(ctx, ip, namespace)
	}
	key := types.NamespacedName{Namespace: namespace, Name: strings.Join(labels, ".")}
	if r.onlyLive {
		return r.currentPods(ctx, []*knownPod{{key: key}}, nil, func(*knownPod) bool { return true })
	}
	return r.pods.named(ctx, key)
}

func (r resolver) podsWithIP(ctx context.Context, ip, namespace string) ([]*knownPod, error) {
	pods, err := r.pods.withIP(ctx, ip, namespace)
	return r.currentPods(ctx, pods, err, func(pod *knownPod) bool { return slices.Contains(pod.ips, ip) })
}

// currentPods returns the Pods that still match, if facts must be live: it reads each of them.
// Otherwise it returns all of them.
func (r resolver) currentPods(ctx context.Context, pods []*knownPod, err error, matches func(*knownPod) bool) ([]*knownPod, error) {
	if err != nil || !r.onlyLive {
		return pods, err
	}
	var out []*knownPod
	for _, pod := range pods {
		var live corev1.Pod
		ok, err := found(r.live.Get(ctx, pod.key, &live))
		if err != nil {
			return nil, err
		}
		if known := knownOf(&live); ok && matches(known) {
			out = append(out, known)
		}
	}
	return out, nil
}

func (r resolver) nodesOf(ctx context.Context, name string) ([]corev1.Node, error) {
	var list corev1.NodeList
	if err := r.cache.List(ctx, &list, client.UnsafeDisableDeepCopy, client.MatchingFields{nodesByAddress: name}); err != nil {
		return nil, err
	}
	return current(ctx, r, list.Items, func(node *corev1.Node) bool { return slices.Contains(nodeAddresses(node), name) })
}

// current returns the items of a cache that still match, if facts must be live: it reads each of
// them. Otherwise it returns all of them. In both cases it examines at most maxResolved.
func current[T any, P interface {
	*T
	client.Object
}](ctx context.Context, r resolver, items []T, matches func(P) bool) ([]T, error) {
	items = items[:min(len(items), maxResolved)]
	if !r.onlyLive {
		return items, nil
	}
	var out []T
	for i := range items {
		live := new(T)
		ok, err := found(r.live.Get(ctx, client.ObjectKeyFromObject(P(&items[i])), P(live)))
		if err != nil {
			return nil, err
		}
		if ok && matches(live) {
			out = append(out, *live)
		}
	}
	return out, nil
}

// cut removes ".<kind>" or ".<kind>.<domain>" from a name and returns the labels before it. It
// returns false if these are not valid labels: no object can have such a name.
func (r resolver) cut(name, kind string) ([]string, bool) {
	for _, suffix := range []string{"." + kind + "." + r.domain, "." + kind} {
		if rest, ok := strings.CutSuffix(name, suffix); ok {
			parts := strings.Split(rest, ".")
			return parts, !slices.ContainsFunc(parts, func(part string) bool { return !isLabel(part) })
		}
	}
	return nil, false
}

// foldName returns a name in the form for comparisons: in lower case, without a trailing dot.
func foldName(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") }

func isLabel(s string) bool { return len(validation.IsDNS1123Label(s)) == 0 }

func isSubdomain(s string) bool { return len(validation.IsDNS1123Subdomain(s)) == 0 }

// undash parses an address with dashes, as in the DNS names of Pods: 10-0-34-2.
func undash(label string) (string, bool) {
	for _, separator := range []string{".", ":"} {
		if ip, err := netip.ParseAddr(strings.ReplaceAll(label, "-", separator)); err == nil {
			return ip.String(), true
		}
	}
	return "", false
}
