// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"context"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
	"countersign.dev/countersign/signer/ca/source"
	"countersign.dev/countersign/signer/issuance"
	"countersign.dev/countersign/signer/trust"
)

// life is a Signer whose source, clock and API server the test controls.
type life struct {
	*signerReconciler
	server   client.Client
	source   loaded
	at       time.Time
	writeErr error // of writing the status
	prunes   bool  // the API server has an old CRD
}

func (l *life) Keep([]v1alpha1.Signer) {}

func (l *life) Load(ctx context.Context, s *v1alpha1.Signer, at time.Time, fits source.Fits) (source.Result, error) {
	return l.source.Load(ctx, s, at, fits)
}

// statusOf writes statuses as the API server of a life does.
type statusOf struct {
	client.SubResourceWriter
	life *life
}

func (s statusOf) Update(ctx context.Context, o client.Object, options ...client.SubResourceUpdateOption) error {
	if s.life.writeErr != nil {
		return s.life.writeErr
	}
	if signer, ok := o.(*v1alpha1.Signer); ok && s.life.prunes {
		signer.Status.TrustAnchors = nil
	}
	return s.SubResourceWriter.Update(ctx, o, options...)
}

func newLife(t *testing.T) *life {
	t.Helper()
	server, _ := newAPIServer(t, &v1alpha1.Signer{
		ObjectMeta: metav1.ObjectMeta{Name: "serving", UID: "uid", CreationTimestamp: metav1.NewTime(now)},
		Spec: v1alpha1.SignerSpec{
			SignerName: signerName, CA: v1alpha1.SignerCA{SecretRef: &v1alpha1.LocalObjectReference{Name: "serving-ca"}},
			Trust: v1alpha1.Trust{ConfigMap: &v1alpha1.TrustConfigMap{Name: "example-ca"}},
		},
	})
	metrics, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	l := &life{server: server, at: now}
	l.signerReconciler = &signerReconciler{
		clock:  newClockGuard(),
		cached: server, live: server, status: statusOf{server.Status(), l}, signers: newRegistry(), sources: l, trust: published{},
		pending: func(context.Context, string) {}, events: events.NewFakeRecorder(100), metrics: metrics, now: func() time.Time { return l.at },
	}
	return l
}

// change edits the Signer and reconciles it.
func (l *life) change(t *testing.T, edit func(*v1alpha1.Signer)) error {
	t.Helper()
	s := l.signer(t)
	if edit != nil {
		edit(s)
		if err := l.server.Update(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	_, err := l.Reconcile(t.Context(), requestFor("serving"))
	return err
}

func (l *life) signer(t *testing.T) *v1alpha1.Signer {
	t.Helper()
	s := &v1alpha1.Signer{}
	if err := l.server.Get(t.Context(), client.ObjectKey{Name: "serving"}, s); err != nil {
		t.Fatal(err)
	}
	return s
}

// signs is the common name of the CA that signs, or "none".
func (l *life) signs() string {
	if ready := l.signers.get(signerName); ready != nil {
		return ready.ca.Certificate().Subject.CommonName
	}
	return "none"
}

func twoCAs(t *testing.T) (one, two *ca.CA) {
	t.Helper()
	named := func(name string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.Subject.CommonName = name }
	}
	return newCA(t, testKeys().RSA, named("One")), newCA(t, testKeys().EC, named("Two"))
}

// TestSignerReconciler_memory: the previous CA signs until the next one has propagated, whatever happens in between.
// Only the deletion of its Secret ends it.
func TestSignerReconciler_memory(t *testing.T) {
	one, two := twoCAs(t)
	tests := []struct {
		name    string
		between func(*life)
		signs   string
	}{
		{"nothing", func(*life) {}, "One"},
		{"certificate and key were written one after the other", func(l *life) {
			l.source = loaded{problem: &ca.Problem{Reason: v1alpha1.ReasonCAKeyMismatch, Message: "not yet"}}
		}, "One"},
		{"another Secret is named, and not read yet", func(l *life) { l.source = loaded{err: source.ErrPending} }, "One"},
		{"another Secret is named, and an error occurs when it is read", func(l *life) {
			l.source = loaded{problem: &ca.Problem{Reason: v1alpha1.ReasonSecretNotFound, Message: "reading it", Transient: true}}
		}, "One"},
		{"the status was changed meanwhile", func(l *life) {
			l.source, l.writeErr = loaded{ca: two}, apierrors.NewConflict(corev1.Resource("signers"), "serving", errors.New("changed"))
		}, "One"},
		{"API server not reachable", func(l *life) {
			l.source, l.writeErr = loaded{ca: two}, apierrors.NewInternalError(errors.New("not reachable"))
		}, "One"},
		{"the Secret was deleted", func(l *life) {
			l.source = loaded{problem: &ca.Problem{Reason: v1alpha1.ReasonSecretNotFound, Message: "deleted"}}
		}, "none"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := newLife(t)
			l.source = loaded{ca: one}
			if err := l.change(t, nil); err != nil || l.signs() != "One" {
				t.Fatalf("%s signs; %v", l.signs(), err)
			}
			test.between(l)
			_ = l.change(t, nil) // an error is retried
			l.source, l.writeErr = loaded{ca: two}, nil
			if err := l.change(t, nil); err != nil || l.signs() != test.signs {
				t.Errorf("%s signs, want %s; %v", l.signs(), test.signs, err)
			}
			l.at = now.Add(defaultPropagation + time.Second)
			if err := l.change(t, nil); err != nil || l.signs() != "Two" {
				t.Errorf("after propagation %s signs; %v", l.signs(), err)
			}
		})
	}
}

