// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	cachetesting "k8s.io/client-go/tools/cache/testing"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"countersign.dev/countersign/pkcs10"
)

const otherName = "example.com/other"

// requestIn returns a request in a state: "Approved" is due, "Issued" has a certificate, "" is pending. Any other state
// is the type of a condition in addition to Approved.
func requestIn(name, state string, change ...func(*certificatesv1.CertificateSigningRequest)) *certificatesv1.CertificateSigningRequest {
	csr := &certificatesv1.CertificateSigningRequest{}
	csr.Name, csr.UID, csr.ResourceVersion = name, "uid-1", "42"
	csr.Labels, csr.Annotations = map[string]string{"l": "v"}, map[string]string{"a": "v"}
	csr.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	csr.Spec.SignerName, csr.Spec.Request, csr.Spec.Username = signerName, []byte("request"), "user"
	switch state {
	case "":
	case "Approved":
		csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{conditionOf("Approved")}
	case "Issued":
		csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{conditionOf("Approved")}
		csr.Status.Certificate = []byte("certificate")
	default:
		csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{conditionOf("Approved"), conditionOf(certificatesv1.RequestConditionType(state))}
	}
	for _, f := range change {
		f(csr)
	}
	return csr
}

func namesOf(requests []*certificatesv1.CertificateSigningRequest) []string {
	var names []string
	for _, csr := range requests {
		names = append(names, csr.Name)
	}
	slices.Sort(names)
	return names
}

// TestRequests runs the calls of a reflector for one signerName, in this order.
func TestRequests(t *testing.T) {
	r := newRequests(nil) // Start is not called: nothing is read from the nil source
	r.Keep(map[string]bool{signerName: true})
	var notified []string
	r.notify(func(csr *certificatesv1.CertificateSigningRequest) { notified = append(notified, csr.Name) })
	w := r.Store(signerName)
	add := func(csr *certificatesv1.CertificateSigningRequest) func() error {
		return func() error { return w.Add(csr) }
	}
	replace := func(objects ...any) func() error { return func() error { return w.Replace(objects, "1") } }
	otherType := &metav1.PartialObjectMetadata{}

	if r.Synced() {
		t.Error("synced before the first list")
	}
	for _, step := range []struct {
		name     string
		do       func() error
		want     []string // due after it
		notified []string
		err      string
	}{
		{"listed", replace(requestIn("a", "Approved"), requestIn("pending", ""), requestIn("issued", "Issued")), []string{"a"}, []string{"a"}, ""},
		{"created", add(requestIn("b", "")), []string{"a"}, nil, ""},
		{"approved", add(requestIn("b", "Approved")), []string{"a", "b"}, []string{"b"}, ""},
		{"condition added", func() error { return w.Update(requestIn("b", "ApprovalTooOld")) }, []string{"a", "b"}, []string{"b"}, ""},
		{"issued", add(requestIn("b", "Issued")), []string{"a"}, nil, ""},
		{"denied", add(requestIn("c", "Denied")), []string{"a"}, nil, ""},
		{"failed", add(requestIn("a", "Failed")), nil, nil, ""},
		{"approved and deleted", func() error {
			return errors.Join(w.Add(requestIn("d", "Approved")), w.Delete(requestIn("d", "Approved")))
		}, nil, []string{"d"}, ""},
		{"listed again, one deleted meanwhile", func() error {
			return errors.Join(w.Add(requestIn("e", "Approved")), w.Add(requestIn("f", "Approved")), w.Replace([]any{requestIn("f", "Approved"), requestIn("g", "Approved")}, "2"))
		}, []string{"f", "g"}, []string{"e", "f", "f", "g"}, ""},
		{"another handler", func() error {
			r.notify(func(csr *certificatesv1.CertificateSigningRequest) { notified = append(notified, csr.Name) })
			slices.Sort(notified)
			return nil
		}, []string{"f", "g"}, []string{"f", "g"}, ""},
		{"of another type", func() error { return w.Add(otherType) }, []string{"f", "g"}, nil, "unexpected type *v1.PartialObjectMetadata, want *v1.CertificateSigningRequest"},
		{"deleted, of another type", func() error { return w.Delete(otherType) }, []string{"f", "g"}, nil, "unexpected type *v1.PartialObjectMetadata, want *v1.CertificateSigningRequest"},
		{"listed, one of another type", replace(requestIn("h", "Approved"), otherType), []string{"f", "g"}, nil, "unexpected type *v1.PartialObjectMetadata, want *v1.CertificateSigningRequest"},
	} {
		notified = nil
		var text string
		if err := step.do(); err != nil {
			text = err.Error()
		}
		if text != step.err {
			t.Errorf("%s: error %q, want %q", step.name, text, step.err)
		}
		if diff := cmp.Diff(step.want, namesOf(r.List(signerName))); diff != "" {
			t.Errorf("%s: due (-want +got):\n%s", step.name, diff)
		}
		slices.Sort(notified)
		if diff := cmp.Diff(step.notified, notified); diff != "" {
			t.Errorf("%s: notified (-want +got):\n%s", step.name, diff)
		}
		for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			if got := r.get(name) != nil; got != slices.Contains(step.want, name) {
				t.Errorf("%s: request %s found: %v", step.name, name, got)
			}
		}
	}
	if !r.Synced() {
		t.Error("not synced")
	}
	if r.List(otherName) != nil {
		t.Error("got requests for a signerName that is not watched")
	}
	r.Keep(nil)
	if r.get("f") != nil || r.List(signerName) != nil || !r.Synced() {
		t.Error("got requests for a signerName without a Signer")
	}
}

