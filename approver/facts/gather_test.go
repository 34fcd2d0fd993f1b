// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"countersign.dev/countersign/internal/certreq"
	"countersign.dev/countersign/pkcs10"
)

// How facts are gathered from a real API server is shown by the integration tests. Here is what
// such a server cannot be made to do: a cache that is behind, and an error of each call.

var at = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// scene is a cache and an API server that may differ.
type scene struct {
	cached, live []client.Object
	review       authorizationv1.SubjectAccessReviewStatus
	// failing is which call fails, counted from 1; 0 is none.
	failing int
	calls   int
	lists   int // of Services, from the API server
	reviews []authorizationv1.SubjectAccessReviewSpec
	// created has the revision at which each request was created, by name. The API server removed the revisions before
	// compacted.
	created   map[string]uint64
	compacted uint64
}

var errAway = errors.New("API server not reachable")

func (s *scene) call() error {
	if s.calls++; s.calls == s.failing {
		return errAway
	}
	return nil
}

func (s *scene) client(t *testing.T, objects []client.Object, live bool) client.Client {
	t.Helper()
	builder := fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).WithObjects(objects...)
	if !live { // the API server has no indexes of ours
		if err := AddIndexes(t.Context(), indexer{builder}); err != nil {
			t.Fatal(err)
		}
	}
	return builder.WithInterceptorFuncs(interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			if err := s.call(); err != nil {
				return err
			}
			return c.Get(ctx, key, object, options...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			if err := s.call(); err != nil {
				return err
			}
			if _, services := list.(*corev1.ServiceList); services && live {
				s.lists++
			}
			if requests, ok := list.(*certificatesv1.CertificateSigningRequestList); ok && live {
				return s.listAt(ctx, c, requests, options)
			}
			return c.List(ctx, list, options...)
		},
		Create: func(_ context.Context, _ client.WithWatch, object client.Object, _ ...client.CreateOption) error {
			if err := s.call(); err != nil {
				return err
			}
			review, ok := object.(*authorizationv1.SubjectAccessReview)
			if !ok {
				t.Fatalf("created %T", object)
			}
			s.reviews = append(s.reviews, review.Spec)
			review.Status = s.review
			return nil
		},
	}).Build()
}

// listAt lists the request of a name as it was at an exact revision.
func (s *scene) listAt(ctx context.Context, c client.Client, list *certificatesv1.CertificateSigningRequestList, options []client.ListOption) error {
	o := (&client.ListOptions{}).ApplyOptions(options)
	revision, err := strconv.ParseUint(o.Raw.ResourceVersion, 10, 64)
	name, ok := o.FieldSelector.RequiresExactMatch("metadata.name")
	if err != nil || revision == 0 || !ok || o.Raw.ResourceVersionMatch != metav1.ResourceVersionMatchExact {
		return fmt.Errorf("unexpected list %+v", o)
	}
	if revision < s.compacted {
		return apierrors.NewResourceExpired("compacted")
	}
	var request certificatesv1.CertificateSigningRequest
	if err := c.Get(ctx, client.ObjectKey{Name: name}, &request); err != nil {
		return client.IgnoreNotFound(err)
	}
	if created := s.created[name]; created != 0 && created <= revision {
		list.Items = append(list.Items, request)
	}
	return nil
}

type indexer struct{ *fake.ClientBuilder }

func (i indexer) IndexField(_ context.Context, object client.Object, field string, extract client.IndexerFunc) error {
	i.WithIndex(object, field, extract)
	return nil
}

// gatherer has the same objects in cache and API server, unless live differs.
func (s *scene) gatherer(t *testing.T) *Gatherer {
	t.Helper()
	live := s.live
	if live == nil {
		live = s.cached
	}
	api := s.client(t, live, true)
	pods := NewPods(nil, func([]Awaited) {})
	var known []any
	for _, object := range s.cached {
		if pod, ok := object.(*corev1.Pod); ok {
			known = append(known, pod)
		}
	}
	if err := pods.Store(allPods).Replace(known, ""); err != nil {
		t.Fatal(err)
	}
	return NewGatherer(s.client(t, s.cached, false), pods, api, api, "cluster.local")
}

func namespaceObject() client.Object {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns", UID: "ns-uid"}}
}

