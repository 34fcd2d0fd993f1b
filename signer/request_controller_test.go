// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/internal/fairqueue"
	"countersign.dev/countersign/signer/issuance"
)

// TestRequestReconciler_errors covers errors of the API server, the audit log and the CA. Integration
// tests cover requests that are issued.
func TestRequestReconciler_errors(t *testing.T) {
	keys := testKeys()
	resource := schema.GroupResource{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}
	clock := now
	const tooOld = "approved at 2026-03-01T10:59:00Z, longer ago than the limit of 1h0m0s: create a new request, or raise spec.maxApprovalAge of the Signer"
	tests := []struct {
		name     string
		object   func(*certificatesv1.CertificateSigningRequest)
		ca       func(*x509.Certificate)
		writeErr error // returned by the update of the status
		at       time.Time
		want     reconcile.Result
		err      bool
		outcome  [2]string // outcome and reason of the one metric that counts
		events   []string
		recheck  bool
		written  bool
		record   []string // verdicts and results in the audit log
		full     bool     // the disk of the audit log is full
		stale    bool     // the Signer has changed since it was loaded
	}{
		{name: "issued", outcome: [2]string{outcomeIssued, ""}, written: true, record: []string{"Issued", "written"}},
		{
			name: "not issued if the record cannot be written",
			full: true, err: true, outcome: [2]string{outcomeRetried, "Audit"},
		},
		{
			name:   "not failed if the record cannot be written",
			object: usages("any"), full: true, err: true, outcome: [2]string{outcomeRetried, "Audit"},
		},
		{
			name:   "not failed if the Signer has changed",
			object: usages("any"), stale: true, recheck: true, want: reconcile.Result{RequeueAfter: staleRetry}, outcome: [2]string{outcomeRetried, "Stale"},
		},
		{
			name: "names that the CA does not permit",
			ca:   func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"other"} },
			want: reconcile.Result{RequeueAfter: caProblemRetry}, recheck: true, outcome: [2]string{outcomeRetried, issuance.ReasonNameNotPermitted},
			events: []string{`Warning NameNotPermitted the name constraints of the CA "CN=Test CA" or its issuers reject the request: x509: a root or intermediate certificate is not authorized to sign for this name: DNS name "web.example" is not permitted by any constraint. Use a CA that permits the names, or a policy that denies them`},
		},
		{
			name:     "conflict",
			writeErr: apierrors.NewConflict(resource, "web", errors.New("changed")), record: []string{"Issued", "refused"},
			want: reconcile.Result{RequeueAfter: time.Second}, outcome: [2]string{outcomeRetried, "Conflict"},
		},
		{name: "deleted", writeErr: apierrors.NewNotFound(resource, "web"), record: []string{"Issued", "refused"}},
		{
			name:     "forbidden",
			record:   []string{"Issued", "refused"},
			writeErr: apierrors.NewForbidden(resource, "web", errors.New("no")), err: true, outcome: [2]string{outcomeRetried, "Forbidden"},
			events: []string{`Warning SigningForbidden grant the verb "sign" on signers.certificates.k8s.io with resourceNames ["example.com/serving"], and "patch" on certificatesigningrequests/status: certificatesigningrequests.certificates.k8s.io "web" is forbidden: no`},
		},
		{
			name:     "API server not reachable",
			writeErr: errors.New("connection refused"), err: true, outcome: [2]string{outcomeRetried, "Write"},
			record: []string{"Issued", "unknown"},
		},
		{
			name:   "Event for Failed after the write",
			record: []string{"Failed", "written"},
			object: usages("any"), outcome: [2]string{outcomeFailed, issuance.ReasonUsageNotAllowed}, written: true,
			events: []string{`Warning UsageNotAllowed usage "any" is not allowed: the Signer allows "digital signature", "key encipherment", "server auth"`},
		},
		{
			name:   "too large to store a certificate in it",
			record: []string{"Failed", "written"},
			object: func(c *certificatesv1.CertificateSigningRequest) {
				c.Labels = map[string]string{"large": strings.Repeat("x", maxObject+1024)}
			}, outcome: [2]string{outcomeFailed, issuance.ReasonRequestRefused}, written: true,
			events: []string{"Warning RequestRefused the request has 1025 KiB with its metadata: the limit is 1024; create a new request with fewer labels and annotations"},
		},
		{
			name:   "no Event for Failed if the write fails",
			object: usages("any"), writeErr: errors.New("connection refused"), err: true, outcome: [2]string{outcomeRetried, "Write"},
			record: []string{"Failed", "unknown"},
		},
		{
			name:   "Event for ApprovalTooOld after the write",
			object: approved(now.Add(-61 * time.Minute)), outcome: [2]string{outcomeLeft, issuance.ReasonApprovalTooOld}, written: true,
			record: []string{"ApprovalTooOld", "written"}, events: []string{"Warning ApprovalTooOld " + tooOld},
		},
		{
			name:   "no Event for ApprovalTooOld if the write fails",
			object: approved(now.Add(-61 * time.Minute)), writeErr: errors.New("connection refused"), err: true, outcome: [2]string{outcomeRetried, "Write"},
			record: []string{"ApprovalTooOld", "unknown"},
		},
		{
			name:   "no ApprovalTooOld if the record cannot be written",
			object: approved(now.Add(-61 * time.Minute)), full: true, err: true, outcome: [2]string{outcomeRetried, "Audit"},
		},
		{
			name: "ApprovalTooOld takes precedence over Failed",
			object: func(c *certificatesv1.CertificateSigningRequest) {
				usages("any")(c)
				approved(now.Add(-61 * time.Minute))(c)
			},
			record: []string{"ApprovalTooOld", "written"}, outcome: [2]string{outcomeLeft, issuance.ReasonApprovalTooOld}, written: true,
			events: []string{"Warning ApprovalTooOld " + tooOld},
		},
		{
			name:   "CA expired after it was loaded",
			object: approved(now.AddDate(20, 0, 0)),
			at:     now.AddDate(20, 0, 0), want: reconcile.Result{RequeueAfter: caProblemRetry},
			outcome: [2]string{outcomeRetried, v1alpha1.ReasonCAExpired}, recheck: true,
			events: []string{`Warning CAExpired the certificate "CN=Test CA" expired at 2036-03-01T12:00:00Z: replace the CA with a renewed one`},
		},
		{
			name:    "message with a percent sign",
			record:  []string{"Failed", "written"},
			object:  func(c *certificatesv1.CertificateSigningRequest) { c.Spec.Usages = []certificatesv1.KeyUsage{"%d"} },
			outcome: [2]string{outcomeFailed, issuance.ReasonUsageNotAllowed}, written: true,
			events: []string{`Warning UsageNotAllowed usage "%d" is not allowed: the Signer allows "digital signature", "key encipherment", "server auth"`},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			scheme, err := NewScheme()
			if err != nil {
				t.Fatal(err)
			}
			csr := newCSR(t, keys.EC, nil, test.object)
			signer := &v1alpha1.Signer{ObjectMeta: metav1.ObjectMeta{Name: "serving", UID: "serving-uid", Generation: 1}, Spec: v1alpha1.SignerSpec{SignerName: signerName}}
			loaded := signer.DeepCopy()
			if test.stale {
				signer.Generation++
			}
			alterCA := func(*x509.Certificate) {}
			if test.ca != nil {
				alterCA = test.ca
			}
			c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(csr, signer).WithStatusSubresource(csr).
				WithInterceptorFuncs(interceptor.Funcs{
					SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
						if data, err := patch.Data(o); err != nil || !strings.Contains(string(data), `"path":"/metadata/resourceVersion","value":"`) {
							t.Errorf("written without resourceVersion: %s, %v", data, err)
						}
						if test.writeErr != nil {
							return test.writeErr
						}
						return c.SubResource(sub).Patch(ctx, o, patch, options...)
					},
				}).Build()
			metrics, err := newMetrics(prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			signers := newRegistry()
			signers.set("serving", signerName, &readySigner{
				signer:  loaded,
				profile: newProfile(t), ca: newCA(t, keys.EC, alterCA),
			})
			recorder := events.NewFakeRecorder(8)
			disk := &disk{full: test.full}
			rechecked := false
			at := clock
			if !test.at.IsZero() {
				at = test.at
			}
			r := &requestReconciler{
				due: dueIn(t, c), cached: readerOf(t, loaded), live: c, status: c.Status(), signers: signers, events: recorder, metrics: metrics, log: audit.NewLog(disk),
				recheck: func(_ context.Context, name string) { rechecked = name == "serving" },
				now:     func() time.Time { return at },
			}
			got, err := r.Reconcile(t.Context(), fairqueue.Item{Name: "web"})
			if (err != nil) != test.err {
				t.Errorf("error %v, want one: %v", err, test.err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
			if rechecked != test.recheck {
				t.Errorf("rechecked the Signer: %v, want %v", rechecked, test.recheck)
			}
			if test.outcome[0] != "" {
				if n := testutil.ToFloat64(metrics.certificates.WithLabelValues("serving", test.outcome[0], test.outcome[1])); n != 1 {
					t.Errorf("metric for %v is %v, want 1", test.outcome, n)
				}
			}
			if diff := cmp.Diff(test.record, disk.recorded(t)); diff != "" {
				t.Errorf("audit log (-want +got):\n%s", diff)
			}
			close(recorder.Events)
			if emitted := slices.Collect(each(recorder.Events)); !slices.Equal(emitted, test.events) {
				t.Errorf("events %q, want %q", emitted, test.events)
			}
			var after certificatesv1.CertificateSigningRequest
			if err := c.Get(t.Context(), client.ObjectKey{Name: "web"}, &after); err != nil {
				t.Fatal(err)
			}
			written := len(after.Status.Certificate) > 0 || len(after.Status.Conditions) > 1
			if written != test.written {
				t.Errorf("written: %v, want %v: %+v", written, test.written, after.Status)
			}
			if after.Status.Conditions[0].Type != certificatesv1.CertificateApproved {
				t.Errorf("the condition Approved was removed: %+v", after.Status.Conditions)
			}
		})
	}
}

