// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	cachetesting "k8s.io/client-go/tools/cache/testing"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/approver/policy"
	"countersign.dev/countersign/approver/review"
	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/internal/fairqueue"
)

const (
	regoHeader = "package countersign.mine\n\nimport rego.v2\n\n"
	allowing   = regoHeader + "subject_controls_key := true\n\nsubject_is_authorized := true\n\nviolations contains v if some v in []\n"
	denying    = regoHeader + "subject_controls_key := true\n\nsubject_is_authorized := false\n\nviolations contains {\"requirement\": 2, \"id\": \"no\", \"message\": \"not today\"} if true\n"
	holding    = regoHeader + "subject_controls_key := true\n\nsubject_is_authorized := false\n\nviolations contains {\"requirement\": 2, \"id\": \"soon\", \"message\": \"not yet\", \"retryable\": true} if true\n"
	abstaining = allowing + "\napplies := false\n"
	failing    = regoHeader + "subject_controls_key := true\n\nsubject_is_authorized := true\n\nviolations contains v if some v in [{\"requirement\": 7, \"id\": \"no\", \"message\": \"not today\"}]\n"
)

var since = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// world is one request and a reconciler whose API server and audit log can fail. Other tests use a
// real API server.
type world struct {
	reconciler *requestReconciler
	recorder   *events.FakeRecorder
	disk       bytes.Buffer
	full       bool          // the disk of the audit log is full
	writes     int           // to /approval, including failed ones
	writeErr   error         // of a write to /approval
	podErr     error         // of every read of a Pod
	hangs      bool          // a write to /approval that has a deadline ends at its deadline
	slow       time.Duration // of a write to the disk
	now        time.Time
}

func (w *world) Write(p []byte) (int, error) {
	time.Sleep(w.slow)
	if w.full {
		return 0, errors.New("no space left on device")
	}
	return w.disk.Write(p)
}

type fieldIndexer struct{ *fake.ClientBuilder }

func (i fieldIndexer) IndexField(_ context.Context, object client.Object, field string, extract client.IndexerFunc) error {
	i.WithIndex(object, field, extract)
	return nil
}

func newWorld(t *testing.T, module string) *world {
	t.Helper()
	scheme, err := NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"my-pod.ns.pod.cluster.local"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "web", UID: "web-uid", CreationTimestamp: metav1.NewTime(since)},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: "example.com/serving", Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			Username: "system:serviceaccount:ns:sa", Usages: []certificatesv1.KeyUsage{"server auth"},
			Extra: map[string]certificatesv1.ExtraValue{"authentication.kubernetes.io/pod-name": {"my-pod"}, "authentication.kubernetes.io/pod-uid": {"u"}},
		},
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "my-pod", UID: "u", Labels: map[string]string{"app": "web"}}}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}
	w := &world{recorder: events.NewFakeRecorder(8), now: since}
	builder := fake.NewClientBuilder().WithScheme(scheme).WithObjects(csr, pod, namespace).WithStatusSubresource(csr).WithInterceptorFuncs(interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			if _, isPod := object.(*corev1.Pod); isPod && w.podErr != nil {
				return w.podErr
			}
			return c.Get(ctx, key, object, options...)
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, object client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
			w.writes++
			body, err := patch.Data(object)
			if sub != "approval" || err != nil || !bytes.Contains(body, []byte(`"resourceVersion":"`)) {
				t.Errorf("patch of %q: %s, %v", sub, body, err)
			}
			if len(w.recorder.Events) > 0 {
				t.Error("the Event was emitted before the write")
			}
			if !strings.Contains(w.disk.String(), `"decision":`) {
				t.Error("the verdict was written before it was recorded")
			}
			if _, ok := ctx.Deadline(); ok && w.hangs {
				<-ctx.Done()
				return ctx.Err()
			}
			if w.writeErr != nil {
				return w.writeErr
			}
			return c.Status().Patch(ctx, object, patch, options...)
		},
	})
	if err := facts.AddIndexes(t.Context(), fieldIndexer{builder}); err != nil {
		t.Fatal(err)
	}
	policies := &policy.Set{}
	policies.Replace([]policy.Policy{loadedPolicy(t, module)})
	c := builder.Build()
	gatherer := facts.NewGatherer(c, podsOf(t, pod), c, c, "cluster.local")
	w.reconciler = &requestReconciler{
		client: c, live: c, log: audit.NewLog(w), events: w.recorder, holds: newHolds(), comparison: newComparison(), compared: func() {}, forget: gatherer.Forget,
		reviewer: &review.Reviewer{Policies: policies, Gatherer: gatherer, Now: func() time.Time { return w.now }},
	}
	return w
}