func podObject(name string, change func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name + "-uid"), Labels: map[string]string{"app": "my-app"}},
		Spec:       corev1.PodSpec{ServiceAccountName: "sa"},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.0.34.2"}}},
	}
	if change != nil {
		change(pod)
	}
	return pod
}

func serviceObject(name, ip string, selector map[string]string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name + "-uid")},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip}, Selector: selector},
	}
}

var myApp = map[string]string{"app": "my-app"}

// byPod is who a Pod's own token makes of a requester; byHuman is a person.
func byPod(name string) certificatesv1.CertificateSigningRequestSpec {
	return certificatesv1.CertificateSigningRequestSpec{
		Username: "system:serviceaccount:ns:sa",
		Extra:    map[string]certificatesv1.ExtraValue{certreq.PodNameExtra: {name}, certreq.PodUIDExtra: {name + "-uid"}},
	}
}

var byHuman = certificatesv1.CertificateSigningRequestSpec{
	Username: "jane", UID: "7", Groups: []string{"ops"}, Extra: map[string]certificatesv1.ExtraValue{"scopes": {"a", "b"}},
}

// request makes a CertificateSigningRequest as the API server would hold it.
func request(t *testing.T, name string, spec certificatesv1.CertificateSigningRequestSpec, key *ecdsa.PrivateKey, names []string, ips ...string) (*certificatesv1.CertificateSigningRequest, *pkcs10.Request) {
	t.Helper()
	template := &x509.CertificateRequest{DNSNames: names}
	for _, ip := range ips {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(ip))
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	spec.SignerName, spec.Request = "example.com/serving", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	parsed, err := pkcs10.Parse(spec.Request)
	if err != nil {
		t.Fatal(err)
	}
	csr := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name + "-uid"), CreationTimestamp: metav1.NewTime(at)}, Spec: spec,
	}
	stripRequest(csr, func(string) bool { return true }) // as the cache has it
	return csr, parsed
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func details(resolved []Resolved) []string {
	out := []string{}
	for _, r := range resolved {
		out = append(out, r.Detail)
	}
	return out
}

func TestGatherPod(t *testing.T) {
	s := &scene{cached: []client.Object{
		namespaceObject(), podObject("my-pod", nil),
		podObject("other", func(p *corev1.Pod) { p.Status.PodIPs[0].IP = "10.0.34.4" }),
		serviceObject("my-svc", "192.0.2.24", myApp), serviceObject("web", "192.0.2.25", map[string]string{"app": "web"}),
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Address: "10.0.0.11"}}}},
	}}
	csr, parsed := request(t, "mine", byPod("my-pod"), newKey(t),
		[]string{"my-svc.ns.svc.cluster.local", "web.ns.svc", "10-0-34-4.ns.pod.cluster.local", "nothing.ns.svc", "example.com"}, "10.0.34.2", "10.0.0.11")
	f, err := s.gatherer(t).Live(t.Context(), csr, parsed, at)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for name, resolved := range f.Cluster.Resolved {
		got[name] = details(resolved)
	}
	want := map[string][]string{
		"my-svc.ns.svc.cluster.local":    {"Service ns/my-svc selects Pod my-pod"},
		"web.ns.svc":                     {"Service ns/web selects app=web; Pod my-pod has app=my-app"},
		"10-0-34-4.ns.pod.cluster.local": {"Pod ns/other has it"},
		"nothing.ns.svc":                 {},
		"example.com":                    {},
		"10.0.34.2":                      {"Pod ns/my-pod has it"},
		"10.0.0.11":                      {"a Node has it"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("resolved (-want +got):\n%s", diff)
	}
	if pod := f.Cluster.Subject.Pod; pod == nil || pod.UID != "my-pod-uid" || len(f.Cluster.Subject.Services) != 1 || f.Cluster.Subject.Services[0].Name != "my-svc" {
		t.Errorf("subject %+v", f.Cluster.Subject)
	}
	if len(s.reviews) > 0 {
		t.Errorf("a Pod acts for itself, but delegation was reviewed: %+v", s.reviews)
	}
}