// TestRequestReconciler_approvalAge checks that the condition ApprovalTooOld is written once for each limit,
// and that the request is issued when the limit is raised.
func TestRequestReconciler_approvalAge(t *testing.T) {
	scheme, err := NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	csr := newCSR(t, testKeys().EC, nil, approved(now.Add(-3*time.Hour)))
	writes := 0
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(csr).WithStatusSubresource(csr).
		WithInterceptorFuncs(interceptor.Funcs{
			SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
				if sub != "status" {
					t.Errorf("written to %s", sub)
				}
				writes++
				return c.SubResource(sub).Patch(ctx, o, patch, options...)
			},
		}).Build()
	metrics, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	signers := newRegistry()
	signer := &v1alpha1.Signer{ObjectMeta: metav1.ObjectMeta{Name: "serving"}}
	authority := newCA(t, testKeys().EC, nil)
	recorder := events.NewFakeRecorder(8)
	r := &requestReconciler{
		due: dueIn(t, c), cached: readerOf(t, signer), live: c, status: c.Status(), signers: signers, events: recorder, metrics: metrics, log: audit.NewLog(&disk{}),
		now: func() time.Time { return now },
	}
	var after certificatesv1.CertificateSigningRequest
	reconcileBy := func(limit time.Duration) {
		t.Helper()
		profile, err := issuance.NewProfile(v1alpha1.SignerSpec{SignerName: signerName, MaxApprovalAge: &metav1.Duration{Duration: limit}})
		if err != nil {
			t.Fatal(err)
		}
		signers.set("serving", signerName, &readySigner{signer: signer, profile: profile, ca: authority})
		result, err := r.Reconcile(t.Context(), fairqueue.Item{Name: "web"})
		if err != nil || result != (reconcile.Result{}) {
			t.Fatalf("got %v, %v, want no requeue", result, err)
		}
		if err := c.Get(t.Context(), client.ObjectKey{Name: "web"}, &after); err != nil {
			t.Fatal(err)
		}
	}
	for i, limit := range []time.Duration{time.Hour, time.Hour, 2 * time.Hour, 2 * time.Hour} {
		reconcileBy(limit)
		if want := i/2 + 1; writes != want {
			t.Fatalf("%d writes after %d reconciles, want %d", writes, i+1, want)
		}
		want := certificatesv1.CertificateSigningRequestCondition{
			Type: v1alpha1.ConditionApprovalTooOld, Status: "True", Reason: "ApprovalTooOld",
			Message: "approved at 2026-03-01T09:00:00Z, longer ago than the limit of " + limit.String() +
				": create a new request, or raise spec.maxApprovalAge of the Signer",
		}
		got := after.Status.Conditions[len(after.Status.Conditions)-1]
		got.LastUpdateTime, got.LastTransitionTime = metav1.Time{}, metav1.Time{}
		if diff := cmp.Diff(want, got); diff != "" || len(after.Status.Conditions) != 2 {
			t.Errorf("condition (-want +got):\n%s", diff)
		}
	}
	if len(recorder.Events) != 2 {
		t.Errorf("%d Events, want one for each limit", len(recorder.Events))
	}
	if n := testutil.ToFloat64(metrics.certificates.WithLabelValues("serving", outcomeLeft, issuance.ReasonApprovalTooOld)); n != 2 {
		t.Errorf("counted %v times, want 2", n)
	}
	reconcileBy(4 * time.Hour)
	if len(after.Status.Certificate) == 0 || len(after.Status.Conditions) != 1 {
		t.Errorf("not issued after the limit was raised: %+v", after.Status)
	}
}