// TestRequests_dueOnly: a due request is stored without the metadata that others chose. Other requests are dropped, also
// while the reflector collects the first list.
func TestRequests_dueOnly(t *testing.T) {
	for _, tc := range []struct {
		state string
		due   bool
	}{{"Approved", true}, {"ApprovalTooOld", true}, {"", false}, {"Issued", false}, {"Denied", false}, {"Failed", false}} {
		state := tc.state
		reduced := requestIn("web", state, func(c *certificatesv1.CertificateSigningRequest) {
			c.ManagedFields, c.Labels, c.Annotations = nil, nil, nil
			for i := range c.Status.Conditions {
				c.Status.Conditions[i].Reason = ""
			}
		})
		r := newRequests(nil)
		r.Keep(only(signerName))
		check := func(when string, err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("%q, %s: %v", state, when, err)
			}
			var want *certificatesv1.CertificateSigningRequest
			if tc.due {
				want = reduced
			}
			if diff := cmp.Diff(want, r.get("web")); diff != "" {
				t.Errorf("%q, %s: kept (-want +got):\n%s", state, when, diff)
			}
		}
		w := r.Store(signerName)
		check("changed", w.Add(requestIn("web", state)))
		check("listed", w.Replace([]any{requestIn("web", state)}, "1"))
		// A reflector streams the first list into such a store. A fake source cannot stream.
		first := cache.NewStore(cache.DeletionHandlingMetaNamespaceKeyFunc, cache.WithTransformer(w.Transformer()))
		if err := first.Add(requestIn("web", state)); err != nil {
			t.Fatal(err)
		}
		for _, object := range first.List() {
			if csr, isWhole := object.(*certificatesv1.CertificateSigningRequest); isWhole {
				t.Errorf("%q: collected %+v", state, csr)
			}
		}
		check("streamed", w.Replace(first.List(), "1"))
	}
}

// TestDueOnly_bounds: a requester, and users that can approve, cannot fill the memory of the signer with one request.
func TestDueOnly_bounds(t *testing.T) {
	large := strings.Repeat("x", 1<<20)
	for _, test := range []struct {
		name   string
		change func(*certificatesv1.CertificateSigningRequest)
		limit  int
	}{
		{"labels", func(c *certificatesv1.CertificateSigningRequest) { c.Labels["large"] = large }, 1 << 10},
		{"annotations", func(c *certificatesv1.CertificateSigningRequest) { c.Annotations["large"] = large }, 1 << 10},
		{"finalizers", func(c *certificatesv1.CertificateSigningRequest) { c.Finalizers = []string{large} }, 1 << 10},
		{"owners", func(c *certificatesv1.CertificateSigningRequest) {
			c.OwnerReferences = []metav1.OwnerReference{{Kind: large}}
		}, 1 << 10},
		{"request", func(c *certificatesv1.CertificateSigningRequest) { c.Spec.Request = []byte(large) }, 17 << 10},
		{"messages", func(c *certificatesv1.CertificateSigningRequest) {
			c.Status.Conditions[0].Reason, c.Status.Conditions[0].Message = large, large
			c.Status.Conditions = append(c.Status.Conditions, conditionOf("ApprovalTooOld"), conditionOf(certificatesv1.RequestConditionType(large)))
			c.Status.Conditions[1].Message = large
		}, 9 << 10},
		{"conditions", func(c *certificatesv1.CertificateSigningRequest) {
			for range 10_000 {
				c.Status.Conditions = append(c.Status.Conditions, conditionOf("Theirs"))
			}
		}, 1 << 10},
	} {
		if got := dueOnly(requestIn("web", "Approved", test.change)).Size(); got > test.limit {
			t.Errorf("%s: %d bytes are kept, want at most %d", test.name, got, test.limit)
		}
	}
}