// podSource lists and watches. It cannot do both in one.
type podSource struct {
	*cachetesting.FakeControllerSource
}

func (podSource) IsWatchListSemanticsUnSupported() bool { return true }

// podsOf is the cache of the Pods among some objects.
func podsOf(t *testing.T, objects ...client.Object) *facts.Pods {
	t.Helper()
	all := podSource{cachetesting.NewFakeControllerSource()}
	for _, object := range objects {
		if pod, ok := object.(*corev1.Pod); ok {
			all.Add(pod.DeepCopy())
		}
	}
	pods := facts.NewPods(all, func([]facts.Awaited) {})
	go func() { _ = pods.Start(t.Context()) }()
	if err := pods.WaitForSync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return pods
}

// loadedPolicy returns a policy for every signer of example.com.
func loadedPolicy(t *testing.T, module string) policy.Policy {
	t.Helper()
	return policy.Policy{Name: "mine", UID: "mine-uid", SignerNames: []string{"example.com/*"}, HoldFor: time.Minute, Active: compile(t, module)}
}

func compile(t *testing.T, module string) *evaluator.Policy {
	t.Helper()
	compiled, err := evaluator.Compile(t.Context(), evaluator.Source{Package: "countersign.mine", Modules: map[string]string{"mine.rego": module}})
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// reconcile has the one request decided, at a time.
func (w *world) reconcile(t *testing.T, at time.Time) (reconcile.Result, error) {
	t.Helper()
	w.now = at
	return w.reconciler.Reconcile(t.Context(), fairqueue.Item{Name: "web"})
}

// verdict is the type of the request's condition, and its reason.
func (w *world) verdict(t *testing.T) string {
	t.Helper()
	var csr certificatesv1.CertificateSigningRequest
	if err := w.reconciler.live.Get(t.Context(), client.ObjectKey{Name: "web"}, &csr); err != nil {
		t.Fatal(err)
	}
	if len(csr.Status.Conditions) == 0 {
		return ""
	}
	return string(csr.Status.Conditions[0].Type) + " " + csr.Status.Conditions[0].Reason
}

// recorded returns the verdicts in the audit log, and the outcome of each.
func (w *world) recorded(t *testing.T) []string {
	t.Helper()
	out := []string{}
	for line := range strings.Lines(w.disk.String()) {
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
		case record.Outcome.Result == audit.Written:
			out = append(out, "written")
		default:
			out = append(out, record.Outcome.Result+": "+record.Outcome.Error)
		}
	}
	return out
}

