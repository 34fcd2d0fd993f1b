// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// countGets makes the API server of a Gatherer count the reads of each object.
func countGets(g *Gatherer) map[string]int {
	reads := map[string]int{}
	live, _ := g.live.(client.WithWatch)
	g.live = interceptor.NewClient(live, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			reads[fmt.Sprintf("%T %s", object, key)]++
			return c.Get(ctx, key, object, options...)
		},
	})
	return reads
}

// TestLiveReads: a request costs at most one read of each object, and a bounded number of reads. A request
// that needs more has incomplete facts.
func TestLiveReads(t *testing.T) {
	addresses := func(n int) (ips []string, of []corev1.NodeAddress) {
		for i := range n {
			ip := fmt.Sprintf("198.51.100.%d", i+1)
			ips, of = append(ips, ip), append(of, corev1.NodeAddress{Address: ip})
		}
		return ips, of
	}
	ips, all := addresses(64)
	var same, different []client.Object
	for i := range 8 {
		same = append(same, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("node-", i)}, Status: corev1.NodeStatus{Addresses: all}})
	}
	for i, ip := range ips {
		for j := range maxResolved {
			different = append(different, podObject(fmt.Sprintf("pod-%d-%d", i, j), func(p *corev1.Pod) { p.Status.PodIPs[0].IP = ip }))
		}
	}
	for _, tc := range []struct {
		name    string
		objects []client.Object
		spec    certificatesv1.CertificateSigningRequestSpec
		reads   int
		excess  bool
		twice   string // that is read twice
	}{
		{name: "8 objects have 64 addresses", objects: same, spec: byPod("my-pod"), reads: 1 + 8 + 1},
		{name: "512 objects have 64 addresses", objects: different, spec: byPod("my-pod"), reads: maxReads + 1, excess: true},
		{name: "512 objects have 64 addresses, for a delegate", objects: different, spec: byHuman, reads: maxReads, excess: true},
		{
			name:    "a delegate of one Pod",
			objects: []client.Object{podObject("pod", func(p *corev1.Pod) { p.Status.PodIPs[0].IP = ips[0] })},
			spec:    byHuman, reads: 1 + 1 + 1, twice: "*v1.Pod ns/pod",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &scene{cached: append([]client.Object{namespaceObject(), podObject("my-pod", nil)}, tc.objects...)}
			s.review.Allowed = true
			g := s.gatherer(t)
			reads := countGets(g)
			csr, parsed := request(t, "mine", tc.spec, newKey(t), nil, ips...)
			f, err := g.Live(t.Context(), csr, parsed, at)
			if err != nil {
				t.Fatal(err)
			}
			total := 0
			for object, n := range reads {
				if total += n; n > 1 && object != tc.twice {
					t.Errorf("%s is read %d times", object, n)
				}
			}
			if total != tc.reads || (f.Excess != "") != tc.excess {
				t.Errorf("%d reads, want %d; excess %q", total, tc.reads, f.Excess)
			}
			if tc.excess && f.TooLarge(0) == "" {
				t.Error("the facts are incomplete, but not too large to be evaluated")
			}
		})
	}
}

// TestRecentReads: an honest request costs one read of its Pod, and a share of the reads of its namespace.
func TestRecentReads(t *testing.T) {
	s := &scene{cached: []client.Object{namespaceObject(), podObject("my-pod", nil), serviceObject("my-svc", "192.0.2.24", myApp)}}
	g := s.gatherer(t)
	reads := countGets(g)
	csr, parsed := request(t, "mine", byPod("my-pod"), newKey(t), []string{"my-svc.ns.svc", "my-pod.ns.pod.cluster.local"}, "10.0.34.2", "192.0.2.24")
	for range 3 {
		if f, err := g.Recent(t.Context(), csr, parsed, at); err != nil || f.Excess != "" {
			t.Fatal(f.Excess, err)
		}
	}
	want := map[string]int{"*v1.Pod ns/my-pod": 3, "*v1.Namespace /ns": 1}
	if diff := cmp.Diff(want, reads); diff != "" || s.lists != 1 {
		t.Errorf("%d lists; reads (-want +got):\n%s", s.lists, diff)
	}
}

