// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
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
)

// TestRequestReconciler_faults has the API server, or the CA, fail while a request is issued. How
// it goes when nothing fails is tested against a real API server.
func TestRequestReconciler_faults(t *testing.T) {
	keys := testKeys()
	resource := schema.GroupResource{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}
	clock := now
	tests := map[string]struct {
		object  func(*certificatesv1.CertificateSigningRequest)
		fault   error // of the write
		at      time.Time
		want    reconcile.Result
		err     bool
		outcome [2]string // outcome and reason of the one metric that counts
		events  []string
		recheck bool
		written bool
	}{
		"nothing fails": {outcome: [2]string{outcomeIssued, ""}, written: true},
		"conflict": {
			fault: apierrors.NewConflict(resource, "web", errors.New("changed")),
			want:  reconcile.Result{RequeueAfter: time.Second}, outcome: [2]string{outcomeRetried, "Conflict"},
		},
		"deleted meanwhile": {fault: apierrors.NewNotFound(resource, "web")},
		"not permitted": {
			fault: apierrors.NewForbidden(resource, "web", errors.New("no")), err: true, outcome: [2]string{outcomeRetried, "Forbidden"},
			events: []string{`Warning SigningForbidden grant the verb "sign" on signers.certificates.k8s.io with resourceNames ["example.com/serving"], and "update" on certificatesigningrequests/status: certificatesigningrequests.certificates.k8s.io "web" is forbidden: no`},
		},
		"API server is away": {fault: errors.New("connection refused"), err: true, outcome: [2]string{outcomeRetried, "Write"}},
		"failing is announced after the write": {
			object: usages("any"), outcome: [2]string{outcomeFailed, ReasonUsageNotAllowed}, written: true,
			events: []string{`Warning UsageNotAllowed usage "any" is not among those of the Signer: "digital signature", "key encipherment", "server auth"`},
		},
		"failing is not announced if the write fails": {
			object: usages("any"), fault: errors.New("connection refused"), err: true, outcome: [2]string{outcomeRetried, "Write"},
		},
		"CA expired since": {
			at: now.AddDate(20, 0, 0), want: reconcile.Result{RequeueAfter: caFaultRetry},
			outcome: [2]string{outcomeRetried, v1alpha1.ReasonCAExpired}, recheck: true,
		},
		"message with a percent sign": {
			object:  func(c *certificatesv1.CertificateSigningRequest) { c.Spec.Usages = []certificatesv1.KeyUsage{"%d"} },
			outcome: [2]string{outcomeFailed, ReasonUsageNotAllowed}, written: true,
			events: []string{`Warning UsageNotAllowed usage "%d" is not among those of the Signer: "digital signature", "key encipherment", "server auth"`},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			scheme, err := NewScheme()
			if err != nil {
				t.Fatal(err)
			}
			csr := newCSR(t, keys.ec, nil, test.object)
			c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(csr).WithStatusSubresource(csr).
				WithInterceptorFuncs(interceptor.Funcs{
					SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, options ...client.SubResourceUpdateOption) error {
						if o.GetResourceVersion() == "" {
							t.Error("written without resourceVersion")
						}
						if test.fault != nil {
							return test.fault
						}
						return c.SubResource(sub).Update(ctx, o, options...)
					},
				}).Build()
			metrics, err := newMetrics(prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			signers := newRegistry()
			signers.set("serving", signerName, &readySigner{
				signer:  &v1alpha1.Signer{ObjectMeta: metav1.ObjectMeta{Name: "serving"}, Spec: v1alpha1.SignerSpec{SignerName: signerName}},
				profile: newProfile(t, nil), ca: newCA(t, keys.ec, func(*x509.Certificate) {}),
			})
			recorder := events.NewFakeRecorder(8)
			rechecked := false
			at := clock
			if !test.at.IsZero() {
				at = test.at
			}
			r := &requestReconciler{
				cached: c, live: c, status: c.Status(), signers: signers, events: recorder, metrics: metrics,
				recheck: func(_ context.Context, name string) { rechecked = name == "serving" },
				now:     func() time.Time { return at },
			}
			got, err := r.Reconcile(t.Context(), requestFor("web"))
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
				if n := testutil.ToFloat64(metrics.certificates.WithLabelValues(test.outcome[0], test.outcome[1])); n != 1 {
					t.Errorf("metric for %v is %v, want 1", test.outcome, n)
				}
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
				t.Errorf("the condition Approved is gone: %+v", after.Status.Conditions)
			}
		})
	}
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