func TestReconcileErrors(t *testing.T) {
	resource := schema.GroupResource{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}
	for _, tc := range []struct {
		name     string
		module   string
		full     bool
		writeErr error
		podErr   error
		want     reconcile.Result
		wantErr  string
		recorded []string
		events   int
		writes   int
		verdict  string
	}{
		{name: "an approval without errors", module: allowing, recorded: []string{"Approved", "written"}, writes: 1, verdict: "Approved PolicyAllowed"},
		{name: "a denial without errors", module: denying, recorded: []string{"Denied", "written"}, writes: 1, events: 1, verdict: "Denied SubjectNotAuthorized"},
		{
			name:   "an approval that cannot be recorded",
			module: allowing, full: true, recorded: []string{}, wantErr: "appending to the audit log: no space left on device",
		},
		{
			name:   "a denial that cannot be recorded",
			module: denying, full: true, recorded: []string{}, wantErr: "appending to the audit log: no space left on device",
		},
		{
			name:   "another client changed the request",
			module: denying, writeErr: apierrors.NewConflict(resource, "web", errors.New("changed")), writes: 1,
			recorded: []string{"Denied", `refused: Operation cannot be fulfilled on certificatesigningrequests.certificates.k8s.io "web": changed`},
			want:     reconcile.Result{RequeueAfter: conflictDelay},
		},
		{
			name:   "the request was deleted",
			module: denying, writeErr: apierrors.NewNotFound(resource, "web"), writes: 1,
			recorded: []string{"Denied", `refused: certificatesigningrequests.certificates.k8s.io "web" not found`},
		},
		{
			name:   "the write fails",
			module: denying, writeErr: errors.New("connection refused"), writes: 1, wantErr: "connection refused",
			recorded: []string{"Denied", "unknown: connection refused"},
		},
		{
			name:   "gathering facts fails",
			module: denying, podErr: errors.New("connection refused"), recorded: []string{}, wantErr: "gathering facts: finding the subject: connection refused",
		},
		{
			name:   "a policy that fails to evaluate",
			module: failing, recorded: []string{}, wantErr: "evaluating policy mine: violation",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, tc.module)
			w.full, w.writeErr, w.podErr = tc.full, tc.writeErr, tc.podErr
			got, err := w.reconcile(t, since)
			if (err != nil) != (tc.wantErr != "") || err != nil && !strings.Contains(err.Error(), tc.wantErr) {
				t.Errorf("error %v, want %q", err, tc.wantErr)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.recorded, w.recorded(t)); diff != "" {
				t.Errorf("audit log (-want +got):\n%s", diff)
			}
			if w.writes != tc.writes || len(w.recorder.Events) != tc.events {
				t.Errorf("%d writes and %d Events, want %d and %d", w.writes, len(w.recorder.Events), tc.writes, tc.events)
			}
			if got := w.verdict(t); got != tc.verdict {
				t.Errorf("the request is %q, want %q", got, tc.verdict)
			}
		})
	}
}

// TestSlowRecord: facts can expire while a decision is recorded. An approval is then not written, and a
// denial is.
func TestSlowRecord(t *testing.T) {
	for _, tc := range []struct {
		name, module string
		slow         time.Duration
		verdict      string
		recorded     []string
	}{
		{"an approval in time", allowing, facts.MaxDecisionAge, "Approved PolicyAllowed", []string{"Approved", "written"}},
		{"an approval that is late", allowing, facts.MaxDecisionAge + time.Millisecond, "", []string{"Approved", "refused"}},
		{"a denial that is late", denying, facts.MaxDecisionAge + time.Millisecond, "Denied SubjectNotAuthorized", []string{"Denied", "written"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, tc.module)
			w.slow = tc.slow
			synctest.Test(t, func(t *testing.T) {
				_, err := w.reconcile(t, since)
				if (err != nil) != (tc.verdict == "") || w.verdict(t) != tc.verdict {
					t.Errorf("%q, %v", w.verdict(t), err)
				}
				w.checkRecorded(t, tc.recorded)
			})
		})
	}
}

// checkRecorded checks the verdicts and results in the audit log, without their reasons and errors.
func (w *world) checkRecorded(t *testing.T, want []string) {
	t.Helper()
	got := w.recorded(t)
	for i := range got {
		got[i], _, _ = strings.Cut(got[i], ":")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("audit log (-want +got):\n%s", diff)
	}
}

// TestApprovalDeadline: the write of an approval ends soon after its facts have expired, with an unknown outcome. That
// of a denial has no deadline.
func TestApprovalDeadline(t *testing.T) {
	for _, tc := range []struct {
		name, module string
		took         time.Duration
		verdict      string
		recorded     []string
	}{
		{"an approval", allowing, facts.MaxDecisionAge + 2*time.Second, "", []string{"Approved", "unknown"}},
		{"a denial", denying, 0, "Denied SubjectNotAuthorized", []string{"Denied", "written"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, tc.module)
			w.hangs = true
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				_, err := w.reconcile(t, since)
				if (err != nil) != (tc.verdict == "") || w.verdict(t) != tc.verdict || time.Since(start) != tc.took {
					t.Errorf("%q, %v after %s", w.verdict(t), err, time.Since(start))
				}
				w.checkRecorded(t, tc.recorded)
			})
		})
	}
}

