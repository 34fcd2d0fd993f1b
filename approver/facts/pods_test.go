// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unique"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	cachetesting "k8s.io/client-go/tools/cache/testing"
)

// podSource lists and watches. It cannot stream a list.
type podSource struct {
	*cachetesting.FakeControllerSource
}

func (podSource) IsWatchListSemanticsUnSupported() bool { return true }

// names are the names and UIDs of Pods, sorted.
func names(t *testing.T, pods []*knownPod, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, pod := range pods {
		out = append(out, pod.key.String()+"="+string(pod.uid))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func withIP(ip string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Status.PodIPs = []corev1.PodIP{{IP: ip}} }
}

func TestPods(t *testing.T) {
	all := podSource{cachetesting.NewFakeControllerSource()}
	notified := make(chan []Awaited, 100)
	pods := NewPods(all, func(changed []Awaited) { notified <- changed })
	if pods.Synced() {
		t.Fatal("synced before it is started")
	}
	all.Add(podObject("a", nil))
	all.Add(podObject("b", func(pod *corev1.Pod) {
		pod.Namespace, pod.Spec.Hostname, pod.Spec.Subdomain = "other", "host", "sub"
	}))
	go func() { _ = pods.Start(t.Context()) }()
	if err := pods.WaitForSync(t.Context()); err != nil {
		t.Fatal(err)
	}
	next := func() []Awaited {
		select {
		case changed := <-notified:
			return changed
		case <-t.Context().Done():
			return nil
		}
	}
	next()
	next()
	a, b := types.NamespacedName{Namespace: "ns", Name: "a"}, types.NamespacedName{Namespace: "other", Name: "b"}
	check := func(when, wantIP, wantIPHere, wantHostname, wantA string) {
		t.Helper()
		for _, tc := range []struct {
			what, want string
			find       func() ([]*knownPod, error)
		}{
			{"with the address", wantIP, func() ([]*knownPod, error) { return pods.withIP(t.Context(), "10.0.34.2", "") }},
			{"with the address, in ns", wantIPHere, func() ([]*knownPod, error) { return pods.withIP(t.Context(), "10.0.34.2", "ns") }},
			{"with the hostname", wantHostname, func() ([]*knownPod, error) { return pods.withHostname(t.Context(), "host.sub", "other") }},
			{"with the hostname, in ns", "", func() ([]*knownPod, error) { return pods.withHostname(t.Context(), "host.sub", "ns") }},
			{"called a", wantA, func() ([]*knownPod, error) { return pods.named(t.Context(), a) }},
		} {
			found, err := tc.find()
			if got := names(t, found, err); got != tc.want {
				t.Errorf("%s, %s: got %q, want %q", when, tc.what, got, tc.want)
			}
		}
	}
	check("at first", "ns/a=a-uid other/b=b-uid", "ns/a=a-uid", "other/b=b-uid", "ns/a=a-uid")

	all.Modify(podObject("a", withIP("::ffff:10.0.34.9")))
	if diff := cmp.Diff([][]Awaited{
		{{"Pod", "ns", "a"}, {"Pod", "ns", ""}, {"IP", "", "10.0.34.2"}},
		{{"Pod", "ns", "a"}, {"Pod", "ns", ""}, {"IP", "", "10.0.34.9"}},
	}, [][]Awaited{next(), next()}); diff != "" {
		t.Errorf("notifications of a change (-want +got):\n%s", diff)
	}
	check("after a change of address", "other/b=b-uid", "", "other/b=b-uid", "ns/a=a-uid")
	found, err := pods.withIP(t.Context(), "10.0.34.9", "")
	if got := names(t, found, err); got != "ns/a=a-uid" {
		t.Errorf("by the new address: %q", got)
	}

	all.Modify(podObject("a", func(pod *corev1.Pod) { pod.UID = "a-uid-2" }))
	next()
	next()
	check("after it was created again", "ns/a=a-uid-2 other/b=b-uid", "ns/a=a-uid-2", "other/b=b-uid", "ns/a=a-uid-2")

	all.Modify(podObject("a", func(pod *corev1.Pod) { pod.UID, pod.Status.Phase = "a-uid-2", corev1.PodFailed }))
	next()
	next()
	check("after it has finished", "other/b=b-uid", "", "other/b=b-uid", "ns/a=a-uid-2")

	all.Delete(podObject("b", func(pod *corev1.Pod) { pod.Namespace = "other" }))
	next()
	check("after the other was deleted", "", "", "", "ns/a=a-uid-2")
	if found, err := pods.named(t.Context(), b); len(found) != 0 || err != nil {
		t.Errorf("a deleted Pod: got %v, error %v", found, err)
	}
}

// TestPods_wait: a request that comes before the first list waits for it.
func TestPods_wait(t *testing.T) {
	for _, tc := range []struct {
		name string
		find func(context.Context, *Pods) ([]*knownPod, error)
	}{
		{"by address", func(ctx context.Context, p *Pods) ([]*knownPod, error) { return p.withIP(ctx, "10.0.34.2", "") }},
		{"by hostname", func(ctx context.Context, p *Pods) ([]*knownPod, error) { return p.withHostname(ctx, "h.s", "ns") }},
		{"by name", func(ctx context.Context, p *Pods) ([]*knownPod, error) {
			return p.named(ctx, types.NamespacedName{Namespace: "ns", Name: "a"})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pods := NewPods(nil, func([]Awaited) {})
				ctx, cancel := context.WithTimeout(t.Context(), Timeout)
				defer cancel()
				start := time.Now()
				if _, err := tc.find(ctx, pods); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != Timeout {
					t.Errorf("without a list: error %v after %s", err, time.Since(start))
				}
				go func() {
					time.Sleep(time.Second)
					_ = pods.Store(allPods).Replace([]any{podObject("a", func(pod *corev1.Pod) { pod.Spec.Hostname, pod.Spec.Subdomain = "h", "s" })}, "")
				}()
				found, err := tc.find(t.Context(), pods)
				if got := names(t, found, err); got != "ns/a=a-uid" {
					t.Errorf("listed after a second: got %q", got)
				}
			})
		})
	}
}