// TestRequestReconciler_due checks that a due request is issued, and that only its status changes.
func TestRequestReconciler_due(t *testing.T) {
	keys := testKeys()
	changed := func(c *certificatesv1.CertificateSigningRequest) {
		c.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{conditionOf(certificatesv1.CertificateDenied)}
	}
	tests := []struct {
		name   string
		cached bool
		ready  bool                                            // the Signer
		since  func(*certificatesv1.CertificateSigningRequest) // change that is not in the cache
		gone   bool
		want   reconcile.Result
		issued bool
	}{
		{name: "due", cached: true, ready: true, issued: true},
		{name: "denied after it was cached", cached: true, ready: true, since: changed, want: reconcile.Result{RequeueAfter: conflictRetry}},
		{name: "deleted after it was cached", cached: true, ready: true, gone: true},
		{name: "not due", ready: true},
		{name: "not due, and no Signer is ready"},
		{name: "no Signer is ready", cached: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			csr := newCSR(t, keys.EC, nil, func(c *certificatesv1.CertificateSigningRequest) {
				c.Labels, c.Annotations = map[string]string{"l": "v"}, map[string]string{"a": "v"}
				c.Finalizers = []string{"example.com/keep"}
				c.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "node-1", UID: "node"}}
			})
			csr.Status.Conditions = append(csr.Status.Conditions, conditionOf("example.com/Theirs"))
			server, _ := newAPIServer(t, csr)
			due := dueIn(t, server)("web")
			read := func() *certificatesv1.CertificateSigningRequest {
				t.Helper()
				var stored certificatesv1.CertificateSigningRequest
				if err := server.Get(t.Context(), client.ObjectKey{Name: "web"}, &stored); err != nil {
					t.Fatal(err)
				}
				return &stored
			}
			stored := read()
			if test.since != nil {
				changed := read()
				test.since(changed)
				if err := server.Status().Update(t.Context(), changed); err != nil {
					t.Fatal(err)
				}
			}
			if test.gone {
				changed := read()
				changed.Finalizers = nil
				if err := server.Update(t.Context(), changed); err != nil {
					t.Fatal(err)
				}
				if err := server.Delete(t.Context(), changed); err != nil {
					t.Fatal(err)
				}
			}
			signers, serving := newRegistry(), &v1alpha1.Signer{ObjectMeta: metav1.ObjectMeta{Name: "serving"}}
			if test.ready {
				signers.set("serving", signerName, &readySigner{signer: serving, profile: newProfile(t), ca: newCA(t, keys.EC, nil)})
			}
			metrics, err := newMetrics(prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			before := due.DeepCopy()
			r := &requestReconciler{
				due: func(name string) *certificatesv1.CertificateSigningRequest {
					if name == due.Name && test.cached {
						return due
					}
					return nil
				},
				cached: readerOf(t, serving), live: server, status: server.Status(), signers: signers, metrics: metrics, now: func() time.Time { return now },
				log: audit.NewLog(io.Discard),
			}
			if result, err := r.Reconcile(t.Context(), fairqueue.Item{Name: "web"}); err != nil || result != test.want {
				t.Errorf("got %+v, %v, want %+v", result, err, test.want)
			}
			if diff := cmp.Diff(before, due); diff != "" {
				t.Errorf("the cached request was changed (-before +after):\n%s", diff)
			}
			if test.gone {
				return
			}
			after := read()
			if issued := len(after.Status.Certificate) > 0; issued != test.issued {
				t.Errorf("issued: %v, want %v", issued, test.issued)
			}
			after.ResourceVersion = stored.ResourceVersion
			if diff := cmp.Diff(stored.ObjectMeta, after.ObjectMeta); diff != "" {
				t.Errorf("the metadata has changed (-before +after):\n%s", diff)
			}
			if diff := cmp.Diff(stored.Status.Conditions, after.Status.Conditions); diff != "" && test.since == nil {
				t.Errorf("conditions of others have changed (-before +after):\n%s", diff)
			}
		})
	}
}

