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

// podSource lists and watches. It cannot do both in one.
type podSource struct {
	*cachetesting.FakeControllerSource
}

func (podSource) IsWatchListSemanticsUnSupported() bool { return true }

// names are those of Pods, sorted.
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

func TestPodsAreFollowed(t *testing.T) {
	all := podSource{cachetesting.NewFakeControllerSource()}
	told := make(chan []Awaited, 100)
	pods := NewPods(all, func(changed []Awaited) { told <- changed })
	if pods.Synced() {
		t.Fatal("all Pods are known before it is started")
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
		case changed := <-told:
			return changed
		case <-t.Context().Done():
			return nil
		}
	}
	next()
	next()
	a, b := types.NamespacedName{Namespace: "ns", Name: "a"}, types.NamespacedName{Namespace: "other", Name: "b"}
	see := func(when, wantIP, wantIPHere, wantHostname, wantA string) {
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
	see("at first", "ns/a=a-uid other/b=b-uid", "ns/a=a-uid", "other/b=b-uid", "ns/a=a-uid")

	all.Modify(podObject("a", withIP("::ffff:10.0.34.9")))
	if diff := cmp.Diff([][]Awaited{
		{{"Pod", "ns", "a"}, {"Pod", "ns", ""}, {"IP", "", "10.0.34.2"}},
		{{"Pod", "ns", "a"}, {"Pod", "ns", ""}, {"IP", "", "10.0.34.9"}},
	}, [][]Awaited{next(), next()}); diff != "" {
		t.Errorf("of a change, what was and what is (-want +got):\n%s", diff)
	}
	see("after a change of address", "other/b=b-uid", "", "other/b=b-uid", "ns/a=a-uid")
	found, err := pods.withIP(t.Context(), "10.0.34.9", "")
	if got := names(t, found, err); got != "ns/a=a-uid" {
		t.Errorf("by the new address: %q", got)
	}

	all.Modify(podObject("a", func(pod *corev1.Pod) { pod.UID = "again" }))
	next()
	next()
	see("after another took its place", "ns/a=again other/b=b-uid", "ns/a=again", "other/b=b-uid", "ns/a=again")

	all.Modify(podObject("a", func(pod *corev1.Pod) { pod.UID, pod.Status.Phase = "again", corev1.PodFailed }))
	next()
	next()
	see("when it has finished", "other/b=b-uid", "", "other/b=b-uid", "ns/a=again")

	all.Delete(podObject("b", func(pod *corev1.Pod) { pod.Namespace = "other" }))
	next()
	next()
	see("when the other is gone", "", "", "", "ns/a=again")
	if found, err := pods.named(t.Context(), b); len(found) != 0 || err != nil {
		t.Errorf("one that is gone: %v, %v", found, err)
	}
	if len(pods.byIP) != 0 || len(pods.byHostname) != 0 {
		t.Errorf("left behind: %v, %v", pods.byIP, pods.byHostname)
	}
}

// Requests may come before all Pods are known, and are judged then, not failed.
func TestWhoFindsPodsWaitsForThem(t *testing.T) {
	for what, find := range map[string]func(context.Context, *Pods) ([]*knownPod, error){
		"by address":  func(ctx context.Context, p *Pods) ([]*knownPod, error) { return p.withIP(ctx, "10.0.34.2", "") },
		"by hostname": func(ctx context.Context, p *Pods) ([]*knownPod, error) { return p.withHostname(ctx, "h.s", "ns") },
		"by name": func(ctx context.Context, p *Pods) ([]*knownPod, error) {
			return p.named(ctx, types.NamespacedName{Namespace: "ns", Name: "a"})
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := podStore{NewPods(nil, func([]Awaited) {})}
				ctx, cancel := context.WithTimeout(t.Context(), Timeout)
				defer cancel()
				start := time.Now()
				if _, err := find(ctx, store.Pods); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != Timeout {
					t.Errorf("not known in time: %v, after %s", err, time.Since(start))
				}
				go func() {
					time.Sleep(time.Second)
					_ = store.Replace([]any{podObject("a", func(pod *corev1.Pod) { pod.Spec.Hostname, pod.Spec.Subdomain = "h", "s" })}, "")
				}()
				found, err := find(t.Context(), store.Pods)
				if got := names(t, found, err); got != "ns/a=a-uid" {
					t.Errorf("known after a second: %q", got)
				}
			})
		})
	}
}

