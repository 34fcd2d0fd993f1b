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
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
	"countersign.dev/countersign/signer/ca/source"
	"countersign.dev/countersign/signer/trust"
)

// loaded is the source of every Signer.
type loaded struct {
	ca      *ca.CA
	problem *ca.Problem
	err     error
}

func (loaded) Keep([]v1alpha1.Signer) {}

func (l loaded) Load(_ context.Context, _ *v1alpha1.Signer, _ time.Time, fits source.Fits) (source.Result, error) {
	if l.err != nil {
		return source.Result{}, l.err
	}
	problem := l.problem
	if problem == nil {
		problem = fits(l.ca)
	}
	if problem != nil {
		return source.Result{Problem: problem}, nil
	}
	return source.Result{Newest: l.ca}, nil
}

// published is a publisher with a fixed error.
type published struct{ err error }

func (published) Keep([]v1alpha1.Signer) {}

func (p published) Publish(_ context.Context, signer *v1alpha1.Signer, bundle []byte) trust.Result {
	if len(bundle) == 0 {
		return trust.Result{Err: errors.New("there is no CA certificate to publish")}
	}
	if p.err != nil || signer.Spec.Trust.ConfigMap == nil {
		return trust.Result{Err: p.err, Complete: p.err == nil}
	}
	return trust.Result{
		Published: &v1alpha1.PublishedTrust{ConfigMap: signer.Spec.Trust.ConfigMap.Name},
		Complete:  true, Message: "ConfigMap example-ca in 2 namespaces",
	}
}

// newAPIServer holds the objects, and counts the statuses that are written.
func newAPIServer(t *testing.T, objects ...client.Object) (c client.WithWatch, writes *int) {
	t.Helper()
	scheme, err := NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	writes = new(int)
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithStatusSubresource(&certificatesv1.CertificateSigningRequest{}, &v1alpha1.Signer{}).
		WithInterceptorFuncs(interceptor.Funcs{
			SubResourceUpdate: func(ctx context.Context, c client.Client, subresource string, o client.Object, options ...client.SubResourceUpdateOption) error {
				*writes++
				return c.SubResource(subresource).Update(ctx, o, options...)
			},
		}).Build(), writes
}

// emitted returns the Events emitted so far.
func emitted(recorder *events.FakeRecorder) []string {
	var all []string
	for len(recorder.Events) > 0 {
		all = append(all, <-recorder.Events)
	}
	slices.Sort(all)
	return all
}