// TestExternalIPs: the author of a Service can list any address there. Such an address belongs to no
// object, and is not stored.
func TestExternalIPs(t *testing.T) {
	service := serviceObject("my-svc", "192.0.2.24", myApp)
	service.Spec.ExternalIPs = []string{"198.51.100.7"}
	s := &scene{cached: []client.Object{namespaceObject(), podObject("my-pod", nil), service}}
	csr, parsed := request(t, "mine", byPod("my-pod"), newKey(t), nil, "198.51.100.7")
	for _, live := range []bool{false, true} {
		f, err := s.gatherer(t).gather(t.Context(), csr, parsed, at, live)
		if err != nil {
			t.Fatal(err)
		}
		if found, ok := f.Cluster.Resolved["198.51.100.7"]; !ok || len(found) > 0 {
			t.Errorf("live %v: the address belongs to %+v", live, found)
		}
		if diff := cmp.Diff([]string{"192.0.2.24"}, f.Cluster.Subject.Services[0].ClusterIPs); diff != "" {
			t.Errorf("live %v: cluster IPs (-want +got):\n%s", live, diff)
		}
	}
}

func TestGatherDelegate(t *testing.T) {
	objects := []client.Object{namespaceObject(), podObject("my-pod", nil), podObject("other", func(p *corev1.Pod) { p.Status.PodIPs[0].IP = "10.0.34.4" })}
	for _, tc := range []struct {
		name       string
		names      []string
		review     authorizationv1.SubjectAccessReviewStatus
		candidates int
		pod        string
		want       Delegation
		wantErr    string
	}{
		{
			"one Pod, allowed",
			[]string{"my-pod.ns.pod.cluster.local"},
			authorizationv1.SubjectAccessReviewStatus{Allowed: true, Reason: "a RoleBinding"},
			1, "my-pod",
			Delegation{Allowed: true, Reason: "a RoleBinding"},
			"",
		},
		{"one Pod, not allowed", []string{"my-pod.ns.pod.cluster.local"}, authorizationv1.SubjectAccessReviewStatus{}, 1, "my-pod", Delegation{}, ""},
		{"one Pod, allowed and denied", []string{"my-pod.ns.pod.cluster.local"}, authorizationv1.SubjectAccessReviewStatus{Allowed: true, Denied: true}, 1, "my-pod", Delegation{}, ""},
		{name: "authorizer returns an error", names: []string{"my-pod.ns.pod.cluster.local"}, review: authorizationv1.SubjectAccessReviewStatus{EvaluationError: "webhook timed out"}, wantErr: "reviewing delegation: the authorizer returned an error: webhook timed out"},
		{
			"two Pods",
			[]string{"my-pod.ns.pod.cluster.local", "other.ns.pod.cluster.local"},
			authorizationv1.SubjectAccessReviewStatus{Allowed: true},
			2, "",
			Delegation{Reason: "not reviewed: the request does not identify exactly one Pod"},
			"",
		},
		{
			"no Pod",
			[]string{"example.com"},
			authorizationv1.SubjectAccessReviewStatus{Allowed: true},
			0, "",
			Delegation{Reason: "not reviewed: the request does not identify exactly one Pod"},
			"",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &scene{cached: objects, review: tc.review}
			csr, parsed := request(t, "theirs", byHuman, newKey(t), tc.names)
			f, err := s.gatherer(t).Recent(t.Context(), csr, parsed, at)
			if tc.wantErr != "" {
				if err == nil || err.Error() != tc.wantErr {
					t.Errorf("got %v, want %s", err, tc.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			pod := ""
			if f.Cluster.Subject.Pod != nil {
				pod = f.Cluster.Subject.Pod.Name
			}
			if pod != tc.pod || f.Cluster.Subject.Candidates != tc.candidates {
				t.Errorf("subject %+v", f.Cluster.Subject)
			}
			if diff := cmp.Diff(tc.want, f.Cluster.Delegation); diff != "" {
				t.Errorf("delegation (-want +got):\n%s", diff)
			}
			if pod == "" {
				return
			}
			want := []authorizationv1.SubjectAccessReviewSpec{{
				User: "jane", UID: "7", Groups: []string{"ops"}, Extra: map[string]authorizationv1.ExtraValue{"scopes": {"a", "b"}},
				ResourceAttributes: &authorizationv1.ResourceAttributes{
					Namespace: "ns", Verb: "create", Group: "certificates.k8s.io", Version: "*", Resource: "certificatesigningrequests", Subresource: "delegated",
				},
			}}
			if diff := cmp.Diff(want, s.reviews); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
		})
	}
}

// TestLiveIgnoresStaleCache: whatever a denial could rest on is gone by now, or has changed.
func TestLiveIgnoresStaleCache(t *testing.T) {
	key := newKey(t)
	before, _ := request(t, "before", byHuman, key, []string{"example.com"})
	recreated, _ := request(t, "recreated", byHuman, key, []string{"example.com"})
	another := recreated.DeepCopy()
	another.UID = "another"
	s := &scene{
		cached: []client.Object{
			namespaceObject(), podObject("my-pod", nil), before, recreated,
			podObject("done", func(p *corev1.Pod) { p.Status.PodIPs[0].IP = "10.0.34.9" }), serviceObject("gone", "192.0.2.30", nil),
			&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Address: "10.0.34.9"}}}},
		},
		live: []client.Object{
			namespaceObject(), podObject("my-pod", nil), another,
			podObject("done", func(p *corev1.Pod) { p.Status.PodIPs[0].IP = "10.0.34.9"; p.Status.Phase = corev1.PodSucceeded }),
			&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}},
		},
	}
	csr, parsed := request(t, "mine", byPod("my-pod"), key, []string{"gone.ns.svc"}, "10.0.34.9", "192.0.2.30")
	g := s.gatherer(t)
	recent, err := g.Recent(t.Context(), csr, parsed, at)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(recent.Cluster.Resolved["10.0.34.9"]); n != 2 || len(recent.Cluster.SameKey) != 2 {
		t.Errorf("the cache has it in %d places, and %+v", n, recent.Cluster.SameKey)
	}
	live, err := g.Live(t.Context(), csr, parsed, at)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]Resolved{"gone.ns.svc": {}, "10.0.34.9": {}, "192.0.2.30": {}}
	if diff := cmp.Diff(want, live.Cluster.Resolved); diff != "" {
		t.Errorf("resolved (-want +got):\n%s", diff)
	}
	if len(live.Cluster.SameKey) > 0 {
		t.Errorf("requests that are gone count: %+v", live.Cluster.SameKey)
	}
}