// TestSignerReconciler_managedMemory: a managed CA whose Secret was deleted does not sign from memory. The CA of another
// source does.
func TestSignerReconciler_managedMemory(t *testing.T) {
	one, two := twoCAs(t)
	managed := func(name string) v1alpha1.SignerCA {
		return v1alpha1.SignerCA{Managed: &v1alpha1.ManagedCA{SecretName: name, CommonName: "Two"}}
	}
	for _, test := range []struct {
		name         string
		before, then v1alpha1.SignerCA
		signs        string
	}{
		{"the Secret was deleted", managed("serving-ca"), managed("serving-ca"), "none"},
		{"another Secret", managed("serving-ca"), managed("other-ca"), "One"},
		{"from a CA of one's own", v1alpha1.SignerCA{SecretRef: &v1alpha1.LocalObjectReference{Name: "own-ca"}}, managed("serving-ca"), "One"},
		{"to a CA of one's own", managed("serving-ca"), v1alpha1.SignerCA{SecretRef: &v1alpha1.LocalObjectReference{Name: "own-ca"}}, "One"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLife(t)
			l.source = loaded{ca: one}
			if err := l.change(t, func(s *v1alpha1.Signer) { s.Spec.CA = test.before }); err != nil || l.signs() != "One" {
				t.Fatalf("%s signs; %v", l.signs(), err)
			}
			l.source = loaded{err: source.ErrPending} // the next CA was created, and the watch reports it
			if err := l.change(t, func(s *v1alpha1.Signer) { s.Spec.CA = test.then }); err != nil || l.signs() != "none" {
				t.Fatalf("%s signs; %v", l.signs(), err)
			}
			l.source = loaded{ca: two}
			if err := l.change(t, nil); err != nil || l.signs() != test.signs {
				t.Errorf("%s signs, want %s; %v", l.signs(), test.signs, err)
			}
			l.at = now.Add(defaultPropagation + time.Second)
			if err := l.change(t, nil); err != nil || l.signs() != "Two" {
				t.Errorf("after propagation %s signs; %v", l.signs(), err)
			}
		})
	}
}

// withdrawing records the last publication.
type withdrawing struct {
	published
	last *string
}

func (w withdrawing) Publish(ctx context.Context, s *v1alpha1.Signer, bundle []byte) trust.Result {
	if s.Spec.Trust.ConfigMap == nil && !s.Spec.Trust.ClusterTrustBundle {
		*w.last = "nothing"
		return trust.Result{Complete: true}
	}
	*w.last = "a bundle"
	return w.published.Publish(ctx, s, bundle)
}

