// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"context"
	"fmt"
	"net/http"
	"unique"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"countersign.dev/countersign/internal/watchset"
)

// Pods finds Pods by name, address and hostname. A cluster has more Pods than objects of any other
// kind, so Pods stores only the fields that it finds them by: about 375 bytes for each. It is safe for
// concurrent use. [NewPods] returns one.
type Pods struct{ *podSet }

type podSet = watchset.Set[*corev1.Pod, knownPod]

// Names of the indexes.
const (
	podsByIP       = "ip"
	podsByHostname = "hostname" // "<hostname>.<subdomain>"
)

// knownPod has the fields of a Pod that are stored. It is immutable.
type knownPod struct {
	key types.NamespacedName
	uid types.UID
	// namespace lets all stored Pods of a namespace share the string in key.
	namespace unique.Handle[string]
	// ips are empty for a terminated Pod, whose address is free, and for a Pod in the host network, which has the
	// address of its Node.
	ips      []string
	hostname string // "<hostname>.<subdomain>", or empty
}

// NewPods returns a Pods that reads from all, such as [AllPods]. It is empty until it is started.
// When a Pod changes, changed is called with each Awaited that matches the Pod.
func NewPods(all cache.ListerWatcher, changed func([]Awaited)) *Pods {
	pods := &Pods{watchset.New(watchset.Options[*corev1.Pod, knownPod]{
		Object: &corev1.Pod{}, Source: func(string) cache.ListerWatcher { return all }, Keep: knownOf,
		Indexes: map[string]func(*knownPod) []string{
			podsByIP: func(pod *knownPod) []string { return pod.ips },
			podsByHostname: func(pod *knownPod) []string {
				if pod.hostname == "" {
					return nil
				}
				return []string{pod.hostname}
			},
		},
		Changed: func(_ context.Context, _ string, changes []watchset.Change[knownPod]) {
			for _, c := range changes {
				for _, pod := range []*knownPod{c.Before, c.After} {
					if pod != nil {
						changed(pod.awaitedBy())
					}
				}
			}
		},
	})}
	pods.Keep(map[string]bool{allPods: true})
	return pods
}

// allPods is the key of the one watch.
const allPods = ""

// AllPods lists and watches all Pods of a cluster.
func AllPods(cfg *rest.Config, http *http.Client) (cache.ListerWatcher, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.ContentType = runtime.ContentTypeProtobuf
	client, err := corev1client.NewForConfigAndClient(cfg, http)
	if err != nil {
		return nil, fmt.Errorf("creating a client for Pods: %w", err)
	}
	return cache.NewListWatchFromClient(client.RESTClient(), "pods", corev1.NamespaceAll, fields.Everything()), nil
}

// WaitForSync waits until all Pods have been listed.
func (p *Pods) WaitForSync(ctx context.Context) error {
	if err := p.podSet.WaitForSync(ctx); err != nil {
		return fmt.Errorf("waiting for the list of all Pods: %w", err)
	}
	return nil
}

// Exist reports whether a Pod of this name exists. It waits for the first list.
func (p *Pods) Exist(ctx context.Context, key types.NamespacedName) (bool, error) {
	found, err := p.named(ctx, key)
	return len(found) > 0, err
}

// named finds a Pod by its name.
func (p *Pods) named(ctx context.Context, key types.NamespacedName) ([]*knownPod, error) {
	if err := p.WaitForSync(ctx); err != nil {
		return nil, err
	}
	return p.Get(key), nil
}

// withIP finds the Pods that have an address, in one namespace or, if it is empty, in all.
func (p *Pods) withIP(ctx context.Context, ip, namespace string) ([]*knownPod, error) {
	return p.find(ctx, podsByIP, ip, namespace)
}

// withHostname finds the Pods of a namespace that have "<hostname>.<subdomain>".
func (p *Pods) withHostname(ctx context.Context, hostname, namespace string) ([]*knownPod, error) {
	return p.find(ctx, podsByHostname, hostname, namespace)
}

// find returns at most [maxResolved] Pods.
func (p *Pods) find(ctx context.Context, index, value, namespace string) ([]*knownPod, error) {
	if err := p.WaitForSync(ctx); err != nil {
		return nil, err
	}
	var found []*knownPod
	for pod := range p.ByIndex(index, value) {
		if namespace != "" && pod.key.Namespace != namespace {
			continue
		}
		if found = append(found, pod); len(found) == maxResolved {
			break
		}
	}
	return found, nil
}

// knownOf returns the fields of a Pod to store.
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