func TestSignerReconciler(t *testing.T) {
	keys := testKeys()
	authority := newCA(t, keys.EC, nil)
	expiring := newCA(t, keys.EC, func(c *x509.Certificate) { c.NotAfter = now.Add(10*time.Minute + 20*time.Second) })
	clients := newCA(t, keys.EC, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	older := &v1alpha1.Signer{
		ObjectMeta: metav1.ObjectMeta{Name: "older", CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))},
		Spec: v1alpha1.SignerSpec{
			SignerName: signerName,
			Trust:      v1alpha1.Trust{ConfigMap: &v1alpha1.TrustConfigMap{Name: "example-ca"}},
		},
	}
	publishes := func(s *v1alpha1.Signer) { s.Spec.Trust.ConfigMap = &v1alpha1.TrustConfigMap{Name: "example-ca"} }
	const wholly = "CN=Test CA, valid until 2036-03-01T12:00:00Z"

	type conditions map[string]string // type -> "status reason: message"
	tests := []struct {
		name    string
		change  func(*v1alpha1.Signer)
		others  []client.Object
		secret  loaded
		publish error // of publishing

		want   conditions
		ready  bool // requests are let through
		result reconcile.Result
		events []string
	}{
		{
			name:   "ready",
			secret: loaded{ca: authority},
			want:   conditions{"Ready": "True CALoaded: " + wholly, "TrustPublished": "True NotRequested: spec.trust requests neither a ConfigMap nor a ClusterTrustBundle"},
			ready:  true, result: reconcile.Result{RequeueAfter: resync},
		},
		{
			name:   "requeued when the CA becomes unfit",
			secret: loaded{ca: expiring},
			want:   conditions{"Ready": "True CALoaded: CN=Test CA, valid until 2026-03-01T12:10:20Z", "TrustPublished": "True NotRequested: spec.trust requests neither a ConfigMap nor a ClusterTrustBundle"},
			ready:  true, result: reconcile.Result{RequeueAfter: 19*time.Second + 510*time.Millisecond},
		},
		{
			name:   "published",
			change: publishes, secret: loaded{ca: authority},
			want:  conditions{"Ready": "True CALoaded: " + wholly, "TrustPublished": "True Published: ConfigMap example-ca in 2 namespaces"},
			ready: true, result: reconcile.Result{RequeueAfter: resync},
		},
		{
			name:   "not published everywhere: issues",
			change: publishes, secret: loaded{ca: authority}, publish: errors.New("one/example-ca: no"),
			want:  conditions{"Ready": "True CALoaded: " + wholly, "TrustPublished": "False PublishFailed: one/example-ca: no"},
			ready: true, result: reconcile.Result{RequeueAfter: publishRetry + 10*time.Millisecond},
			events: []string{"Warning PublishFailed one/example-ca: no"},
		},
		{
			name:   "published objects not read yet: the condition does not change",
			change: publishes, secret: loaded{ca: authority}, publish: trust.ErrPending,
			want:  conditions{"Ready": "True CALoaded: " + wholly},
			ready: true, result: reconcile.Result{RequeueAfter: publishRetry + 10*time.Millisecond},
		},
		{
			name:   "no usable CA",
			change: publishes, secret: loaded{problem: &ca.Problem{Reason: v1alpha1.ReasonSecretNotFound, Message: "Secret system/serving-ca does not exist"}},
			want: conditions{
				"Ready":          "False SecretNotFound: Secret system/serving-ca does not exist",
				"TrustPublished": "False PublishFailed: there is no CA to publish until the Signer is ready; earlier publications stay unchanged",
			},
			result: reconcile.Result{RequeueAfter: resync},
			events: []string{"Warning SecretNotFound Secret system/serving-ca does not exist"},
		},
		{
			name:   "the Secret is not read yet: no verdict",
			secret: loaded{err: source.ErrPending}, want: conditions{}, result: reconcile.Result{RequeueAfter: pendingRetry},
		},
		{
			name:   "the CA is for clients only",
			secret: loaded{ca: clients},
			want: conditions{
				"Ready":          `False InvalidCA: the CA certificate, or one of its issuers, limits its extended key usages and does not list "server auth": use another CA, or remove the usage from spec.certificate.usages`,
				"TrustPublished": "True NotRequested: spec.trust requests neither a ConfigMap nor a ClusterTrustBundle",
			},
			result: reconcile.Result{RequeueAfter: resync},
			events: []string{`Warning InvalidCA the CA certificate, or one of its issuers, limits its extended key usages and does not list "server auth": use another CA, or remove the usage from spec.certificate.usages`},
		},
		{
			name:   "a profile that the CRD rejects",
			change: func(s *v1alpha1.Signer) { s.Spec.Certificate.MaxDuration = &metav1.Duration{Duration: time.Second} },
			secret: loaded{ca: authority},
			want: conditions{
				"Ready":          "False InvalidProfile: maxDuration 1s is invalid: must be at least 10s",
				"TrustPublished": "True NotRequested: spec.trust requests neither a ConfigMap nor a ClusterTrustBundle",
			},
			result: reconcile.Result{RequeueAfter: resync},
			events: []string{"Warning InvalidProfile maxDuration 1s is invalid: must be at least 10s"},
		},
		{
			name:   "an older Signer has the signerName",
			others: []client.Object{older}, secret: loaded{ca: authority},
			want: conditions{
				"Ready":          "False DuplicateSigner: the older Signer older has the same signerName example.com/serving: this one issues no certificates; delete one of them",
				"TrustPublished": "True NotRequested: spec.trust requests neither a ConfigMap nor a ClusterTrustBundle",
			},
			result: reconcile.Result{RequeueAfter: resync},
			events: []string{"Warning DuplicateSigner the older Signer older has the same signerName example.com/serving: this one issues no certificates; delete one of them"},
		},
		{
			name:   "an older Signer publishes under the same name",
			change: func(s *v1alpha1.Signer) { publishes(s); s.Spec.SignerName = "example.com/another" },
			others: []client.Object{older}, secret: loaded{ca: authority},
			want: conditions{
				"Ready":          "True CALoaded: " + wholly,
				"TrustPublished": "False PublishFailed: name example-ca is used by Signer older, which has precedence: choose another name in spec.trust.configMap",
			},
			ready: true, result: reconcile.Result{RequeueAfter: resync},
			events: []string{"Warning PublishFailed name example-ca is used by Signer older, which has precedence: choose another name in spec.trust.configMap"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			signer := &v1alpha1.Signer{
				ObjectMeta: metav1.ObjectMeta{Name: "serving", Generation: 3, CreationTimestamp: metav1.NewTime(now)},
				Spec:       v1alpha1.SignerSpec{SignerName: signerName, CA: v1alpha1.SignerCA{SecretRef: &v1alpha1.LocalObjectReference{Name: "serving-ca"}}},
			}
			if test.change != nil {
				test.change(signer)
			}
			server, writes := newAPIServer(t, append(test.others, signer)...)
			metrics, err := newMetrics(prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			recorder := events.NewFakeRecorder(10)
			var let []string
			r := &signerReconciler{
				clock:  newClockGuard(),
				cached: server, live: server, status: server.Status(), signers: newRegistry(),
				sources: test.secret,
				trust:   published{test.publish},
				pending: func(_ context.Context, signerName string) { let = append(let, signerName) },
				events:  recorder, metrics: metrics, now: func() time.Time { return now },
			}
			result, err := r.Reconcile(t.Context(), requestFor("serving"))
			if err != nil || result != test.result {
				t.Errorf("got %+v, %v; want %+v", result, err, test.result)
			}
			var after v1alpha1.Signer
			if err := server.Get(t.Context(), client.ObjectKey{Name: "serving"}, &after); err != nil {
				t.Fatal(err)
			}
			got := conditions{}
			for _, c := range after.Status.Conditions {
				got[c.Type] = string(c.Status) + " " + c.Reason + ": " + c.Message
				if c.ObservedGeneration != 3 || after.Status.ObservedGeneration != 3 {
					t.Errorf("observedGeneration: %+v", after.Status)
				}
			}
			if rotating := got["Rotating"]; rotating != "False Settled: one CA is trusted" && rotating != "False Settled: no CA is trusted yet" && len(test.want) > 0 {
				t.Errorf("condition Rotating: %s", rotating)
			}
			delete(got, "Rotating") // see TestSignerReconciler_rotation
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
			if (after.Status.CA != nil) != test.ready {
				t.Errorf("status.ca: %+v", after.Status.CA)
			}
			if ready := r.signers.get(signer.Spec.SignerName); (ready != nil) != test.ready || (len(let) > 0) != test.ready {
				t.Errorf("ready: %v, requests let through of %v", ready != nil, let)
			}
			if diff := cmp.Diff(test.events, emitted(recorder), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}

			// Nothing changed: the second reconcile writes nothing and emits no Events.
			*writes = 0
			if _, err := r.Reconcile(t.Context(), requestFor("serving")); err != nil {
				t.Fatal(err)
			}
			if repeated := emitted(recorder); *writes > 0 || len(repeated) > 0 {
				t.Errorf("the second time: %d writes, events %q", *writes, repeated)
			}
		})
	}
}

