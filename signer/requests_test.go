// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"context"
	"errors"
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
)

const otherName = "example.com/other"

// requestIn is a request in a state: "Approved" is due, "Issued" has a certificate, "" is pending; any other is the
// condition beside Approved.
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

// TestWatchedRequests goes through what a reflector reports of one signerName, in this order.
func TestWatchedRequests(t *testing.T) {
	r := newRequests(nil) // Start is not called: nothing is asked of it
	r.keep(map[string]bool{signerName: true})
	var told []string
	r.tell(func(csr *certificatesv1.CertificateSigningRequest) { told = append(told, csr.Name) })
	w := r.watched[signerName]
	add := func(csr *certificatesv1.CertificateSigningRequest) func() error {
		return func() error { return w.Add(csr) }
	}
	replace := func(objects ...any) func() error { return func() error { return w.Replace(objects, "1") } }
	stranger := &metav1.PartialObjectMetadata{}

	if r.synced() {
		t.Error("synced before anything is read")
	}
	for _, step := range []struct {
		name string
		do   func() error
		want []string // what is due then
		told []string
		err  string
	}{
		{"the first ones", replace(requestIn("a", "Approved"), requestIn("pending", ""), requestIn("issued", "Issued")), []string{"a"}, []string{"a"}, ""},
		{"one is made", add(requestIn("b", "")), []string{"a"}, nil, ""},
		{"and approved", add(requestIn("b", "Approved")), []string{"a", "b"}, []string{"b"}, ""},
		{"changed", func() error { return w.Update(requestIn("b", "ApprovalTooOld")) }, []string{"a", "b"}, []string{"b"}, ""},
		{"and issued", add(requestIn("b", "Issued")), []string{"a"}, nil, ""},
		{"one is denied", add(requestIn("c", "Denied")), []string{"a"}, nil, ""},
		{"one fails", add(requestIn("a", "Failed")), nil, nil, ""},
		{"one is approved and deleted", func() error {
			return errors.Join(w.Add(requestIn("d", "Approved")), w.Delete(requestIn("d", "Approved")))
		}, nil, []string{"d"}, ""},
		{"what went away unseen", func() error {
			return errors.Join(w.Add(requestIn("e", "Approved")), w.Add(requestIn("f", "Approved")), w.Replace([]any{requestIn("f", "Approved"), requestIn("g", "Approved")}, "2"))
		}, []string{"f", "g"}, []string{"e", "f", "f", "g"}, ""},
		{"someone else is told", func() error {
			r.tell(func(csr *certificatesv1.CertificateSigningRequest) { told = append(told, csr.Name) })
			slices.Sort(told)
			return nil
		}, []string{"f", "g"}, []string{"f", "g"}, ""},
		{"something else", func() error { return w.Add(stranger) }, []string{"f", "g"}, nil, "a *v1.PartialObjectMetadata is no certificate request"},
		{"something else deleted", func() error { return w.Delete(stranger) }, []string{"f", "g"}, nil, "a *v1.PartialObjectMetadata is no certificate request"},
		{"something else among them", replace(requestIn("h", "Approved"), stranger), []string{"f", "g"}, nil, "a *v1.PartialObjectMetadata is no certificate request"},
	} {
		told = nil
		var text string
		if err := step.do(); err != nil {
			text = err.Error()
		}
		if text != step.err {
			t.Errorf("%s: error %q, want %q", step.name, text, step.err)
		}
		if diff := cmp.Diff(step.want, namesOf(r.of(signerName))); diff != "" {
			t.Errorf("%s: due (-want +got):\n%s", step.name, diff)
		}
		slices.Sort(told)
		if diff := cmp.Diff(step.told, told); diff != "" {
			t.Errorf("%s: told (-want +got):\n%s", step.name, diff)
		}
		for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			if got := r.get(name) != nil; got != slices.Contains(step.want, name) {
				t.Errorf("%s: %s is there: %v", step.name, name, got)
			}
		}
	}
	if !r.synced() {
		t.Error("not synced")
	}
	if r.of(otherName) != nil {
		t.Error("there are requests of a signerName that is not watched")
	}
	r.keep(nil)
	if r.get("f") != nil || r.of(signerName) != nil || !r.synced() {
		t.Error("requests are kept that no Signer is for")
	}
}