// TestRequestReconciler_staleSigner checks that nothing is issued by a spec that is not the latest one in the cache,
// although the reconciler of the Signer has not loaded that yet: it publishes for another 20 s, or cannot read the Signer.
func TestRequestReconciler_staleSigner(t *testing.T) {
	authority := newCA(t, testKeys().EC, nil)
	tests := []struct {
		name   string
		cached func(*v1alpha1.Signer) *v1alpha1.Signer // nil: the Signer is not in the cache
		err    error
		issued bool
	}{
		{"unchanged", func(s *v1alpha1.Signer) *v1alpha1.Signer { return s }, nil, true},
		{"another status", func(s *v1alpha1.Signer) *v1alpha1.Signer {
			s.Status.ObservedGeneration = 2
			return s
		}, nil, true},
		{"the CA is distrusted", func(s *v1alpha1.Signer) *v1alpha1.Signer {
			s.Generation++
			s.Spec.Trust.Distrusted = []string{authority.Fingerprint()}
			return s
		}, nil, false},
		{"deleted", func(*v1alpha1.Signer) *v1alpha1.Signer { return nil }, nil, false},
		{"deleted and created again", func(s *v1alpha1.Signer) *v1alpha1.Signer {
			s.UID, s.Generation = "other", 1
			return s
		}, nil, false},
		{"the cache is behind", func(s *v1alpha1.Signer) *v1alpha1.Signer {
			s.Generation--
			return s
		}, nil, true},
		{"the cache cannot be read", func(s *v1alpha1.Signer) *v1alpha1.Signer { return s }, errors.New("no informer"), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			csr := newCSR(t, testKeys().EC, nil, nil)
			server, _ := newAPIServer(t, csr)
			loaded := &v1alpha1.Signer{ObjectMeta: metav1.ObjectMeta{Name: "serving", UID: "uid", Generation: 2}, Spec: v1alpha1.SignerSpec{SignerName: signerName}}
			signers := newRegistry()
			signers.set("serving", signerName, &readySigner{signer: loaded, profile: newProfile(t), ca: authority})
			var inCache []client.Object
			if s := test.cached(loaded.DeepCopy()); s != nil {
				inCache = append(inCache, s)
			}
			metrics, err := newMetrics(prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			disk := &disk{}
			r := &requestReconciler{
				due: dueIn(t, server), cached: failingReader{readerOf(t, inCache...), test.err}, live: server, status: server.Status(),
				signers: signers, metrics: metrics, log: audit.NewLog(disk), now: func() time.Time { return now },
			}
			want := reconcile.Result{RequeueAfter: staleRetry}
			if test.issued {
				want = reconcile.Result{}
			}
			if got, err := r.Reconcile(t.Context(), fairqueue.Item{Name: "web"}); got != want || !errors.Is(err, test.err) {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
			if recorded := len(disk.recorded(t)) > 0; recorded != test.issued {
				t.Errorf("recorded: %v, want %v", recorded, test.issued)
			}
			var after certificatesv1.CertificateSigningRequest
			if err := server.Get(t.Context(), client.ObjectKeyFromObject(csr), &after); err != nil {
				t.Fatal(err)
			}
			if issued := len(after.Status.Certificate) > 0; issued != test.issued {
				t.Errorf("issued: %v, want %v", issued, test.issued)
			}
		})
	}
}

// failingReader fails each read with err, unless it is nil.
type failingReader struct {
	client.Reader
	err error
}

func (r failingReader) Get(ctx context.Context, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
	if r.err != nil {
		return r.err
	}
	return r.Reader.Get(ctx, key, o, options...)
}

// readerOf returns a reader of the objects, such as a cache.
func readerOf(t *testing.T, objects ...client.Object) client.Reader {
	t.Helper()
	for i := range objects {
		objects[i], _ = objects[i].DeepCopyObject().(client.Object)
	}
	server, _ := newAPIServer(t, objects...)
	return server
}

// dueIn returns a function that reads due requests from a client, in place of the cache.
func dueIn(t *testing.T, c client.Client) func(string) *certificatesv1.CertificateSigningRequest {
	return func(name string) *certificatesv1.CertificateSigningRequest {
		csr := &certificatesv1.CertificateSigningRequest{}
		if err := c.Get(t.Context(), client.ObjectKey{Name: name}, csr); err != nil {
			t.Error(err)
			return nil
		}
		return dueOnly(csr)
	}
}

// TestCertificateOf checks that the audit record describes the certificate that is issued.
func TestCertificateOf(t *testing.T) {
	keys := testKeys()
	authority := newCA(t, keys.EC, nil)
	csr := newCSR(t, keys.EC, func(r *x509.CertificateRequest) {
		r.Subject.Organization = []string{"zeta", "alpha"}
		r.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)}
		r.EmailAddresses = []string{"web@example.com"}
		r.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.com", Path: "/ns/a/sa/b"}}
	}, nil)
	prepared, err := issuance.Prepare(now, csr, newProfile(t), authority)
	if err != nil {
		t.Fatal(err)
	}
	got := certificateOf(prepared.Issuance, authority)
	_, issued, err := prepared.Issuance.Issue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := &audit.Certificate{
		Serial:  fmt.Sprintf("%032x", issued.SerialNumber),
		Subject: "CN=web.example,O=zeta+O=alpha", DNSNames: []string{"web.example"}, IPAddresses: []string{"10.0.0.1"},
		URIs: []string{"spiffe://example.com/ns/a/sa/b"}, EmailAddresses: []string{"web@example.com"},
		KeySHA256:     fmt.Sprintf("%x", sha256.Sum256(issued.RawSubjectPublicKeyInfo)),
		CAFingerprint: authority.Fingerprint(), NotBefore: issued.NotBefore, NotAfter: issued.NotAfter,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}