// TestDueOnly_padding: a requester adds line ends to the PEM, up to 16 KiB. The signer keeps none of them, and refuses what
// it refused before.
func TestDueOnly_padding(t *testing.T) {
	honest := string(newCSR(t, testKeys().EC, nil, nil).Spec.Request)
	const end = "-----END"
	padded := strings.Replace(honest, end, strings.Repeat("\n", pkcs10.MaxSize-len(honest))+end, 1)
	for _, test := range []struct {
		name, request, want string
		refused             bool
	}{
		{"honest", honest, honest, false},
		{"line ends in the body", padded, honest, false},
		{"line ends around the block", "\n\n" + honest + strings.Repeat("\n", 10_000), honest, false},
		{"carriage returns", strings.ReplaceAll(honest, "\n", "\r\n"), honest, false},
		{"text before the block", "x\n" + padded[:pkcs10.MaxSize-2], "x\n" + padded[:pkcs10.MaxSize-2], true},
		{"text after the block", honest + "x", honest + "x", true},
		{"headers", strings.Replace(honest, "REQUEST-----\n", "REQUEST-----\nA: b\n\n", 1), strings.Replace(honest, "REQUEST-----\n", "REQUEST-----\nA: b\n\n", 1), true},
		{"too long", padded + "\n", (padded + "\n")[:pkcs10.MaxSize+1], true},
		{"no block", strings.Repeat("x", 5000), strings.Repeat("x", 5000), true},
	} {
		csr := newCSR(t, testKeys().EC, nil, func(c *certificatesv1.CertificateSigningRequest) { c.Spec.Request = []byte(test.request) })
		got := dueOnly(csr).Spec.Request
		if string(got) != test.want {
			t.Errorf("%s: %d bytes are kept, want %d", test.name, len(got), len(test.want))
		}
		_, before := pkcs10.Parse([]byte(test.request))
		_, after := pkcs10.Parse(got)
		if fmt.Sprint(before) != fmt.Sprint(after) || (after != nil) != test.refused {
			t.Errorf("%s: %v; what is kept: %v", test.name, before, after)
		}
	}
}

// TestRequests_recreated: a request is deleted and created again for another Signer, and the watch of the first lags behind.
func TestRequests_recreated(t *testing.T) {
	request := func(name, version string) *certificatesv1.CertificateSigningRequest {
		return requestIn("web", "Approved", func(c *certificatesv1.CertificateSigningRequest) {
			c.Spec.SignerName, c.ResourceVersion = name, version
		})
	}
	for range 20 { // maps have no order
		r := newRequests(nil)
		r.Keep(map[string]bool{signerName: true, otherName: true})
		if err := errors.Join(r.Store(otherName).Add(request(otherName, "10")), r.Store(signerName).Add(request(signerName, "9"))); err != nil {
			t.Fatal(err)
		}
		if got := r.get("web"); got.Spec.SignerName != otherName {
			t.Fatalf("got the deleted request for %s, resourceVersion %s", got.Spec.SignerName, got.ResourceVersion)
		}
		if err := r.Store(signerName).Delete(request(signerName, "9")); err != nil {
			t.Fatal(err)
		}
		if r.get("web") == nil {
			t.Fatal("the deletion of the first request removed the second")
		}
	}
}

// requestSource lists and watches the requests for one signerName. It cannot stream a list.
type requestSource struct {
	*cachetesting.FakeControllerSource
	lists   atomic.Int32
	watches atomic.Int32 // open
	refuse  atomic.Bool
}

func (*requestSource) IsWatchListSemanticsUnSupported() bool { return true }

func (s *requestSource) List(o metav1.ListOptions) (runtime.Object, error) {
	s.lists.Add(1)
	if s.refuse.Load() {
		return nil, errors.New("forbidden")
	}
	return s.FakeControllerSource.List(o)
}