// TestHoldPeriod: neither the age of a request nor the time of errors counts.
func TestHoldPeriod(t *testing.T) {
	w := newWorld(t, holding)
	w.podErr = errors.New("connection refused")
	if _, err := w.reconcile(t, since.Add(time.Hour)); err == nil {
		t.Fatal("want an error")
	}
	w.podErr = nil
	first := since.Add(2 * time.Hour)
	for _, step := range []struct {
		at       time.Duration
		verdict  string
		recorded int // decisions and outcomes on record
		events   int
	}{
		{0, "", 1, 1},
		{time.Second, "", 1, 1}, // said once
		{10 * time.Second, "", 1, 1},
		{20 * time.Second, "", 1, 1},
		{30 * time.Second, "", 1, 1},
		{40 * time.Second, "", 1, 1},
		{50 * time.Second, "", 1, 1},
		{59 * time.Second, "", 1, 1},
	} {
		result, err := w.reconcile(t, first.Add(step.at))
		if err != nil || result.RequeueAfter <= 0 || result.RequeueAfter > 5*time.Second {
			t.Errorf("after %s: %+v, %v", step.at, result, err)
		}
		if w.verdict(t) != step.verdict || len(w.recorded(t)) != step.recorded || len(w.recorder.Events) != step.events {
			t.Errorf("after %s: %q, record %v, %d Events", step.at, w.verdict(t), w.recorded(t), len(w.recorder.Events))
		}
	}
	if items := w.reconciler.holds.awaiting([]facts.Awaited{{Kind: "Pod", Namespace: "ns", Name: "my-pod"}}); len(items) != 1 || items[0].Name != "web" {
		t.Errorf("a change of its Pod brings back %v", items)
	}
	if items := w.reconciler.holds.awaiting([]facts.Awaited{{Kind: "Service", Namespace: "other"}}); len(items) > 0 {
		t.Errorf("a change elsewhere brings back %v", items)
	}
	<-w.recorder.Events // so that what is announced next is seen to come after its write
	if _, err := w.reconcile(t, first.Add(time.Minute)); err != nil || w.verdict(t) != "Denied HoldExpired" {
		t.Errorf("at the end: %q, %v", w.verdict(t), err)
	}
	if len(w.reconciler.holds.requests)+len(w.reconciler.holds.byAwaited) > 0 {
		t.Errorf("a decided request is still held: %+v", w.reconciler.holds)
	}
}

// TestHoldDuringOutage: at most maxInterval of an outage counts, and the first review after it denies no
// request because its hold has expired.
func TestHoldDuringOutage(t *testing.T) {
	for _, tc := range []struct {
		name            string
		held            time.Duration // before the outage
		outage          time.Duration
		denied, denied2 bool // by the first and the second review after it
	}{
		{"a long outage", time.Second, time.Minute, false, false},
		{"an outage near the end of the hold", 55 * time.Second, time.Hour, false, true},
		{"an interval that is not late", 50 * time.Second, maxInterval, true, true},
		{"an interval that is late", 50 * time.Second, maxInterval + 1, false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, holding) // holdFor is a minute
			review := func(at time.Duration) bool {
				t.Helper()
				for len(w.recorder.Events) > 0 {
					<-w.recorder.Events
				}
				if _, err := w.reconcile(t, since.Add(at)); err != nil {
					t.Fatal(err)
				}
				return w.verdict(t) == "Denied HoldExpired"
			}
			for at := time.Duration(0); at < tc.held; at += 5 * time.Second {
				review(at)
			}
			review(tc.held)
			w.podErr = errors.New("connection refused")
			for _, at := range []time.Duration{1, tc.outage / 2} {
				if _, err := w.reconcile(t, since.Add(tc.held+at)); err == nil {
					t.Fatal("want an error")
				}
			}
			w.podErr = nil
			if got := review(tc.held + tc.outage); got != tc.denied {
				t.Errorf("the first review after the outage denies: %v", got)
			}
			if got := review(tc.held + tc.outage + 5*time.Second); got != tc.denied2 {
				t.Errorf("the second review after the outage denies: %v", got)
			}
		})
	}
}