func TestMetrics_forget(t *testing.T) {
	registry := prometheus.NewRegistry()
	m, err := newMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, signer := range []string{"deleted", "other"} {
		m.certificates.WithLabelValues(signer, outcomeIssued, "").Inc()
		m.certificates.WithLabelValues(signer, outcomeRetried, retriedWrite).Inc()
		m.duration.WithLabelValues(signer).Observe(1)
		m.caNotAfter.WithLabelValues(signer).Set(1)
	}
	m.forget("deleted")
	if n, err := testutil.GatherAndCount(registry); n != 4 || err != nil {
		t.Errorf("got %d series, want the 4 of the other Signer: %v", n, err)
	}
}

// disk is the file of an audit log. It can be full.
type disk struct {
	bytes.Buffer
	full bool
}

func (d *disk) Write(p []byte) (int, error) {
	if d.full {
		return 0, errors.New("no space left on device")
	}
	return d.Buffer.Write(p)
}

// recorded returns the verdict of each decision and the result of each outcome.
func (d *disk) recorded(t *testing.T) (out []string) {
	t.Helper()
	for line := range strings.Lines(d.String()) {
		var record struct {
			Decision *audit.Decision
			Outcome  *audit.Outcome
		}
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatal(err)
		}
		switch {
		case record.Decision != nil:
			out = append(out, record.Decision.Verdict)
			if issued := record.Decision.Verdict == "Issued"; issued != (record.Decision.Certificate != nil) {
				t.Errorf("certificate %+v of %s", record.Decision.Certificate, record.Decision.Verdict)
			}
		default:
			out = append(out, record.Outcome.Result)
		}
	}
	return out
}

func each(c <-chan string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for s := range c {
			if !yield(s) {
				return
			}
		}
	}
}