func TestWhatAPodAnswersTo(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*corev1.Pod)
		want   knownPod
	}{
		"its addresses":               {func(pod *corev1.Pod) { pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: "FD00::5"}) }, knownPod{ips: []string{"10.0.34.2", "fd00::5"}}},
		"in the host network, none":   {func(pod *corev1.Pod) { pod.Spec.HostNetwork = true }, knownPod{}},
		"succeeded, none":             {func(pod *corev1.Pod) { pod.Status.Phase = corev1.PodSucceeded }, knownPod{}},
		"failed, none":                {func(pod *corev1.Pod) { pod.Status.Phase = corev1.PodFailed }, knownPod{}},
		"a hostname and a subdomain":  {func(pod *corev1.Pod) { pod.Spec.Hostname, pod.Spec.Subdomain = "h", "s" }, knownPod{ips: []string{"10.0.34.2"}, hostname: "h.s"}},
		"a hostname alone, nothing":   {func(pod *corev1.Pod) { pod.Spec.Hostname = "h" }, knownPod{ips: []string{"10.0.34.2"}}},
		"a subdomain alone, nothing":  {func(pod *corev1.Pod) { pod.Spec.Subdomain = "s" }, knownPod{ips: []string{"10.0.34.2"}}},
		"what is no address, nothing": {withIP("None"), knownPod{ips: []string{}}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.want.key, tc.want.uid = types.NamespacedName{Namespace: "ns", Name: "my-pod"}, "my-pod-uid"
			tc.want.namespace = unique.Make("ns")
			got := knownOf(podObject("my-pod", tc.change))
			if diff := cmp.Diff(fmt.Sprintf("%+v", tc.want), fmt.Sprintf("%+v", *got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A reflector hands over all Pods at the start, and again when it has lost track: by then some may
// be gone, and others new. It keeps them meanwhile as they come out of the transformer.
func TestAllPodsAreReplaced(t *testing.T) {
	var told []Awaited
	store := podStore{NewPods(nil, func(changed []Awaited) { told = append(told, changed[0]) })}
	replace := func(objects ...any) {
		t.Helper()
		for i := range objects {
			var err error
			if objects[i], err = store.Transformer()(objects[i]); err != nil {
				t.Fatal(err)
			}
			if _, small := objects[i].(*knownPod); !small {
				t.Errorf("%T is kept until all are there", objects[i])
			}
		}
		if err := store.Replace(objects, ""); err != nil {
			t.Fatal(err)
		}
	}
	replace(podObject("a", nil), podObject("b", nil))
	told = nil
	replace(podObject("b", withIP("10.0.34.3")), podObject("c", withIP("10.0.34.3")))
	for ip, want := range map[string]string{"10.0.34.2": "", "10.0.34.3": "ns/b=b-uid ns/c=c-uid"} {
		found, err := store.withIP(t.Context(), ip, "")
		if got := names(t, found, err); got != want {
			t.Errorf("%s: got %q, want %q", ip, got, want)
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		if !slices.Contains(told, Awaited{"Pod", "ns", name}) {
			t.Errorf("nobody is told of %s: %v", name, told)
		}
	}
	if err := store.Replace([]any{podObject("x", nil), "y"}, ""); err == nil || err.Error() != "a string is no Pod" {
		t.Errorf("got %v", err)
	}
	if found, err := store.withIP(t.Context(), "10.0.34.3", ""); len(found) != 2 || err != nil {
		t.Errorf("a list that cannot be taken changes nothing: %v, %v", found, err)
	}
}

func TestPodsOfANamespaceShareItsName(t *testing.T) {
	named := func(name string) *knownPod {
		return knownOf(podObject(name, func(pod *corev1.Pod) { pod.Namespace = strings.Clone("my-namespace") }))
	}
	first := named("a")
	for range 3 { // what nobody holds is dropped
		runtime.GC()
	}
	second := named("b")
	if unsafe.StringData(first.key.Namespace) != unsafe.StringData(second.key.Namespace) {
		t.Error("each has one of its own")
	}
	runtime.KeepAlive(first)
}

func TestAPodNeedsLittle(t *testing.T) {
	const many, most = 20_000, 640 // bytes a Pod
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	store := podStore{NewPods(nil, func([]Awaited) {})}
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
	if !store.Synced() || len(store.byName) != many {
		t.Errorf("%d Pods", len(store.byName))
	}
}
