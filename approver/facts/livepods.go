// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// LivePods finds Pods by reading them from the API server. A process that reviews few requests, such
// as a command, uses it in place of the store [Pods]. Finding a Pod by its address lists all Pods of
// the cluster, or of the namespace.
type LivePods struct {
	Reader client.Reader
}

// livePodsPage is the number of Pods in one response of the API server.
const livePodsPage = 500

func (p LivePods) named(ctx context.Context, key types.NamespacedName) ([]*knownPod, error) {
	var pod corev1.Pod
	if ok, err := found(p.Reader.Get(ctx, key, &pod)); !ok {
		return nil, err
	}
	return []*knownPod{knownOf(&pod)}, nil
}

func (p LivePods) withIP(ctx context.Context, ip, namespace string) ([]*knownPod, error) {
	return p.list(ctx, namespace, func(pod *knownPod) bool { return slices.Contains(pod.ips, ip) })
}

func (p LivePods) withHostname(ctx context.Context, hostname, namespace string) ([]*knownPod, error) {
	return p.list(ctx, namespace, func(pod *knownPod) bool { return pod.hostname == hostname })
}

// list returns at most maxResolved Pods that match. An empty namespace means all.
func (p LivePods) list(ctx context.Context, namespace string, matches func(*knownPod) bool) ([]*knownPod, error) {
	var out []*knownPod
	for next := ""; ; {
		var list corev1.PodList // new for each page, because JSON decoding keeps the fields that a response omits
		if err := p.Reader.List(ctx, &list, client.InNamespace(namespace), client.Limit(livePodsPage), client.Continue(next)); err != nil {
			return nil, err
		}
		for i := range list.Items {
			if pod := knownOf(&list.Items[i]); matches(pod) {
				if out = append(out, pod); len(out) == maxResolved {
					return out, nil
				}
			}
		}
		if next = list.Continue; next == "" {
			return out, nil
		}
	}
}