func TestSurroundingsAreReadOnceASecond(t *testing.T) {
	s := &scene{cached: []client.Object{namespaceObject(), podObject("my-pod", nil)}}
	g := s.gatherer(t)
	csr, parsed := request(t, "mine", byPod("my-pod"), newKey(t), []string{"my-pod.ns.pod.cluster.local"})
	for i, step := range []struct {
		live  bool
		lists int
	}{{false, 1}, {false, 1}, {true, 2}, {false, 2}} {
		if _, err := g.gather(t.Context(), csr, parsed, at, step.live); err != nil {
			t.Fatal(err)
		}
		if s.lists != step.lists {
			t.Errorf("after step %d: %d lists, want %d", i, s.lists, step.lists)
		}
	}
	g.surroundings.mu.Lock()
	for namespace, cached := range g.surroundings.byNamespace {
		cached.readAt = cached.readAt.Add(-MaxAge)
		g.surroundings.byNamespace[namespace] = cached
	}
	g.surroundings.mu.Unlock()
	if _, err := g.Recent(t.Context(), csr, parsed, at); err != nil || s.lists != 3 {
		t.Errorf("a second later: %d lists, want 3; %v", s.lists, err)
	}
	g.Forget("ns")
	if _, err := g.Recent(t.Context(), csr, parsed, at); err != nil || s.lists != 4 {
		t.Errorf("after it was forgotten: %d lists, want 4; %v", s.lists, err)
	}
}