// TestHoldsEnd: a hold ends even if every review is late.
func TestHoldsEnd(t *testing.T) {
	w := newWorld(t, holding) // holdFor is a minute
	reviews := 0
	for ; w.verdict(t) == "" && reviews < 100; reviews++ {
		for len(w.recorder.Events) > 0 {
			<-w.recorder.Events
		}
		if _, err := w.reconcile(t, since.Add(time.Duration(reviews)*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	if reviews != 1+maxLate+1 {
		t.Errorf("denied by review %d", reviews)
	}
}

// TestHoldRecords: changes of a Pod that change the message of a hold make one record and one Event at a time.
func TestHoldRecords(t *testing.T) {
	w := newWorld(t, regoHeader+"subject_controls_key := true\n\nsubject_is_authorized := false\n\nviolations contains {\"requirement\": 2, \"id\": \"soon\", \"message\": input.cluster.subject.pod.labels.app, \"retryable\": true} if true\n")
	for i := range 20 {
		var pod corev1.Pod
		if err := w.reconciler.client.Get(t.Context(), client.ObjectKey{Namespace: "ns", Name: "my-pod"}, &pod); err != nil {
			t.Fatal(err)
		}
		pod.Labels["app"] = fmt.Sprint(i)
		if err := w.reconciler.client.Update(t.Context(), &pod); err != nil {
			t.Fatal(err)
		}
		if _, err := w.reconcile(t, since.Add(time.Duration(i)*recordDelay/10)); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"Held", "Held"}, w.recorded(t)); diff != "" || len(w.recorder.Events) != 2 {
		t.Errorf("%d Events, audit log (-want +got):\n%s", len(w.recorder.Events), diff)
	}
}

// TestFactsTooLarge: a request about a Pod with too many labels is held, and then denied with a reason of its own.
func TestFactsTooLarge(t *testing.T) {
	w := newWorld(t, allowing)
	var pod corev1.Pod
	if err := w.reconciler.live.Get(t.Context(), client.ObjectKey{Namespace: "ns", Name: "my-pod"}, &pod); err != nil {
		t.Fatal(err)
	}
	for i := range 2000 {
		pod.Labels[fmt.Sprintf("label-%d", i)] = strings.Repeat("x", 63)
	}
	if err := w.reconciler.client.Update(t.Context(), &pod); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after    time.Duration
		verdict  string
		recorded []string
	}{
		{0, "", []string{"Held"}},
		{10 * time.Second, "", []string{"Held"}},
		{20 * time.Second, "", []string{"Held"}},
		{30 * time.Second, "", []string{"Held"}},
		{40 * time.Second, "", []string{"Held"}},
		{50 * time.Second, "", []string{"Held"}},
		{59 * time.Second, "", []string{"Held"}},
		{time.Minute, "Denied FactsTooLarge", []string{"Held", "Denied", "written"}},
	} {
		if len(w.recorder.Events) > 0 {
			<-w.recorder.Events
		}
		if _, err := w.reconcile(t, since.Add(step.after)); err != nil || w.verdict(t) != step.verdict {
			t.Errorf("after %s: %q, %v; want %q", step.after, w.verdict(t), err, step.verdict)
		}
		if diff := cmp.Diff(step.recorded, w.recorded(t)); diff != "" {
			t.Errorf("after %s: audit log (-want +got):\n%s", step.after, diff)
		}
	}
	if w.disk.Len() > 8<<10 {
		t.Errorf("the records have %d bytes", w.disk.Len())
	}
}

func TestPendingIsNotTouched(t *testing.T) {
	selector, err := labels.Parse("team=blue")
	if err != nil {
		t.Fatal(err)
	}
	shadow, elsewhere, unloaded := loadedPolicy(t, denying), loadedPolicy(t, denying), loadedPolicy(t, allowing)
	shadow.Mode, elsewhere.Namespaces, unloaded.Active = v1alpha1.ModeAudit, selector, nil
	broken := loadedPolicy(t, failing)
	broken.Mode = v1alpha1.ModeAudit
	for _, tc := range []struct {
		name     string
		policies []policy.Policy
		recorded []string
	}{
		{"a shadow policy", []policy.Policy{shadow}, []string{"Audited"}},
		{"a shadow policy, and fails", []policy.Policy{broken}, []string{"Audited"}},
		{"a policy for another namespace", []policy.Policy{elsewhere}, []string{}},
		{"a policy that abstains", []policy.Policy{loadedPolicy(t, abstaining)}, []string{}},
		{"a policy that is not loaded, beside one that is", []policy.Policy{loadedPolicy(t, allowing), unloaded}, []string{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, allowing)
			w.reconciler.reviewer.Policies.Replace(tc.policies)
			for range 2 { // said once
				if result, err := w.reconcile(t, since); err != nil || result.RequeueAfter != pendingDelay {
					t.Errorf("%+v, %v", result, err)
				}
			}
			if w.writes > 0 || len(w.recorder.Events) > 0 {
				t.Errorf("%d writes, %d Events", w.writes, len(w.recorder.Events))
			}
			if diff := cmp.Diff(tc.recorded, w.recorded(t)); diff != "" {
				t.Errorf("audit log (-want +got):\n%s", diff)
			}
		})
	}
}