// TestSignerReconciler_withdrawn: a distrusted CA is removed from clients even if there is no other CA.
func TestSignerReconciler_withdrawn(t *testing.T) {
	one, two := twoCAs(t)
	l := newLife(t)
	last := ""
	l.trust = withdrawing{last: &last}
	l.source = loaded{ca: one}
	if err := l.change(t, nil); err != nil || last != "a bundle" {
		t.Fatalf("published %s; %v", last, err)
	}
	if err := l.change(t, func(s *v1alpha1.Signer) { s.Spec.Trust.Distrusted = []string{one.Fingerprint()} }); err != nil {
		t.Fatal(err)
	}
	s := l.signer(t)
	got := map[string]string{}
	for _, c := range s.Status.Conditions {
		got[c.Type] = string(c.Status) + " " + c.Reason + ": " + c.Message
	}
	want := map[string]string{
		"Ready":          `False CADistrusted: "CN=One", or one of its issuers, is listed in spec.trust.distrusted: use another CA`,
		"Rotating":       "False Settled: no CA is trusted yet",
		"TrustPublished": "False Withdrawn: no CA is published, because every CA is listed in spec.trust.distrusted",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
	if last != "nothing" || s.Status.Published != nil || s.Status.BundleSHA256 != "" || l.signs() != "none" {
		t.Errorf("published %s, %+v %s; %s signs", last, s.Status.Published, s.Status.BundleSHA256, l.signs())
	}
	l.source = loaded{ca: two}
	if err := l.change(t, nil); err != nil || last != "a bundle" || l.signs() != "Two" {
		t.Errorf("published %s, %s signs; %v", last, l.signs(), err)
	}
}

// TestSignerReconciler_oldCRD: no CA signs that is not on record, and the error is retried with backoff.
func TestSignerReconciler_oldCRD(t *testing.T) {
	one, _ := twoCAs(t)
	l := newLife(t)
	l.source, l.prunes = loaded{ca: one}, true
	err := l.change(t, nil)
	const want = "the API server drops status.trustAnchors: apply the custom resource definitions of this version, deploy/base/crds"
	if err == nil || err.Error() != want || l.signs() != "none" {
		t.Errorf("%s signs; %v", l.signs(), err)
	}
}

// TestSignerReconciler_targets: propagation starts again when the next CA is published in another place.
func TestSignerReconciler_targets(t *testing.T) {
	one, two := twoCAs(t)
	l := newLife(t)
	l.source = loaded{ca: one}
	change := func(edit func(*v1alpha1.Signer)) {
		t.Helper()
		if err := l.change(t, edit); err != nil {
			t.Fatal(err)
		}
	}
	change(nil)
	l.source, l.trust = loaded{ca: two}, published{err: errors.New("not reachable")}
	change(nil)
	l.trust = published{}
	change(func(s *v1alpha1.Signer) { s.Spec.Trust.ConfigMap = nil })
	l.trust = published{err: errors.New("not reachable")}
	change(func(s *v1alpha1.Signer) { s.Spec.Trust.ConfigMap = &v1alpha1.TrustConfigMap{Name: "example-ca"} })
	l.at = now.Add(defaultPropagation + time.Second)
	change(nil)
	if l.signs() != "One" {
		t.Errorf("%s signs, and is published nowhere", l.signs())
	}
	if rotating := meta.FindStatusCondition(l.signer(t).Status.Conditions, v1alpha1.ConditionRotating); rotating.Reason != v1alpha1.ReasonPublishing {
		t.Errorf("Rotating: %+v", rotating)
	}
}

// TestSignerReconciler_lastMinutes: the next CA signs as soon as the current one can no longer issue the shortest
// certificate, even if it is not published. There is no time without a CA that can issue.
func TestSignerReconciler_lastMinutes(t *testing.T) {
	keys := testKeys()
	one := newCA(t, keys.RSA, func(c *x509.Certificate) { c.Subject.CommonName, c.NotAfter = "One", now.Add(time.Hour) })
	two := newCA(t, keys.EC, func(c *x509.Certificate) { c.Subject.CommonName = "Two" })
	l := newLife(t)
	l.source = loaded{ca: one}
	if err := l.change(t, nil); err != nil {
		t.Fatal(err)
	}
	l.source, l.trust = loaded{ca: two}, published{err: errors.New("not reachable")}
	shortest := int32(newProfile(t).MinDuration().Seconds())
	for minute := range 61 {
		l.at = now.Add(time.Duration(minute) * time.Minute)
		if err := l.change(t, nil); err != nil {
			t.Fatal(err)
		}
		want := "One"
		if minute >= 50 {
			want = "Two"
		}
		if l.signs() != want {
			t.Fatalf("after %d minutes %s signs, want %s", minute, l.signs(), want)
		}
		ready := l.signers.get(signerName)
		prepared, err := issuance.Prepare(l.at, newCSR(t, keys.EC, nil, expiration(shortest)), ready.profile, ready.ca)
		if err != nil || prepared.Outcome != issuance.Ready {
			t.Errorf("after %d minutes: %s %v, %v", minute, prepared.Outcome, prepared.Problem, err)
		}
	}
	if phases := l.signer(t).Status.TrustAnchors; len(phases) != 1 {
		t.Errorf("after the end of the first CA: %+v", phases)
	}
}

// TestSignerReconciler_clock: after a jump of the clock nothing changes until it has settled, and the CA signs on. A
// distrusted CA does not: see TestRequestReconciler_staleSigner.
func TestSignerReconciler_clock(t *testing.T) {
	one, two := twoCAs(t)
	l := newLife(t)
	l.source = loaded{ca: one}
	if err := l.change(t, nil); err != nil || l.signs() != "One" {
		t.Fatalf("%s signs; %v", l.signs(), err)
	}
	l.source = loaded{ca: two}
	before := l.signer(t)
	l.clock.begun = l.clock.begun.Round(0).Add(-time.Hour) // without a monotonic reading both clocks agree
	l.clock.offset = -time.Hour                            // so this is a jump by an hour
	result, err := l.Reconcile(t.Context(), requestFor("serving"))
	if err != nil || result.RequeueAfter < clockSettles-time.Second || result.RequeueAfter > clockSettles || l.signs() != "One" {
		t.Errorf("got %+v, %v; %s signs", result, err, l.signs())
	}
	if diff := cmp.Diff(before.Status, l.signer(t).Status); diff != "" {
		t.Errorf("the status changed (-before +after):\n%s", diff)
	}
	l.clock.until = 0 // it has settled
	if err := l.change(t, nil); err != nil || len(l.signer(t).Status.TrustAnchors) != 2 {
		t.Errorf("the rotation does not go on: %+v, %v", l.signer(t).Status.TrustAnchors, err)
	}
}

// TestSignerReconciler_noExpiry: a CA whose certificate has no end, 99991231235959Z in RFC 5280, section 4.1.2.5, does
// not stop the timers of its Signer.
func TestSignerReconciler_noExpiry(t *testing.T) {
	forever := func(name string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.Subject.CommonName, c.NotAfter = name, time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
		}
	}
	one, two := newCA(t, testKeys().RSA, forever("One")), newCA(t, testKeys().EC, forever("Two"))
	l := newLife(t)
	for _, step := range []struct {
		name      string
		ca        *ca.CA
		published published
		want      time.Duration
	}{
		{"settled", one, published{}, resync},
		{"a publication is retried", one, published{err: errors.New("not reachable")}, publishRetry + timerSlack},
		{"a rotation", two, published{}, resync},
	} {
		l.source, l.trust = loaded{ca: step.ca}, step.published
		if got, err := l.Reconcile(t.Context(), requestFor("serving")); err != nil || got.RequeueAfter != step.want {
			t.Errorf("%s: requeued after %v, want %v; %v", step.name, got.RequeueAfter, step.want, err)
		}
	}
}

// TestValidate_propagation: a propagation period whose sum with another one overflows is not short.
func TestValidate_propagation(t *testing.T) {
	for _, test := range []struct {
		name        string
		propagation time.Duration
		reason      string
	}{
		{"longest", maxPropagation, v1alpha1.ReasonInvalidProfile}, // longer than renewBefore
		{"too long", maxPropagation + 1, v1alpha1.ReasonInvalidProfile},
		{"overflow", 1<<63 - 1, v1alpha1.ReasonInvalidProfile},
		{"negative", -time.Second, v1alpha1.ReasonInvalidProfile},
		{"none", 0, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := v1alpha1.Signer{Spec: v1alpha1.SignerSpec{SignerName: signerName}}
			s.Spec.CA.Managed = &v1alpha1.ManagedCA{SecretName: "serving-ca", CommonName: "Example"}
			s.Spec.Trust.Propagation = &metav1.Duration{Duration: test.propagation}
			_, problem := validate(&s, []v1alpha1.Signer{s})
			reason := ""
			if problem != nil {
				reason = problem.Reason
			}
			if reason != test.reason {
				t.Errorf("got %+v, want %q", problem, test.reason)
			}
		})
	}
}