// TestGatherInvalidNames: no object can have such a name, so the API server must not be asked for one:
// it would reject the name, which is an error. Package pkcs10 refuses such names too.
func TestGatherInvalidNames(t *testing.T) {
	s := &scene{cached: []client.Object{namespaceObject(), podObject("my-pod", nil)}}
	names := []string{".ns.svc", "web..svc", "a/b.ns.svc", "a%b.ns.svc", ".ns.pod.cluster.local", "..ns.svc", "-.ns.svc", ".svc", "a..ns.svc.cluster.local"}
	for _, live := range []bool{false, true} {
		csr, parsed := request(t, "mine", byPod("my-pod"), newKey(t), nil)
		parsed.DNSNames = names
		f, err := s.gatherer(t).gather(t.Context(), csr, parsed, at, live)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if found, ok := f.Cluster.Resolved[name]; !ok || len(found) > 0 {
				t.Errorf("%q: %v, %v", name, found, ok)
			}
		}
	}
	forged := byPod("a/b")
	csr, parsed := request(t, "mine", forged, newKey(t), nil)
	parsed.DNSNames = names
	calls := s.calls
	if f, err := s.gatherer(t).Live(t.Context(), csr, parsed, at); err != nil || f.Cluster.Subject.Pod != nil {
		t.Errorf("a Pod called a/b: %+v, %v after %d calls", f.Cluster.Subject, err, s.calls-calls)
	}
}

// TestGatherCrowds: objects that share a name or a key cost a few reads, and hide no other object.
func TestGatherCrowds(t *testing.T) {
	key := newKey(t)
	objects := []client.Object{namespaceObject(), podObject("my-pod", nil)}
	for i := range 100 {
		objects = append(objects, podObject(fmt.Sprintf("crowd-%d", i), func(p *corev1.Pod) { p.Spec.Hostname, p.Spec.Subdomain = "a", "b" }))
		later, _ := request(t, fmt.Sprintf("a-%d", i), byPod(fmt.Sprintf("crowd-%d", i)), key, []string{"example.com"})
		later.CreationTimestamp = metav1.NewTime(at.Add(time.Minute))
		objects = append(objects, later)
	}
	first, _ := request(t, "z-first", byHuman, key, []string{"example.com"})
	first.CreationTimestamp = metav1.NewTime(at.Add(-time.Minute))
	s := &scene{cached: append(objects, first)}
	csr, parsed := request(t, "mine", byPod("my-pod"), key, []string{"a.b.ns.svc", "A.b.ns.svc", "a.B.ns.svc"})
	f, err := s.gatherer(t).Live(t.Context(), csr, parsed, at)
	if err != nil {
		t.Fatal(err)
	}
	if same := f.Cluster.SameKey; len(same) != 1 || same[0].Name != "z-first" || !same[0].Earlier {
		t.Errorf("requests with the same key: %+v", same)
	}
	if n := len(f.Cluster.Resolved["A.b.ns.svc"]); n != maxResolved {
		t.Errorf("%d Pods are named, want %d", n, maxResolved)
	}
	if s.calls > 60 {
		t.Errorf("%d calls", s.calls)
	}
}

func TestAwaits(t *testing.T) {
	for _, tc := range []struct {
		name      string
		requester Requester
		subject   *Pod
		want      []Awaited
	}{
		{
			"a Pod",
			Requester{ServiceAccount: &ServiceAccountRef{Namespace: "ns"}, Pod: &ObjectRef{Name: "my-pod"}},
			nil,
			[]Awaited{{"Pod", "ns", "my-pod"}, {"Service", "ns", ""}},
		},
		{"a Node", Requester{Username: "system:node:node-1", Groups: []string{"system:nodes"}}, nil, []Awaited{{"Node", "", "node-1"}}},
		{
			"a delegate of a Pod",
			Requester{Username: "jane"},
			&Pod{Namespace: "ns", Name: "my-pod"},
			[]Awaited{{"Pod", "ns", "my-pod"}, {"Service", "ns", ""}},
		},
		{
			"a delegate without a Pod",
			Requester{Username: "jane"},
			nil,
			[]Awaited{{"Pod", "ns", ""}, {"Pod", "ns", ""}, {"IP", "", "10.0.34.2"}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := Facts{Requester: tc.requester, Cluster: Cluster{Domain: "cluster.local", Subject: ClusterSubject{Pod: tc.subject}}}
			f.PKCS10.DNSNames, f.PKCS10.IPAddresses = []string{"my-pod.ns.pod.cluster.local", "a.b.ns.svc", "my-svc.ns.svc"}, []string{"10.0.34.2"}
			got := f.Awaits()
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	changed := knownOf(podObject("my-pod", nil)).awaitedBy()
	want := []Awaited{{"Pod", "ns", "my-pod"}, {"Pod", "ns", ""}, {"IP", "", "10.0.34.2"}}
	if diff := cmp.Diff(want, changed); diff != "" {
		t.Errorf("a Pod that changes (-want +got):\n%s", diff)
	}
}

// TestGatherErrors fails each call in turn: an error is never taken for a missing object.
func TestGatherErrors(t *testing.T) {
	key := newKey(t)
	other, _ := request(t, "other", byPod("other"), key, []string{"example.com"})
	objects := []client.Object{
		namespaceObject(), podObject("my-pod", nil), serviceObject("my-svc", "192.0.2.24", myApp), other,
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Address: "10.0.0.11"}}}},
	}
	for _, requester := range []struct {
		name string
		spec certificatesv1.CertificateSigningRequestSpec
	}{{"a Pod", byPod("my-pod")}, {"a delegate", byHuman}} {
		name, spec := requester.name, requester.spec
		for _, live := range []bool{false, true} {
			csr, parsed := request(t, "mine", spec, key, []string{"my-svc.ns.svc", "my-pod.ns.pod.cluster.local"}, "10.0.34.2", "10.0.0.11")
			failing := 1
			for ; ; failing++ {
				s := &scene{cached: objects, failing: failing}
				f, err := s.gatherer(t).gather(t.Context(), csr, parsed, at, live)
				if s.calls < failing { // it was never reached
					if err != nil {
						t.Errorf("%s, live %v: %v", name, live, err)
					}
					break
				}
				if !errors.Is(err, errAway) {
					t.Errorf("%s, live %v, call %d fails: got %v", name, live, failing, err)
				}
				if diff := cmp.Diff(Gathered{}, f); diff != "" {
					t.Errorf("%s, live %v, call %d fails, and there are facts:\n%s", name, live, failing, diff)
				}
			}
			if failing < 12 {
				t.Errorf("%s, live %v: only %d calls", name, live, failing-1)
			}
		}
	}
}