// TestLargeNamespace: the Services of a large namespace are not listed. Those that select the Pod, or that
// the request names, are read.
func TestLargeNamespace(t *testing.T) {
	large := func(service *corev1.Service, bytes int) *corev1.Service {
		service.Annotations = map[string]string{"x": strings.Repeat("x", bytes)}
		return service
	}
	cached := func(objects ...client.Object) []client.Object {
		var out []client.Object
		for _, object := range objects {
			object, _ := object.DeepCopyObject().(client.Object)
			if service, ok := object.(*corev1.Service); ok {
				stripService(service)
			}
			out = append(out, object)
		}
		return out
	}
	moved := serviceObject("moved", "192.0.2.25", myApp) // it selects the Pod since the cache was updated
	before := moved.DeepCopy()
	before.Spec.Selector = map[string]string{"app": "other"}
	for _, tc := range []struct {
		name   string
		bytes  int
		lists  int
		cached *corev1.Service
		want   []string
	}{
		{"as large as is listed", maxListed - 1000, 1, before, []string{"moved", "my-svc"}},
		{"larger, and a Service is named", maxListed, 0, before, []string{"moved", "my-svc"}},
		{"larger, and a Service is missing in the cache", maxListed, 0, nil, []string{"my-svc"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			live := []client.Object{
				namespaceObject(), podObject("my-pod", nil), serviceObject("my-svc", "192.0.2.24", myApp), moved,
				large(serviceObject("large", "192.0.2.26", map[string]string{"app": "other"}), tc.bytes),
			}
			s := &scene{live: live, cached: cached(append(live[:3:3], live[4])...)}
			names := []string{"192.0.2.24"}
			if tc.cached != nil {
				s.cached = append(s.cached, cached(tc.cached)...)
				names = append(names, "192.0.2.25")
			}
			csr, parsed := request(t, "mine", byPod("my-pod"), newKey(t), nil, names...)
			g := s.gatherer(t)
			for _, onlyLive := range []bool{false, true} {
				s.lists = 0
				f, err := g.gather(t.Context(), csr, parsed, at, onlyLive)
				if err != nil || f.Excess != "" {
					t.Fatal(f.Excess, err)
				}
				var got []string
				for _, service := range f.Cluster.Subject.Services {
					got = append(got, service.Name)
				}
				if fmt.Sprint(got) != fmt.Sprint(tc.want) || s.lists != tc.lists {
					t.Errorf("live %v: got %v after %d lists, want %v after %d", onlyLive, got, s.lists, tc.want, tc.lists)
				}
			}
		})
	}
}

// TestSurroundingsCacheIsBounded: neither the number of namespaces nor the size of their objects fills memory.
func TestSurroundingsCacheIsBounded(t *testing.T) {
	c := newSurroundingsCache()
	start := time.Now()
	for i := range 2 * maxSurroundings {
		c.put(fmt.Sprint(i), surroundings{readAt: start, size: 1}, 0)
	}
	if len(c.byNamespace) != maxSurroundings || c.size != maxSurroundings {
		t.Errorf("%d namespaces of size %d, want %d", len(c.byNamespace), c.size, maxSurroundings)
	}
	c.put("later", surroundings{readAt: start.Add(MaxAge), size: 2}, 0)
	if len(c.byNamespace) != 1 || c.size != 2 {
		t.Errorf("%d namespaces of size %d remain after the others have expired", len(c.byNamespace), c.size)
	}
	c.put("large", surroundings{readAt: start.Add(MaxAge), size: maxSurroundingsSize - 1}, 0)
	if len(c.byNamespace) != 1 {
		t.Errorf("%d bytes are cached, want at most %d", c.size, maxSurroundingsSize)
	}
	c.put("later", surroundings{readAt: start.Add(MaxAge), size: 1}, 0)
	if c.size != 1 {
		t.Errorf("size %d after a replacement, want 1", c.size)
	}
}

