// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
	"countersign.dev/countersign/signer/ca/source"
	"countersign.dev/countersign/signer/internal/signertest"
)

// TestSignerReasons_examples compares the examples in the API documentation with the messages of the signer. Each reason of a
// Signer needs an example, and each example a case here or in the package that signertest names.
func TestSignerReasons_examples(t *testing.T) {
	produced := map[string]string{}
	add := func(problem *ca.Problem) {
		t.Helper()
		if problem == nil {
			t.Fatal("no problem")
		}
		produced[problem.Reason] = problem.Message
	}
	addCAProblems(t, add)
	addSpecProblems(add)
	addRotations(t, produced)
	addConditions(t, produced)

	examples := signertest.SignerReasons(t)
	elsewhere := slices.Concat(signertest.SourceReasons, signertest.TrustReasons)
	for _, reason := range slices.Sorted(maps.Keys(examples)) {
		if !slices.Contains(elsewhere, reason) {
			signertest.CheckExample(t, examples, reason, produced[reason])
		}
	}
	for reason := range produced {
		if examples[reason] == "" {
			t.Errorf("reason %s is not documented in package v1alpha1", reason)
		}
	}
}

func exampleCA(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "My Example Signer"} }

// addCAProblems adds the problems of CA certificates.
func addCAProblems(t *testing.T, add func(*ca.Problem)) {
	t.Helper()
	keys := signertest.Keys()
	good := signertest.NewCA(t, keys.EC, exampleCA)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: good.Certificate().Raw})
	certificates, _ := ca.ParseCertificates(certPEM)
	_, mismatch := ca.New(certificates, keys.RSA)
	add(mismatch)
	add(good.ValidAt(good.NotAfter().Add(time.Second), 0))
	add(good.ValidAt(good.NotBefore().Add(-time.Second), 0))

	endEntity := *good.Certificate()
	endEntity.IsCA = false
	der, err := x509.CreateCertificate(nil, &endEntity, &endEntity, keys.EC.Public(), keys.EC)
	if err != nil {
		t.Fatal(err)
	}
	_, notCA := ca.ParseCertificates(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	add(notCA)

	root := signertest.NewCA(t, keys.RSA, func(c *x509.Certificate) { c.Subject.CommonName = "Root"; c.NotAfter = good.NotAfter().Add(time.Hour) })
	issued := ca.Managed{Newest: below(t, root)}
	_, _, rotationFailed := issued.Next(issued.Newest.NotAfter().Add(-time.Minute), ca.Situation{
		Spec: &v1alpha1.ManagedCA{RootRef: &v1alpha1.LocalObjectReference{Name: "root-ca"}}, Root: root,
	})
	add(rotationFailed)
}

// below returns a CA that root issued.
func below(t *testing.T, root *ca.CA) *ca.CA {
	t.Helper()
	spec := &v1alpha1.ManagedCA{CommonName: "My Example Signer", Duration: &metav1.Duration{Duration: 24 * 365 * 20 * time.Hour}}
	c, problem, err := ca.Generate(t.Context(), signertest.Now, spec, root, signertest.Keys().EC)
	if problem != nil || err != nil {
		t.Fatal(problem, err)
	}
	return c
}

// addSpecProblems adds the problems of the specs of Signers.
func addSpecProblems(add func(*ca.Problem)) {
	older := v1alpha1.Signer{ObjectMeta: metav1.ObjectMeta{Name: "serving"}}
	older.Spec.SignerName = signerName
	older.Spec.CA.Managed = &v1alpha1.ManagedCA{SecretName: "serving-ca"}
	signer := *older.DeepCopy()
	signer.Name, signer.CreationTimestamp = "new", metav1.NewTime(now)
	validated := func(edit func()) {
		edit()
		_, problem := validate(&signer, []v1alpha1.Signer{older, signer})
		add(problem)
	}
	validated(func() {})
	validated(func() { signer.Spec.SignerName = "example.com/new" })
	validated(func() {
		signer.Spec.CA.Managed = nil
		signer.Spec.Certificate.MaxDuration = &metav1.Duration{Duration: 5 * time.Second}
	})
}

// addRotations adds the messages of a rotation from one CA to another.
func addRotations(t *testing.T, produced map[string]string) {
	t.Helper()
	keys := signertest.Keys()
	previous, next := signertest.NewCA(t, keys.EC, exampleCA), signertest.NewCA(t, keys.RSA, exampleCA)
	settings := ca.Settings{MinDuration: 10 * time.Minute, MaxDuration: 24 * time.Hour, Propagation: defaultPropagation}
	at := signertest.Now.Truncate(time.Second)
	rotate := func(record []v1alpha1.TrustAnchor, newest, previous *ca.CA) []v1alpha1.TrustAnchor {
		r := ca.Rotate(at, record, newest, previous, settings)
		produced[r.Reason] = r.Message
		if r.Problem != nil {
			produced[r.Problem.Reason] = r.Problem.Message
		}
		return r.Anchors
	}
	record := rotate(nil, previous, nil)
	ca.Published(record, at)
	record = rotate(record, next, previous)
	ca.Published(record, at)
	rotate(record, next, nil)
	at = at.Add(defaultPropagation)
	rotate(record, next, previous)
}

// addConditions adds the messages of a Signer that is ready or distrusted, and of its publication.
func addConditions(t *testing.T, produced map[string]string) {
	t.Helper()
	authority := signertest.NewCA(t, signertest.Keys().EC, exampleCA)
	signer := &v1alpha1.Signer{ObjectMeta: metav1.ObjectMeta{Name: "serving"}}
	signer.Spec.SignerName = signerName
	in := inputs{source: source.Result{Newest: authority}, fits: func(*ca.CA) *ca.Problem { return nil }}
	ready := newStatus(signer, decide(signer, in, signertest.Now), in.source)
	produced[v1alpha1.ReasonCALoaded] = meta.FindStatusCondition(ready.Conditions, v1alpha1.ConditionReady).Message
	in.settings.Distrusted = []string{authority.Fingerprint()}
	produced[v1alpha1.ReasonCADistrusted] = decide(signer, in, signertest.Now).problem.Message

	r := &signerReconciler{trust: published{}, now: func() time.Time { return now }}
	publish := func(edit func(*v1alpha1.SignerStatus)) {
		status := signer.Status.DeepCopy()
		edit(status)
		r.publish(t.Context(), signer, []v1alpha1.Signer{*signer}, status)
		c := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionTrustPublished)
		produced[c.Reason] = c.Message
	}
	publish(func(*v1alpha1.SignerStatus) {})
	signer.Spec.Trust.ConfigMap = &v1alpha1.TrustConfigMap{Name: "example-ca"}
	publish(func(*v1alpha1.SignerStatus) {})
	signer.Spec.Trust.Distrusted = []string{authority.Fingerprint()}
	last := ""
	r.trust = withdrawing{published{errors.New("unused")}, &last}
	publish(func(s *v1alpha1.SignerStatus) { s.Published = &v1alpha1.PublishedTrust{ConfigMap: "example-ca"} })
}
