// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/internal/fairqueue"
)

const (
	regoHeader = "package countersign.mine\n\nimport rego.v2\n\n"
	allowing   = regoHeader + "subject_controls_key := true\n\nsubject_is_authorized := true\n\nviolations contains v if some v in []\n"
	denying    = regoHeader + "subject_controls_key := true\n\nsubject_is_authorized := false\n\nviolations contains {\"requirement\": 2, \"id\": \"no\", \"message\": \"not today\"} if true\n"
	failing    = regoHeader + "subject_controls_key := true\n\nsubject_is_authorized := true\n\nviolations contains v if some v in [{\"requirement\": 7, \"id\": \"no\", \"message\": \"not today\"}]\n"
)

// world is one request and what a reconciler makes of it. How requests fare when nothing fails is
// tested against a real API server; here the API server and the audit log fail.
type world struct {
	reconciler *reconciler
	recorder   *events.FakeRecorder
	disk       bytes.Buffer
	full       bool  // the disk of the audit log is full
	writes     int   // to /approval, whether they went well or not
	fault      error // of a write to /approval
	away       error // of every read of a Pod
	now        time.Time
}

func (w *world) Write(p []byte) (int, error) {
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
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "my-pod", UID: "u"}}
	w := &world{recorder: events.NewFakeRecorder(8), now: since}
	builder := fake.NewClientBuilder().WithScheme(scheme).WithObjects(csr, pod).WithStatusSubresource(csr).WithInterceptorFuncs(interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			if _, isPod := object.(*corev1.Pod); isPod && w.away != nil {
				return w.away
			}
			return c.Get(ctx, key, object, options...)
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, object client.Object, options ...client.SubResourceUpdateOption) error {
			w.writes++
			if sub != "approval" || object.GetResourceVersion() == "" {
				t.Errorf("write to %q, resourceVersion %q", sub, object.GetResourceVersion())
			}
			if len(w.recorder.Events) > 0 {
				t.Error("announced before it was written")
			}
			if !strings.Contains(w.disk.String(), `"decision":`) {
				t.Error("written before it was recorded")
			}
			if w.fault != nil {
				return w.fault
			}
			return c.Status().Update(ctx, object, options...)
		},
	})
	if err := facts.AddIndexes(t.Context(), fieldIndexer{builder}); err != nil {
		t.Fatal(err)
	}
	compiled, err := evaluator.Compile(t.Context(), evaluator.Source{Package: "countersign.mine", Modules: map[string]string{"mine.rego": module}})
	if err != nil {
		t.Fatal(err)
	}
	policies := &PolicySet{}
	policies.replace([]loadedPolicy{{name: "mine", signerNames: []string{"example.com/*"}, holdFor: time.Minute, compiled: compiled}})
	c := builder.Build()
	w.reconciler = &reconciler{
		client: c, live: c, log: audit.NewLog(w), events: w.recorder, waiting: newWaiting(), tally: newTally(), counted: func() {},
		judge: &Judge{policies: policies, gatherer: facts.NewGatherer(c, c, c, "cluster.local"), now: func() time.Time { return w.now }},
	}
	return w
}

// told is the verdicts on record, and what became of each.
func (w *world) told(t *testing.T) []string {
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

func TestReconcileFaults(t *testing.T) {
	resource := schema.GroupResource{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}
	for name, tc := range map[string]struct {
		module  string
		full    bool
		fault   error
		away    error
		want    reconcile.Result
		wantErr string
		told    []string
		events  int
		writes  int
		verdict certificatesv1.RequestConditionType
	}{
		"an approval, and nothing fails": {module: allowing, told: []string{"Approved", "written"}, writes: 1, verdict: "Approved"},
		"a denial, and nothing fails":    {module: denying, told: []string{"Denied", "written"}, writes: 1, events: 1, verdict: "Denied"},
		"an approval that cannot be recorded": {
			module: allowing, full: true, told: []string{}, wantErr: "appending to the audit log: no space left on device",
		},
		"a denial that cannot be recorded": {
			module: denying, full: true, told: []string{}, wantErr: "appending to the audit log: no space left on device",
		},
		"somebody else changed the request": {
			module: denying, fault: apierrors.NewConflict(resource, "web", errors.New("changed")), writes: 1,
			told: []string{"Denied", `refused: Operation cannot be fulfilled on certificatesigningrequests.certificates.k8s.io "web": changed`},
			want: reconcile.Result{RequeueAfter: conflictDelay},
		},
		"the request was deleted": {
			module: denying, fault: apierrors.NewNotFound(resource, "web"), writes: 1,
			told: []string{"Denied", `refused: certificatesigningrequests.certificates.k8s.io "web" not found`},
		},
		"the API server is away when it is to be written": {
			module: denying, fault: errors.New("connection refused"), writes: 1, wantErr: "connection refused",
			told: []string{"Denied", "unknown: connection refused"},
		},
		"the API server is away when facts are gathered": {
			module: denying, away: errors.New("connection refused"), told: []string{}, wantErr: "gathering facts: finding the subject: connection refused",
		},
		"a policy that gives no clear answer": {
			module: failing, told: []string{}, wantErr: "evaluating policy mine: violation",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.module)
			w.full, w.fault, w.away = tc.full, tc.fault, tc.away
			got, err := w.reconciler.Reconcile(t.Context(), fairqueue.Item{Name: "web"})
			if (err != nil) != (tc.wantErr != "") || err != nil && !strings.Contains(err.Error(), tc.wantErr) {
				t.Errorf("error %v, want %q", err, tc.wantErr)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.told, w.told(t)); diff != "" {
				t.Errorf("audit log (-want +got):\n%s", diff)
			}
			if w.writes != tc.writes || len(w.recorder.Events) != tc.events {
				t.Errorf("%d writes and %d Events, want %d and %d", w.writes, len(w.recorder.Events), tc.writes, tc.events)
			}
			var after certificatesv1.CertificateSigningRequest
			if err := w.reconciler.live.Get(t.Context(), client.ObjectKey{Name: "web"}, &after); err != nil {
				t.Fatal(err)
			}
			verdict := certificatesv1.RequestConditionType("")
			if len(after.Status.Conditions) > 0 {
				verdict = after.Status.Conditions[0].Type
			}
			if verdict != tc.verdict {
				t.Errorf("the request is %q, want %q", verdict, tc.verdict)
			}
		})
	}
}
