// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
)

func TestRegistry_readiness(t *testing.T) {
	ready := func(name string) *readySigner {
		return &readySigner{signer: &v1alpha1.Signer{ObjectMeta: metav1.ObjectMeta{Name: name, Generation: 1}}, ca: newCA(t, testKeys().EC, nil)}
	}
	r := newRegistry()
	first := ready("first")
	if !r.set("first", signerName, first) || r.set("first", signerName, first) {
		t.Fatal("set must report a Signer that becomes ready, once")
	}
	changed := *first
	changed.signer = first.signer.DeepCopy()
	changed.signer.Generation++
	if !r.set("first", signerName, &changed) {
		t.Fatal("set must report another spec")
	}
	r.set("second", signerName, nil) // a duplicate that is not ready does not remove the first
	if got := r.get(signerName); got == nil || got.signer.Name != "first" {
		t.Fatalf("got %+v, want the first", got)
	}
	r.remove("second")
	if r.get(signerName) == nil {
		t.Fatal("removing the duplicate removed the first")
	}
	r.set("first", signerName, nil)
	if r.get(signerName) != nil {
		t.Fatal("a Signer that is not ready is returned")
	}
	r.set("first", signerName, ready("first"))
	r.set("first", "example.com/other", nil) // deleted and made again under its name
	if r.get(signerName) != nil {
		t.Fatal("a Signer is returned for the signerName of the deleted Signer with its name")
	}
	r.set("first", signerName, ready("first"))
	r.remove("first")
	if r.get(signerName) != nil {
		t.Fatal("a deleted Signer is returned")
	}
}

func TestOldest(t *testing.T) {
	signer := func(name, signerName string, age time.Duration) v1alpha1.Signer {
		return v1alpha1.Signer{
			ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(now.Add(-age))},
			Spec:       v1alpha1.SignerSpec{SignerName: signerName},
		}
	}
	all := []v1alpha1.Signer{
		signer("a", signerName, time.Minute),
		signer("z", signerName, time.Hour),
		signer("y", signerName, time.Hour),
		signer("b", "example.com/other", 2*time.Hour),
	}
	if got := oldest(all, func(s *v1alpha1.Signer) bool { return s.Spec.SignerName == signerName }); got == nil || got.Name != "y" {
		t.Errorf("got %+v, want y, which is as old as z and has the lower name", got)
	}
}

// TestValidate_renewBefore: the next CA needs spec.trust.propagation before it signs, if the Signer sets it.
func TestValidate_renewBefore(t *testing.T) {
	hours := func(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }
	for _, test := range []struct {
		name                               string
		duration, renewBefore, propagation *metav1.Duration
		want                               string
	}{
		{"defaults", nil, nil, hours(defaultPropagation), ""},
		{"an hour, without spec.trust, as a Signer of an earlier version", hours(time.Hour), nil, nil, ""},
		{"an hour, with the default", hours(time.Hour), nil, hours(defaultPropagation), v1alpha1.ReasonInvalidProfile},
		{"longer than both", hours(time.Hour), hours(21 * time.Minute), hours(defaultPropagation), ""},
		{"not longer than the shortest certificate", hours(time.Hour), hours(10 * time.Minute), nil, v1alpha1.ReasonInvalidProfile},
	} {
		signer := v1alpha1.Signer{ObjectMeta: metav1.ObjectMeta{Name: "serving"}}
		signer.Spec.SignerName, signer.Spec.Trust.Propagation = signerName, test.propagation
		signer.Spec.CA.Managed = &v1alpha1.ManagedCA{SecretName: "serving-ca", Duration: test.duration, RenewBefore: test.renewBefore}
		reason := ""
		if _, problem := validate(&signer, []v1alpha1.Signer{signer}); problem != nil {
			reason = problem.Reason
		}
		if reason != test.want {
			t.Errorf("%s: %q, want %q", test.name, reason, test.want)
		}
	}
}
