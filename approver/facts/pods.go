// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"unique"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// Pods finds Pods by what names resolve to. There are more Pods than of anything else, and a
// corev1.Pod is large however little of it is filled in, so of each no more is kept than that.
// It is safe for concurrent use. Make one with [NewPods], and start it before what uses it.
type Pods struct {
	all     cache.ListerWatcher
	changed func([]Awaited)
	synced  chan struct{} // closed once all Pods are known
	once    sync.Once

	mu         sync.RWMutex
	byName     map[types.NamespacedName]*knownPod
	byIP       map[string][]*knownPod
	byHostname map[string][]*knownPod // "<hostname>.<subdomain>"
}

// knownPod is what is known of a Pod. It is immutable.
type knownPod struct {
	key types.NamespacedName
	uid types.UID
	// namespace has the Pods of a namespace share its name in key, for as long as one of them is known.
	namespace unique.Handle[string]
	// ips are those it answers to: a finished Pod's address is free, a host network Pod's is its Node's.
	ips      []string
	hostname string // "<hostname>.<subdomain>", or empty
}

// NewPods makes a Pods of those in all, such as [AllPods], that is not filled until it is started.
// changed is called with what may be awaited of a Pod that changes.
func NewPods(all cache.ListerWatcher, changed func([]Awaited)) *Pods {
	return &Pods{
		all: all, changed: changed, synced: make(chan struct{}),
		byName: map[types.NamespacedName]*knownPod{}, byIP: map[string][]*knownPod{}, byHostname: map[string][]*knownPod{},
	}
}

// AllPods are those of a cluster.
func AllPods(cfg *rest.Config, http *http.Client) (cache.ListerWatcher, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.ContentType = runtime.ContentTypeProtobuf
	client, err := corev1client.NewForConfigAndClient(cfg, http)
	if err != nil {
		return nil, fmt.Errorf("making a client for Pods: %w", err)
	}
	return cache.NewListWatchFromClient(client.RESTClient(), "pods", corev1.NamespaceAll, fields.Everything()), nil
}

// NeedLeaderElection is false: who is not elected has all Pods ready, too.
func (*Pods) NeedLeaderElection() bool { return false }

// Start follows all Pods until the context ends.
func (p *Pods) Start(ctx context.Context) error {
	cache.NewReflectorWithOptions(p.all, &corev1.Pod{}, podStore{p}, cache.ReflectorOptions{Name: "pods"}).RunWithContext(ctx)
	return nil
}

// Synced says whether all Pods are known that there were at the start.
func (p *Pods) Synced() bool {
	select {
	case <-p.synced:
		return true
	default:
		return false
	}
}

// WaitForSync waits until all Pods are known.
func (p *Pods) WaitForSync(ctx context.Context) error {
	select {
	case <-p.synced:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for all Pods: %w", ctx.Err())
	}
}

// Exist says whether there is a Pod of some name, once all Pods are known.
func (p *Pods) Exist(ctx context.Context, key types.NamespacedName) (bool, error) {
	found, err := p.named(ctx, key)
	return len(found) > 0, err
}

// named finds a Pod by its name.
func (p *Pods) named(ctx context.Context, key types.NamespacedName) ([]*knownPod, error) {
	return p.find(ctx, func() []*knownPod {
		if pod := p.byName[key]; pod != nil {
			return []*knownPod{pod}
		}
		return nil
	})
}

// withIP finds the Pods that have an address; in one namespace, if that is not empty.
func (p *Pods) withIP(ctx context.Context, ip, namespace string) ([]*knownPod, error) {
	return p.find(ctx, func() []*knownPod { return within(namespace, p.byIP[ip]) })
}

// withHostname finds the Pods of a namespace that have "<hostname>.<subdomain>".
func (p *Pods) withHostname(ctx context.Context, hostname, namespace string) ([]*knownPod, error) {
	return p.find(ctx, func() []*knownPod { return within(namespace, p.byHostname[hostname]) })
}