// TestSignerReconciler_atOnce: without a propagation period, the Signer is requeued within a second after the publication,
// and then its next CA signs.
func TestSignerReconciler_atOnce(t *testing.T) {
	before := newCA(t, testKeys().RSA, func(c *x509.Certificate) { c.Subject.CommonName = "Before" })
	signer := &v1alpha1.Signer{
		ObjectMeta: metav1.ObjectMeta{Name: "serving", CreationTimestamp: metav1.NewTime(now)},
		Spec: v1alpha1.SignerSpec{
			SignerName: signerName, CA: v1alpha1.SignerCA{SecretRef: &v1alpha1.LocalObjectReference{Name: "serving-ca"}},
			Trust: v1alpha1.Trust{ConfigMap: &v1alpha1.TrustConfigMap{Name: "example-ca"}, Propagation: &metav1.Duration{}},
		},
	}
	signer.Status.TrustAnchors = ca.Rotate(now, nil, before, nil, ca.Settings{MaxDuration: time.Hour}).Anchors
	server, _ := newAPIServer(t, signer)
	metrics, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	clock := now.Truncate(time.Second)
	r := &signerReconciler{
		clock:  newClockGuard(),
		cached: server, live: server, status: server.Status(), signers: newRegistry(),
		sources: loaded{ca: newCA(t, testKeys().EC, nil)}, trust: published{},
		pending: func(context.Context, string) {}, events: events.NewFakeRecorder(10), metrics: metrics,
		now: func() time.Time { clock = clock.Add(400 * time.Millisecond); return clock },
	}
	for i, want := range []bool{false, true} {
		result, err := r.Reconcile(t.Context(), requestFor("serving"))
		if err != nil || (r.signers.get(signerName) != nil) != want {
			t.Fatalf("Reconcile %d: %v, ready %v", i+1, err, !want)
		}
		if !want && result.RequeueAfter > time.Second {
			t.Errorf("the CA is allowed to sign, and the Signer is requeued after %s", result.RequeueAfter)
		}
	}
}

func TestSignerReconciler_deleted(t *testing.T) {
	server, _ := newAPIServer(t)
	metrics, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	r := &signerReconciler{cached: server, live: server, signers: newRegistry(), sources: loaded{}, trust: published{}, metrics: metrics, now: time.Now, clock: newClockGuard()}
	r.signers.set("serving", signerName, &readySigner{signer: &v1alpha1.Signer{ObjectMeta: metav1.ObjectMeta{Name: "serving"}}})
	if result, err := r.Reconcile(t.Context(), requestFor("serving")); err != nil || result != (reconcile.Result{}) {
		t.Errorf("got %+v, %v", result, err)
	}
	if r.signers.get(signerName) != nil {
		t.Error("issues for a Signer that was deleted")
	}
}