func (s *requestSource) Watch(o metav1.ListOptions) (watch.Interface, error) {
	if s.refuse.Load() {
		return nil, errors.New("forbidden")
	}
	w, err := s.FakeControllerSource.Watch(o)
	if err != nil {
		return nil, err
	}
	s.watches.Add(1)
	return &countedWatch{Interface: w, open: &s.watches}, nil
}

type countedWatch struct {
	watch.Interface
	open    *atomic.Int32
	stopped atomic.Bool
}

func (w *countedWatch) Stop() {
	if !w.stopped.Swap(true) {
		w.open.Add(-1)
	}
	w.Interface.Stop()
}

// withStarted runs test with a requests that is started, and stops it afterwards. It fails if a goroutine is left behind.
func withStarted(t *testing.T, test func(t *testing.T, r *requests, sources map[string]*requestSource)) {
	handlers := utilruntime.ErrorHandlers // one sleeps until the last error is 1 ms ago, by the real or the fake clock
	utilruntime.ErrorHandlers = nil
	defer func() { utilruntime.ErrorHandlers = handlers }()
	synctest.Test(t, func(t *testing.T) {
		sources := map[string]*requestSource{}
		for _, name := range []string{signerName, otherName} {
			sources[name] = &requestSource{FakeControllerSource: cachetesting.NewFakeControllerSource()}
		}
		r := newRequests(func(signerName string) cache.ListerWatcher { return sources[signerName] })
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.Start(ctx) }()
		test(t, r, sources)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		for name, s := range sources {
			if n := s.watches.Load(); n != 0 {
				t.Errorf("%s: %d watches left open", name, n)
			}
			s.Shutdown()
		}
	})
}

func only(signerNames ...string) map[string]bool {
	names := map[string]bool{}
	for _, name := range signerNames {
		names[name] = true
	}
	return names
}

// TestRequests_Keep: the signerNames of Signers are watched. A new Signer gets the requests that were due before.
func TestRequests_Keep(t *testing.T) {
	withStarted(t, func(t *testing.T, r *requests, sources map[string]*requestSource) {
		var notified []string
		r.notify(func(csr *certificatesv1.CertificateSigningRequest) { notified = append(notified, csr.Name) })
		check := func(when string, signerNames []string, wantNotified, want []string) {
			t.Helper()
			synctest.Wait()
			for name, s := range sources {
				if n := int(s.watches.Load()); (n == 1) != slices.Contains(signerNames, name) || n > 1 {
					t.Errorf("%s: %d watches of %s", when, n, name)
				}
			}
			slices.Sort(notified)
			if diff := cmp.Diff(wantNotified, notified); diff != "" {
				t.Errorf("%s: notified (-want +got):\n%s", when, diff)
			}
			if diff := cmp.Diff(want, namesOf(r.List(signerName))); diff != "" {
				t.Errorf("%s: due (-want +got):\n%s", when, diff)
			}
			if !r.Synced() {
				t.Errorf("%s: not synced", when)
			}
			notified = nil
		}
		ours, others := sources[signerName], sources[otherName]
		ours.Add(requestIn("waited", "Approved"))
		others.Add(requestIn("unrelated", "Approved"))
		check("no Signers", nil, nil, nil)
		r.Keep(only(signerName))
		check("Signer created", []string{signerName}, []string{"waited"}, []string{"waited"})
		ours.Add(requestIn("next", "Approved"))
		check("request created", []string{signerName}, []string{"next"}, []string{"next", "waited"})
		r.Keep(only(signerName))
		check("no change", []string{signerName}, nil, []string{"next", "waited"})
		ours.Modify(requestIn("next", "Issued"))
		ours.Delete(requestIn("waited", "Approved"))
		check("one issued, one deleted", []string{signerName}, nil, nil)
		r.Keep(only(otherName))
		check("Signer deleted, another created", []string{otherName}, []string{"unrelated"}, nil)
		ours.Add(requestIn("meanwhile", "Approved"))
		check("request for the deleted Signer", []string{otherName}, nil, nil)
		r.Keep(only(signerName, otherName))
		check("Signer created again", []string{signerName, otherName}, []string{"meanwhile"}, []string{"meanwhile"})
		r.Keep(nil)
		check("all Signers deleted", nil, nil, nil)
		if n := ours.lists.Load(); n != 2 {
			t.Errorf("listed %d times, want 2: once for each Keep", n)
		}
	})
}