// TestShadowDoesNotDecide: the answer or the error of a shadow policy is recorded with the verdict of
// the other policies, and does not change it.
func TestShadowDoesNotDecide(t *testing.T) {
	for _, module := range []string{denying, failing, holding} {
		w := newWorld(t, allowing)
		shadow := loadedPolicy(t, module)
		shadow.Name, shadow.UID, shadow.Mode = "shadow", "shadow-uid", v1alpha1.ModeAudit
		w.reconciler.reviewer.Policies.Replace([]policy.Policy{loadedPolicy(t, allowing), shadow})
		if _, err := w.reconcile(t, since); err != nil || w.verdict(t) != "Approved PolicyAllowed" {
			t.Errorf("%q, %v", w.verdict(t), err)
		}
		if !strings.Contains(w.disk.String(), `"name":"shadow"`) || !strings.Contains(w.disk.String(), `"audit":true`) {
			t.Errorf("not on record: %s", w.disk.String())
		}
	}
}

// TestMalformedRequestNamespaces: a malformed request is denied only if a policy selects its
// namespace.
func TestMalformedRequestNamespaces(t *testing.T) {
	selector, err := labels.Parse("team=blue")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := loadedPolicy(t, allowing)
	elsewhere.Namespaces = selector
	for _, tc := range []struct {
		name     string
		policies []policy.Policy
		want     string
		human    bool
	}{
		{"without a namespace", []policy.Policy{elsewhere}, "Denied MalformedRequest", true},
		{"a policy for all namespaces", []policy.Policy{loadedPolicy(t, allowing)}, "Denied MalformedRequest", false},
		{"a policy for another namespace", []policy.Policy{elsewhere}, "", false},
		{"both policies", []policy.Policy{elsewhere, loadedPolicy(t, allowing)}, "Denied MalformedRequest", false},
		{"a shadow policy", []policy.Policy{{Name: "shadow", Mode: v1alpha1.ModeAudit, SignerNames: []string{"example.com/*"}, Active: compile(t, allowing)}}, "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, allowing)
			var csr certificatesv1.CertificateSigningRequest
			if err := w.reconciler.live.Get(t.Context(), client.ObjectKey{Name: "web"}, &csr); err != nil {
				t.Fatal(err)
			}
			csr.Spec.Request = []byte("junk")
			if tc.human {
				csr.Spec.Username, csr.Spec.Extra = "jane", nil
			}
			if err := w.reconciler.client.Update(t.Context(), &csr); err != nil {
				t.Fatal(err)
			}
			w.reconciler.reviewer.Policies.Replace(tc.policies)
			if _, err := w.reconcile(t, since); err != nil || w.verdict(t) != tc.want {
				t.Errorf("%q, %v; want %q", w.verdict(t), err, tc.want)
			}
		})
	}
}

func TestCandidateComparison(t *testing.T) {
	for _, tc := range []struct {
		name              string
		active, candidate string
		verdict           string
		want              []v1alpha1.Disagreement
	}{
		{"a stricter one", allowing, denying, "Approved PolicyAllowed", []v1alpha1.Disagreement{
			{Time: metav1.NewTime(since), Request: "web", Active: "allow", Candidate: "deny", Message: "no: not today"},
		}},
		{"a laxer one", denying, allowing, "Denied SubjectNotAuthorized", []v1alpha1.Disagreement{
			{Time: metav1.NewTime(since), Request: "web", Active: "deny", Candidate: "allow", Message: "no: not today"},
		}},
		{"one that agrees", allowing, allowing + "# changed\n", "Approved PolicyAllowed", nil},
		{"one that fails", allowing, failing, "Approved PolicyAllowed", []v1alpha1.Disagreement{
			{
				Time: metav1.NewTime(since), Request: "web", Active: "allow", Candidate: "error",
				Message: "violation {Requirement:7 ID:no Message:not today Value: Retryable:false}: requirement must be 1 or 2, id and message must not be empty",
			},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, tc.active)
			compared := loadedPolicy(t, tc.active)
			compared.Candidate = compile(t, tc.candidate)
			w.reconciler.reviewer.Policies.Replace([]policy.Policy{compared})
			calls := 0
			w.reconciler.compared = func() { calls++ }
			if _, err := w.reconcile(t, since); err != nil || w.verdict(t) != tc.verdict {
				t.Errorf("%q, %v", w.verdict(t), err)
			}
			got := w.reconciler.comparison.status("mine-uid", compared.Candidate.Revision(), nil)
			want := v1alpha1.CandidateStatus{Revision: compared.Candidate.Revision(), Evaluations: 1, Disagreements: int64(len(tc.want)), Samples: tc.want}
			if diff := cmp.Diff(want, got); diff != "" || calls != 1 {
				t.Errorf("%d calls of compared; (-want +got):\n%s", calls, diff)
			}
		})
	}
}