// TestWatchedRequests_kept: a request is kept whole, since it is written back, and of one that is not due nothing is.
func TestWatchedRequests_kept(t *testing.T) {
	for state, isKept := range map[string]bool{"Approved": true, "ApprovalTooOld": true, "": false, "Issued": false, "Denied": false, "Failed": false} {
		whole := requestIn("web", state, func(c *certificatesv1.CertificateSigningRequest) { c.ManagedFields = nil })
		r := newRequests(nil)
		r.keep(only(signerName))
		see := func(when string, err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("%q, %s: %v", state, when, err)
			}
			var want *certificatesv1.CertificateSigningRequest
			if isKept {
				want = whole
			}
			if diff := cmp.Diff(want, r.get("web")); diff != "" {
				t.Errorf("%q, %s: kept (-want +got):\n%s", state, when, diff)
			}
		}
		w := r.watched[signerName]
		see("changed", w.Add(requestIn("web", state)))
		see("listed", w.Replace([]any{requestIn("web", state)}, "1"))
		// As a reflector streams what there is at first, which a fake source cannot.
		first := cache.NewStore(cache.DeletionHandlingMetaNamespaceKeyFunc, cache.WithTransformer(w.Transformer()))
		if err := first.Add(requestIn("web", state)); err != nil {
			t.Fatal(err)
		}
		for _, object := range first.List() {
			if csr := object.(*certificatesv1.CertificateSigningRequest); len(csr.Spec.Request) > 0 != isKept {
				t.Errorf("%q: collected %+v", state, csr)
			}
		}
		see("streamed", w.Replace(first.List(), "1"))
		if err := first.Update(first.List()[0]); err != nil { // twice, as client-go may
			t.Fatal(err)
		}
		see("streamed again", w.Replace(first.List(), "1"))
	}
}

// TestRequests_madeAgain: a request is deleted and made again for another Signer, and the watch of the first is behind.
func TestRequests_madeAgain(t *testing.T) {
	of := func(name, version string) *certificatesv1.CertificateSigningRequest {
		return requestIn("web", "Approved", func(c *certificatesv1.CertificateSigningRequest) {
			c.Spec.SignerName, c.ResourceVersion = name, version
		})
	}
	for range 20 { // maps have no order
		r := newRequests(nil)
		r.keep(map[string]bool{signerName: true, otherName: true})
		if err := errors.Join(r.watched[otherName].Add(of(otherName, "10")), r.watched[signerName].Add(of(signerName, "9"))); err != nil {
			t.Fatal(err)
		}
		if got := r.get("web"); got.Spec.SignerName != otherName {
			t.Fatalf("got that of %s, resourceVersion %s: it is gone", got.Spec.SignerName, got.ResourceVersion)
		}
		if err := r.watched[signerName].Delete(of(signerName, "9")); err != nil {
			t.Fatal(err)
		}
		if r.get("web") == nil {
			t.Fatal("the deletion of the first took the second away")
		}
	}
}