// find looks for Pods once all are known, as a cache does that is read before it is filled.
func (p *Pods) find(ctx context.Context, look func() []*knownPod) ([]*knownPod, error) {
	if err := p.WaitForSync(ctx); err != nil {
		return nil, err
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	return look(), nil
}

// within is a copy of the first [maxResolved] of some Pods that are in a namespace.
func within(namespace string, pods []*knownPod) []*knownPod {
	var out []*knownPod
	for _, pod := range pods {
		if (namespace == "" || pod.key.Namespace == namespace) && len(out) < maxResolved {
			out = append(out, pod)
		}
	}
	return out
}

// knownOf keeps of a Pod what finds it.
func knownOf(pod *corev1.Pod) *knownPod {
	namespace := unique.Make(pod.Namespace)
	known := &knownPod{
		key:       types.NamespacedName{Namespace: namespace.Value(), Name: pod.Name},
		uid:       pod.UID,
		namespace: namespace,
	}
	if !finished(pod) && !pod.Spec.HostNetwork {
		known.ips = podIPs(pod)
	}
	if pod.Spec.Hostname != "" && pod.Spec.Subdomain != "" {
		known.hostname = pod.Spec.Hostname + "." + pod.Spec.Subdomain
	}
	return known
}

// put notes a Pod, or that there is none any more, in the place of the one before.
func (p *Pods) put(key types.NamespacedName, pod *knownPod) (before *knownPod) {
	before = p.byName[key]
	if before != nil {
		delete(p.byName, key)
		for _, ip := range before.ips {
			remove(p.byIP, ip, before)
		}
		remove(p.byHostname, before.hostname, before)
	}
	if pod != nil {
		p.byName[key] = pod
		for _, ip := range pod.ips {
			p.byIP[ip] = append(p.byIP[ip], pod)
		}
		if pod.hostname != "" {
			p.byHostname[pod.hostname] = append(p.byHostname[pod.hostname], pod)
		}
	}
	return before
}

func remove(index map[string][]*knownPod, key string, pod *knownPod) {
	if rest := slices.DeleteFunc(index[key], func(other *knownPod) bool { return other == pod }); len(rest) > 0 {
		index[key] = rest
	} else {
		delete(index, key)
	}
}

// tell tells that a Pod has changed from one to another; either may be nil.
func (p *Pods) tell(pods ...*knownPod) {
	for _, pod := range pods {
		if pod != nil {
			p.changed(pod.awaitedBy())
		}
	}
}

// podStore is how a reflector fills Pods.
type podStore struct{ *Pods }

// Transformer has a reflector keep no more of the first Pods, which it collects, than [Pods] does.
func (podStore) Transformer() cache.TransformFunc {
	return func(object any) (any, error) {
		if pod, ok := object.(*corev1.Pod); ok {
			return knownOf(pod), nil
		}
		return object, nil
	}
}

func (s podStore) Add(object any) error {
	pod, err := known(object)
	if err != nil {
		return err
	}
	s.mu.Lock()
	before := s.put(pod.key, pod)
	s.mu.Unlock()
	s.tell(before, pod)
	return nil
}

func (s podStore) Update(object any) error { return s.Add(object) }

func (s podStore) Delete(object any) error {
	pod, err := known(object)
	if err != nil {
		return err
	}
	s.mu.Lock()
	before := s.put(pod.key, nil)
	s.mu.Unlock()
	s.tell(before, pod)
	return nil
}

// Replace takes all Pods that there are, at the start and when the reflector has lost track.
func (s podStore) Replace(objects []any, _ string) error {
	pods := make(map[types.NamespacedName]*knownPod, len(objects))
	for _, object := range objects {
		pod, err := known(object)
		if err != nil {
			return err
		}
		pods[pod.key] = pod
	}
	var changed []*knownPod
	s.mu.Lock()
	for key := range s.byName {
		if pods[key] == nil {
			changed = append(changed, s.put(key, nil))
		}
	}
	for key, pod := range pods {
		changed = append(changed, s.put(key, pod), pod)
	}
	s.mu.Unlock()
	s.tell(changed...)
	s.once.Do(func() { close(s.synced) })
	return nil
}

// Resync has nothing to do: there is no queue.
func (podStore) Resync() error { return nil }

func known(object any) (*knownPod, error) {
	switch pod := object.(type) {
	case *knownPod:
		return pod, nil
	case *corev1.Pod:
		return knownOf(pod), nil
	}
	return nil, fmt.Errorf("a %T is no Pod", object)
}