// TestRequests_errors: a list that fails is retried with backoff, and does not delay other signerNames.
func TestRequests_errors(t *testing.T) {
	withStarted(t, func(t *testing.T, r *requests, sources map[string]*requestSource) {
		ours, others := sources[signerName], sources[otherName]
		ours.refuse.Store(true)
		ours.Add(requestIn("waited", "Approved"))
		others.Add(requestIn("unrelated", "Approved"))
		r.Keep(only(signerName, otherName))
		time.Sleep(10 * time.Minute)
		if r.Synced() || r.get("waited") != nil {
			t.Error("synced although one signerName cannot be listed")
		}
		if r.get("unrelated") == nil {
			t.Error("the other signerName is not listed")
		}
		if n := ours.lists.Load(); n < 10 || n > 50 {
			t.Errorf("listed %d times in 10 minutes, want 10 to 50", n)
		}
		ours.refuse.Store(false)
		time.Sleep(2 * time.Minute)
		if !r.Synced() || r.get("waited") == nil {
			t.Error("not listed after the permission was granted")
		}

		ours.refuse.Store(true) // the watch ends, and events are missed
		ours.DeleteDropWatch(requestIn("waited", "Approved"))
		ours.AddDropWatch(requestIn("meanwhile", "Approved"))
		ours.ResetWatch()
		time.Sleep(time.Minute)
		if r.get("waited") == nil || !r.Synced() {
			t.Error("requests are dropped although the list fails")
		}
		ours.refuse.Store(false)
		time.Sleep(2 * time.Minute)
		if r.get("waited") != nil || r.get("meanwhile") == nil {
			t.Errorf("after a new list: %q are due", namesOf(r.List(signerName)))
		}

		ours.refuse.Store(true) // a watch that was dropped is not retried
		ours.ResetWatch()
		r.Keep(nil)
		before := ours.lists.Load()
		time.Sleep(10 * time.Minute)
		if n := ours.lists.Load() - before; n > 1 {
			t.Errorf("listed %d times after it was dropped", n)
		}
	})
}

// TestRequestsBySignerName: list and watch select one signerName, and ask for protobuf.
func TestRequestsBySignerName(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path+" "+r.URL.Query().Get("fieldSelector")+" "+r.Header.Get("Accept"))
		w.WriteHeader(http.StatusForbidden)
	}))
	defer server.Close()
	source, err := requestsBySignerName(&rest.Config{Host: server.URL}, server.Client())
	if err != nil {
		t.Fatal(err)
	}
	watcher := cache.ToListerWatcherWithContext(source(signerName))
	if _, err := watcher.ListWithContext(t.Context(), metav1.ListOptions{}); err == nil {
		t.Error("list: no error")
	}
	if _, err := watcher.WatchWithContext(t.Context(), metav1.ListOptions{}); err == nil {
		t.Error("watch: no error")
	}
	const path = "/apis/certificates.k8s.io/v1/certificatesigningrequests spec.signerName=example.com/serving application/vnd.kubernetes.protobuf"
	if len(asked) != 2 || !strings.HasPrefix(asked[0], path) || !strings.HasPrefix(asked[1], path) {
		t.Errorf("got requests %q, want %s", asked, path)
	}
}

// TestConfigureManager: reading requests from the manager's cache is an error, and does not start a watch of all requests.
func TestConfigureManager(t *testing.T) {
	scheme, err := NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	mapper := meta.NewDefaultRESTMapper(nil)
	for _, kind := range []schema.GroupVersionKind{corev1.SchemeGroupVersion.WithKind("Namespace"), certificatesv1.SchemeGroupVersion.WithKind("CertificateSigningRequest")} {
		mapper.Add(kind, meta.RESTScopeRoot)
	}
	var o manager.Options
	New(Options{}).ConfigureManager(&o)
	o.Cache.Scheme, o.Cache.Mapper = scheme, mapper
	c, err := ctrlcache.New(&rest.Config{Host: "http://127.0.0.1:1"}, o.Cache)
	if err != nil {
		t.Fatal(err)
	}
	var missing *ctrlcache.ErrResourceNotCached
	if err := c.List(t.Context(), &certificatesv1.CertificateSigningRequestList{}); !errors.As(err, &missing) {
		t.Errorf("listing: got %v, want %T", err, missing)
	}
	if err := c.Get(t.Context(), client.ObjectKey{Name: "web"}, &certificatesv1.CertificateSigningRequest{}); !errors.As(err, &missing) {
		t.Errorf("reading: got %v, want %T", err, missing)
	}
}