// TestForgetOneNamespace: a change in one namespace does not discard a read of another, or evict it.
func TestForgetOneNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Gatherer{surroundings: newSurroundingsCache()}
		c := &g.surroundings
		_, _, before := c.get("a")
		_, _, other := c.get("b")
		g.Forget("a")
		c.put("a", surroundings{readAt: time.Now()}, before)
		c.put("b", surroundings{readAt: time.Now()}, other)
		if _, ok, _ := c.get("a"); ok {
			t.Error("a read from before the change is cached")
		}
		if _, ok, _ := c.get("b"); !ok {
			t.Error("a read of another namespace is discarded")
		}
		_, _, after := c.get("a")
		if c.put("a", surroundings{readAt: time.Now()}, after); len(c.byNamespace) != 2 {
			t.Error("a read from after the change is discarded")
		}
		time.Sleep(Timeout + time.Second)
		if g.Forget("c"); len(c.forgotten) != 1 {
			t.Errorf("%d namespaces are remembered", len(c.forgotten))
		}
	})
}

// TestReadAt: the facts carry the start of the oldest read that an approval can be based on.
func TestReadAt(t *testing.T) {
	for _, tc := range []struct {
		name       string
		slow       func(client.Object) time.Duration
		slowReview time.Duration
		spec       certificatesv1.CertificateSigningRequestSpec
		want       time.Duration // age when the facts are returned
	}{
		{name: "no slow read", slow: func(client.Object) time.Duration { return 0 }, spec: byPod("my-pod")},
		{name: "the Pod", slow: func(o client.Object) time.Duration { return seconds[*corev1.Pod](o, 4) }, spec: byPod("my-pod"), want: 4 * time.Second},
		// A read of Services that took long is repeated. Then the Pod is read.
		{name: "the Namespace", slow: func(o client.Object) time.Duration { return seconds[*corev1.Namespace](o, 0.9) }, spec: byPod("my-pod"), want: 900 * time.Millisecond},
		{name: "the review of a delegate", slow: func(client.Object) time.Duration { return 0 }, slowReview: 4 * time.Second, spec: byHuman, want: 4 * time.Second},
		{name: "the Node of a kubelet", slow: func(o client.Object) time.Duration { return seconds[*corev1.Node](o, 3) }, spec: byNode, want: 3 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scene{cached: []client.Object{namespaceObject(), podObject("my-pod", nil), nodeObject("node-1")}}
				s.review.Allowed = true
				g := s.gatherer(t)
				live, _ := g.live.(client.WithWatch)
				g.live = interceptor.NewClient(live, interceptor.Funcs{
					Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
						time.Sleep(tc.slow(object))
						return c.Get(ctx, key, object, options...)
					},
				})
				review := g.review
				g.review = func(ctx context.Context, r *authorizationv1.SubjectAccessReview) error {
					time.Sleep(tc.slowReview)
					return review(ctx, r)
				}
				csr, parsed := request(t, "mine", tc.spec, newKey(t), []string{"my-pod.ns.pod.cluster.local"})
				f, err := g.Recent(t.Context(), csr, parsed, at)
				if err != nil {
					t.Fatal(err)
				}
				if age := time.Since(f.ReadAt); age != tc.want {
					t.Errorf("the oldest fact is %s old, want %s", age, tc.want)
				}
			})
		})
	}
}

// TestSubjectIsReadLast: the Services take long to read, and the Pod is deleted meanwhile.
func TestSubjectIsReadLast(t *testing.T) {
	for _, onlyLive := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			pod := podObject("my-pod", nil)
			s := &scene{cached: []client.Object{namespaceObject(), pod}}
			g := s.gatherer(t)
			live, _ := g.live.(client.WithWatch)
			slow := 5 * time.Second
			g.live = interceptor.NewClient(live, interceptor.Funcs{
				List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
					if _, ok := list.(*corev1.ServiceList); ok {
						time.Sleep(slow)
						slow = 0
					}
					return c.List(ctx, list, options...)
				},
			})
			time.AfterFunc(time.Second, func() { _ = live.Delete(context.Background(), pod) })
			csr, parsed := request(t, "mine", byPod("my-pod"), newKey(t), []string{"my-pod.ns.pod.cluster.local"})
			f, err := g.gather(t.Context(), csr, parsed, at, onlyLive)
			if err != nil || f.Cluster.Subject.Pod != nil {
				t.Errorf("live %v: the subject is %+v, %v", onlyLive, f.Cluster.Subject.Pod, err)
			}
		})
	}
}