// requestSource lists and watches one signerName. It cannot do both in one.
type requestSource struct {
	*cachetesting.FakeControllerSource
	lists   atomic.Int32
	watches atomic.Int32 // at the moment
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

// follow runs test with a requests that is started, and ended after. That it ends shows that no goroutine is left behind.
func follow(t *testing.T, test func(t *testing.T, r *requests, sources map[string]*requestSource)) {
	handlers := utilruntime.ErrorHandlers // one of which sleeps until the last error is 1 ms ago, by whichever clock that was
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
				t.Errorf("%d watches of %s are left open", n, name)
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

// TestRequests_keep: what is watched is what there are Signers of, and what has waited is there when one is made.
func TestRequests_keep(t *testing.T) {
	follow(t, func(t *testing.T, r *requests, sources map[string]*requestSource) {
		var told []string
		r.tell(func(csr *certificatesv1.CertificateSigningRequest) { told = append(told, csr.Name) })
		see := func(when string, signerNames []string, wantTold, want []string) {
			t.Helper()
			synctest.Wait()
			for name, s := range sources {
				if n := int(s.watches.Load()); (n == 1) != slices.Contains(signerNames, name) || n > 1 {
					t.Errorf("%s: %d watches of %s", when, n, name)
				}
			}
			slices.Sort(told)
			if diff := cmp.Diff(wantTold, told); diff != "" {
				t.Errorf("%s: told (-want +got):\n%s", when, diff)
			}
			if diff := cmp.Diff(want, namesOf(r.of(signerName))); diff != "" {
				t.Errorf("%s: due (-want +got):\n%s", when, diff)
			}
			if !r.synced() {
				t.Errorf("%s: not synced", when)
			}
			told = nil
		}
		ours, others := sources[signerName], sources[otherName]
		ours.Add(requestIn("waited", "Approved"))
		others.Add(requestIn("unrelated", "Approved"))
		see("there are no Signers", nil, nil, nil)
		r.keep(only(signerName))
		see("a Signer is made", []string{signerName}, []string{"waited"}, []string{"waited"})
		ours.Add(requestIn("next", "Approved"))
		see("a request comes", []string{signerName}, []string{"next"}, []string{"next", "waited"})
		r.keep(only(signerName))
		see("nothing has changed", []string{signerName}, nil, []string{"next", "waited"})
		ours.Modify(requestIn("next", "Issued"))
		ours.Delete(requestIn("waited", "Approved"))
		see("one is issued, one deleted", []string{signerName}, nil, nil)
		r.keep(only(otherName))
		see("the Signer is deleted, another made", []string{otherName}, []string{"unrelated"}, nil)
		ours.Add(requestIn("meanwhile", "Approved"))
		see("a request for the one that was deleted", []string{otherName}, nil, nil)
		r.keep(only(signerName, otherName))
		see("the Signer is made again", []string{signerName, otherName}, []string{"meanwhile"}, []string{"meanwhile"})
		r.keep(nil)
		see("all are deleted", nil, nil, nil)
		if n := ours.lists.Load(); n != 2 {
			t.Errorf("listed %d times, want once for each time it was wanted", n)
		}
	})
}

// TestRequests_faults: what cannot be read is tried again, ever more seldom, until it can, and holds up no other.
func TestRequests_faults(t *testing.T) {
	follow(t, func(t *testing.T, r *requests, sources map[string]*requestSource) {
		ours, others := sources[signerName], sources[otherName]
		ours.refuse.Store(true)
		ours.Add(requestIn("waited", "Approved"))
		others.Add(requestIn("unrelated", "Approved"))
		r.keep(only(signerName, otherName))
		time.Sleep(10 * time.Minute)
		if r.synced() || r.get("waited") != nil {
			t.Error("synced although one could not be read")
		}
		if r.get("unrelated") == nil {
			t.Error("the other is held up")
		}
		if n := ours.lists.Load(); n < 10 || n > 50 {
			t.Errorf("tried %d times in 10 minutes, want once in a minute or less", n)
		}
		ours.refuse.Store(false)
		time.Sleep(2 * time.Minute)
		if !r.synced() || r.get("waited") == nil {
			t.Error("not read, although it may be")
		}

		ours.refuse.Store(true) // its watch is cut, and what happens then is not seen
		ours.DeleteDropWatch(requestIn("waited", "Approved"))
		ours.AddDropWatch(requestIn("meanwhile", "Approved"))
		ours.ResetWatch()
		time.Sleep(time.Minute)
		if r.get("waited") == nil || !r.synced() {
			t.Error("what was known is forgotten although nothing is known instead")
		}
		ours.refuse.Store(false)
		time.Sleep(2 * time.Minute)
		if r.get("waited") != nil || r.get("meanwhile") == nil {
			t.Errorf("after it was read again: %q are due", namesOf(r.of(signerName)))
		}

		ours.refuse.Store(true) // what is not wanted is not tried again
		ours.ResetWatch()
		r.keep(nil)
		before := ours.lists.Load()
		time.Sleep(10 * time.Minute)
		if n := ours.lists.Load() - before; n > 1 {
			t.Errorf("tried %d times though it is not wanted", n)
		}
	})
}

// TestAllRequests: the API server is asked for the requests of one signerName, in the shorter encoding.
func TestAllRequests(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path+" "+r.URL.Query().Get("fieldSelector")+" "+r.Header.Get("Accept"))
		w.WriteHeader(http.StatusForbidden)
	}))
	defer server.Close()
	all, err := allRequests(&rest.Config{Host: server.URL}, server.Client())
	if err != nil {
		t.Fatal(err)
	}
	source := cache.ToListerWatcherWithContext(all(signerName))
	if _, err := source.ListWithContext(t.Context(), metav1.ListOptions{}); err == nil {
		t.Error("listed")
	}
	if _, err := source.WatchWithContext(t.Context(), metav1.ListOptions{}); err == nil {
		t.Error("watched")
	}
	const path = "/apis/certificates.k8s.io/v1/certificatesigningrequests spec.signerName=example.com/serving application/vnd.kubernetes.protobuf"
	if len(asked) != 2 || !strings.HasPrefix(asked[0], path) || !strings.HasPrefix(asked[1], path) {
		t.Errorf("asked for %q, want %s", asked, path)
	}
}

// TestConfigureManager: to read requests from the manager's cache is a fault, and does not make it watch them all.
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