func TestRecordReplays(t *testing.T) {
	w := newWorld(t, denying)
	if _, err := w.reconcile(t, since); err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(w.disk.String(), "\n")
	var record struct{ Decision audit.Decision }
	if err := json.Unmarshal([]byte(line), &record); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(record.Decision.Facts)
	if hex.EncodeToString(sum[:]) != record.Decision.FactsSHA256 {
		t.Error("the digest is not that of the facts on record")
	}
	var f facts.Facts
	if err := json.Unmarshal(record.Decision.Facts, &f); err != nil {
		t.Fatal(err)
	}
	got, err := compile(t, denying).Evaluate(t.Context(), evaluator.NewInput(&f))
	if err != nil || len(got.Violations) != 1 || got.Violations[0].ID != "no" {
		t.Errorf("replayed: %+v, %v", got, err)
	}
}

// TestChangeRequeues: a request is requeued when its Pod, a Service of its namespace or
// its Node changes. Its review then reads the changed object, not cached facts.
func TestChangeRequeues(t *testing.T) {
	const untilThereIsAService = regoHeader + `subject_controls_key := true

subject_is_authorized if has_service

violations contains {"requirement": 2, "id": "soon", "message": "no Service selects it", "retryable": true} if {
	not has_service
}

has_service if count(input.cluster.subject.services) > 0
`
	w := newWorld(t, untilThereIsAService)
	if _, err := w.reconcile(t, since); err != nil || w.verdict(t) != "" {
		t.Fatalf("%q, %v", w.verdict(t), err)
	}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "my-svc"}, Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}}}
	if err := w.reconciler.client.Create(t.Context(), service); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		changed []facts.Awaited
		want    int
	}{
		{"its Pod", []facts.Awaited{{Kind: "Pod", Namespace: "ns", Name: "my-pod"}, {Kind: "Pod", Namespace: "ns"}}, 1},
		{"another Pod", []facts.Awaited{{Kind: "Pod", Namespace: "ns", Name: "other"}, {Kind: "Pod", Namespace: "ns"}}, 0},
		{"a Service of its namespace", facts.AwaitedBy(service), 1},
		{"a Service of another", facts.AwaitedBy(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "my-svc"}}), 0},
		{"a Node, for which no Pod holding", facts.AwaitedBy(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}), 0},
	} {
		if items := w.reconciler.requeueFor(tc.changed); len(items) != tc.want || tc.want == 1 && items[0].Name != "web" {
			t.Errorf("%s changes: brings back %v", tc.name, items)
		}
	}
	<-w.recorder.Events
	if _, err := w.reconcile(t, since.Add(time.Millisecond)); err != nil || w.verdict(t) != "Approved PolicyAllowed" {
		t.Errorf("%q, %v", w.verdict(t), err)
	}
}

func TestRetryAfter(t *testing.T) {
	until := since.Add(30 * time.Second)
	for _, tc := range []struct{ held, want time.Duration }{
		{0, 250 * time.Millisecond},
		{2 * time.Second, time.Second},
		{20 * time.Second, 5 * time.Second},
		{29 * time.Second, time.Second},
		{29500 * time.Millisecond, 500 * time.Millisecond},
		{40 * time.Second, time.Millisecond},
	} {
		if got := retryAfter(since, since.Add(tc.held), until); got != tc.want {
			t.Errorf("held for %s: retried after %s, want %s", tc.held, got, tc.want)
		}
	}
}