func seconds[T client.Object](object client.Object, n float64) time.Duration {
	if _, ok := object.(T); ok {
		return time.Duration(n * float64(time.Second))
	}
	return 0
}

var byNode = certificatesv1.CertificateSigningRequestSpec{Username: "system:node:node-1", Groups: []string{"system:nodes"}}

// TestMemoryOfObjects measures what the cache keeps of an object as large as the API server accepts.
func TestMemoryOfObjects(t *testing.T) {
	large := func() map[string]string {
		out := map[string]string{}
		for i := range 2000 {
			out[fmt.Sprintf("label-%d", i)] = strings.Repeat("x", 63)
		}
		return out
	}
	many := func(prefix string) []string {
		out := make([]string, 5000)
		for i := range out {
			out[i] = fmt.Sprintf("%s.%d.%d", prefix, i>>8, i&255)
		}
		return out
	}
	for _, tc := range []struct {
		name string
		make func() client.Object
		want uint64 // bytes
	}{
		{"Service", func() client.Object {
			service := serviceObject("web", "192.0.2.24", large())
			service.Labels, service.Annotations, service.Spec.ExternalIPs, service.Spec.ClusterIPs = large(), large(), many("10.0"), many("10.1")
			service.Status.LoadBalancer.Ingress = make([]corev1.LoadBalancerIngress, 1000)
			stripService(service)
			return service
		}, 2 << 10},
		{"Service with a large selector", func() client.Object {
			service := serviceObject("web", "192.0.2.24", map[string]string{})
			for i := range 100 {
				service.Spec.Selector[fmt.Sprint(i)] = "x"
			}
			stripService(service)
			return service
		}, 8 << 10},
		{"Node", func() client.Object {
			node := nodeObject("node-1", many("node-with-a-long-name")...)
			node.Labels, node.Annotations = large(), large()
			stripNode(node)
			return node
		}, 8 << 10},
		{"Namespace", func() client.Object {
			namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns", Labels: large(), Annotations: large()}}
			stripNamespace(namespace)
			return namespace
		}, 2 << 10},
		{"undecided request", func() client.Object {
			csr := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: large(), Annotations: large()}}
			csr.Spec = certificatesv1.CertificateSigningRequestSpec{Request: make([]byte, 2000), Username: "u", Groups: []string{"g"}}
			stripRequest(csr, func(string) bool { return true })
			return csr
		}, 4 << 10},
		{"undecided request with many groups", func() client.Object {
			csr := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "web"}}
			csr.Spec = certificatesv1.CertificateSigningRequestSpec{Request: make([]byte, 100), Username: "u", Groups: make([]string, 110)}
			for i := range csr.Spec.Groups {
				csr.Spec.Groups[i] = fmt.Sprint(i)
			}
			stripRequest(csr, func(string) bool { return true })
			return csr
		}, 8 << 10},
		{"large undecided request", func() client.Object {
			csr := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: large(), Annotations: large()}}
			csr.Spec = certificatesv1.CertificateSigningRequestSpec{Request: make([]byte, 100<<10), Username: "u", Groups: many("g"), Extra: map[string]certificatesv1.ExtraValue{"x": many("v")}}
			stripRequest(csr, func(string) bool { return true })
			return csr
		}, 4 << 10},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const count = 50
			objects := make([]client.Object, count)
			before := heap()
			for i := range objects {
				objects[i] = tc.make()
			}
			got := (heap() - before) / count
			runtime.KeepAlive(objects)
			t.Logf("%d bytes", got)
			if got > tc.want {
				t.Errorf("an object takes %d bytes, want at most %d", got, tc.want)
			}
		})
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// TestStripService_twice: an informer strips an object once when it collects a list, and once more when it stores it. The
// size stays that of the whole Service, and a requester cannot set it.
func TestStripService_twice(t *testing.T) {
	for _, generation := range []int64{0, 1, 1 << 40} {
		service := serviceObject("web", "192.0.2.24", nil)
		service.Generation, service.Annotations = generation, map[string]string{"large": strings.Repeat("x", 1<<20)}
		want := service.Size()
		stripService(service)
		stripService(service)
		if got := sizeInStore(service); got != want {
			t.Errorf("generation %d: size %d, want %d", generation, got, want)
		}
	}
}