func TestKnownOf(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*corev1.Pod)
		want   knownPod
	}{
		{"addresses", func(pod *corev1.Pod) { pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: "FD00::5"}) }, knownPod{ips: []string{"10.0.34.2", "fd00::5"}}},
		{"host network", func(pod *corev1.Pod) { pod.Spec.HostNetwork = true }, knownPod{}},
		{"succeeded", func(pod *corev1.Pod) { pod.Status.Phase = corev1.PodSucceeded }, knownPod{}},
		{"failed", func(pod *corev1.Pod) { pod.Status.Phase = corev1.PodFailed }, knownPod{}},
		{"hostname and subdomain", func(pod *corev1.Pod) { pod.Spec.Hostname, pod.Spec.Subdomain = "h", "s" }, knownPod{ips: []string{"10.0.34.2"}, hostname: "h.s"}},
		{"hostname only", func(pod *corev1.Pod) { pod.Spec.Hostname = "h" }, knownPod{ips: []string{"10.0.34.2"}}},
		{"subdomain only", func(pod *corev1.Pod) { pod.Spec.Subdomain = "s" }, knownPod{ips: []string{"10.0.34.2"}}},
		{"invalid address", withIP("None"), knownPod{ips: []string{}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.want.key, tc.want.uid = types.NamespacedName{Namespace: "ns", Name: "my-pod"}, "my-pod-uid"
			tc.want.namespace = unique.Make("ns")
			got := knownOf(podObject("my-pod", tc.change))
			if diff := cmp.Diff(fmt.Sprintf("%+v", tc.want), fmt.Sprintf("%+v", *got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestPods_replace: a reflector passes a new list after it has missed events. It reduces the Pods first.
func TestPods_replace(t *testing.T) {
	var notified []Awaited
	pods := NewPods(nil, func(changed []Awaited) { notified = append(notified, changed[0]) })
	store := pods.Store(allPods)
	replace := func(objects ...any) {
		t.Helper()
		for i := range objects {
			var err error
			if objects[i], err = store.Transformer()(objects[i]); err != nil {
				t.Fatal(err)
			}
			if _, whole := objects[i].(*corev1.Pod); whole {
				t.Error("the list contains complete Pods")
			}
		}
		if err := store.Replace(objects, ""); err != nil {
			t.Fatal(err)
		}
	}
	replace(podObject("a", nil), podObject("b", nil))
	notified = nil
	replace(podObject("b", withIP("10.0.34.3")), podObject("c", withIP("10.0.34.3")))
	for _, tc := range []struct{ ip, want string }{{"10.0.34.2", ""}, {"10.0.34.3", "ns/b=b-uid ns/c=c-uid"}} {
		found, err := pods.withIP(t.Context(), tc.ip, "")
		if got := names(t, found, err); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.ip, got, tc.want)
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		if !slices.Contains(notified, Awaited{"Pod", "ns", name}) {
			t.Errorf("no notification of Pod %s: %v", name, notified)
		}
	}
	if err := store.Replace([]any{podObject("x", nil), "y"}, ""); err == nil || err.Error() != "unexpected type string, want *v1.Pod" {
		t.Errorf("got %v", err)
	}
	if found, err := pods.withIP(t.Context(), "10.0.34.3", ""); len(found) != 2 || err != nil {
		t.Errorf("after a list that is an error: got %v, error %v; want the 2 Pods of before", found, err)
	}
}

func TestKnownOf_sharedNamespace(t *testing.T) {
	named := func(name string) *knownPod {
		return knownOf(podObject(name, func(pod *corev1.Pod) { pod.Namespace = strings.Clone("my-namespace") }))
	}
	first := named("a")
	for range 3 { // strings without a holder are dropped
		runtime.GC()
	}
	second := named("b")
	if unsafe.StringData(first.key.Namespace) != unsafe.StringData(second.key.Namespace) {
		t.Error("each Pod has its own string")
	}
	runtime.KeepAlive(first)
}

func TestPods_memory(t *testing.T) {
	const many, most = 20_000, 640 // bytes a Pod
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	pods := NewPods(nil, func([]Awaited) {})
	store := pods.Store(allPods)
	fill := func(objects []any) error {
		for i := range objects {
			pod := podObject(fmt.Sprintf("my-deployment-7d4b9c6f5d-%05d", i), withIP(fmt.Sprintf("10.%d.%d.7", i/256, i%256)))
			pod.UID = types.UID(fmt.Sprintf("11111111-1111-4111-8111-%012d", i))
			pod.Namespace = fmt.Sprintf("my-namespace-%d", i%200)
			pod.Annotations = map[string]string{"large": strings.Repeat("x", 4096)}
			objects[i], _ = store.Transformer()(pod)
		}
		return store.Replace(objects, "")
	}
	before := heap()
	if err := fill(make([]any, many)); err != nil {
		t.Fatal(err)
	}
	if each := (int64(heap()) - int64(before)) / many; each > most {
		t.Errorf("%d bytes a Pod, want at most %d", each, most)
	} else {
		t.Logf("%d bytes a Pod", each)
	}
	if !pods.Synced() || len(pods.List()) != many {
		t.Errorf("synced %v, %d Pods, want true, %d", pods.Synced(), len(pods.List()), many)
	}
}