// TestGatherShortensLabels: a user can create objects with a megabyte of labels, and request
// many names whose details would repeat them.
func TestGatherShortensLabels(t *testing.T) {
	many := map[string]string{"app": "my-app"}
	for i := range 1000 {
		many[fmt.Sprintf("example.com/label-%d", i)] = strings.Repeat("x", 63)
	}
	objects := []client.Object{namespaceObject(), podObject("my-pod", func(p *corev1.Pod) { p.Labels = many })}
	var names []string
	for i := range 64 {
		selector := map[string]string{"app": "other"}
		if i == 0 {
			selector = many
			selector = maps.Clone(selector)
			selector["app"] = "other"
		}
		objects = append(objects, serviceObject(fmt.Sprint("s", i), fmt.Sprint("192.0.2.", i+1), selector))
		names = append(names, fmt.Sprintf("s%d.ns.svc", i))
	}
	csr, parsed := request(t, "mine", byPod("my-pod"), newKey(t), names)
	f, err := (&scene{cached: objects}).gatherer(t).Live(t.Context(), csr, parsed, at)
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, resolved := range f.Cluster.Resolved {
		for _, r := range resolved {
			total += len(r.Detail)
		}
	}
	if total > 64*1024 {
		t.Errorf("%d bytes of detail", total)
	}
	if got, want := f.Cluster.Resolved["s1.ns.svc"][0].Detail, "Service ns/s1 selects app=other; Pod my-pod has app=my-app"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestSurroundingsCanceledRequest: requests of one second share one read, and
// not the deadline of the first one. A read that took too long is repeated.
func TestSurroundingsCanceledRequest(t *testing.T) {
	s := &scene{cached: []client.Object{namespaceObject(), podObject("my-pod", nil)}}
	g := s.gatherer(t)
	slow := make(chan struct{})
	asked := make(chan struct{}, 8)
	live := g.live
	g.live = interceptor.NewClient(live.(client.WithWatch), interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			asked <- struct{}{}
			select {
			case <-slow:
			case <-ctx.Done():
				return ctx.Err()
			}
			return c.List(ctx, list, options...)
		},
	})
	impatient, leave := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := g.recentSurroundings(impatient, "ns")
		first <- err
	}()
	<-asked
	go func() {
		_, err := g.recentSurroundings(t.Context(), "ns")
		second <- err
	}()
	leave()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("canceled request: %v", err)
	}
	close(slow)
	if err := <-second; err != nil {
		t.Errorf("other request: %v", err)
	}
}
