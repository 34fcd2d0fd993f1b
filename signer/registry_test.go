// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/internal/fairqueue"
)

func TestRegistry_strip(t *testing.T) {
	r := newRegistry()
	r.set("serving", signerName, nil) // known, though it issues nothing now

	whole := func() *certificatesv1.CertificateSigningRequest {
		c := &certificatesv1.CertificateSigningRequest{}
		c.Name, c.UID, c.ResourceVersion = "web", "uid-1", "42"
		c.Labels, c.Annotations = map[string]string{"l": "v"}, map[string]string{"a": "v"}
		c.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
		c.Spec.SignerName, c.Spec.Request, c.Spec.Username = signerName, []byte("request"), "user"
		c.Spec.Extra = map[string]certificatesv1.ExtraValue{fairqueue.PodUIDExtra: {"pod"}, "scopes": {"a"}}
		c.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{conditionOf("Approved")}
		return c
	}
	identity := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "web", UID: "uid-1", ResourceVersion: "42"}}
	kept := whole()
	kept.ManagedFields = nil
	strangers := identity.DeepCopy()
	strangers.Spec.SignerName, strangers.Spec.Username = "example.com/other", "user"
	strangers.Spec.Extra = map[string]certificatesv1.ExtraValue{fairqueue.PodUIDExtra: {"pod"}}
	strangers.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: "Approved", Status: "True"}}

	tests := map[string]struct {
		change func(*certificatesv1.CertificateSigningRequest)
		want   *certificatesv1.CertificateSigningRequest
	}{
		"due and ours: kept, since it is written back": {func(*certificatesv1.CertificateSigningRequest) {}, kept},
		"due and not ours": {func(c *certificatesv1.CertificateSigningRequest) { c.Spec.SignerName = "example.com/other" }, strangers},
		"not approved":     {func(c *certificatesv1.CertificateSigningRequest) { c.Status.Conditions = nil }, identity},
		"denied": {func(c *certificatesv1.CertificateSigningRequest) {
			c.Status.Conditions[0] = conditionOf("Denied")
		}, identity},
		"failed": {func(c *certificatesv1.CertificateSigningRequest) {
			c.Status.Conditions = append(c.Status.Conditions, conditionOf("Failed"))
		}, identity},
		"issued": {func(c *certificatesv1.CertificateSigningRequest) { c.Status.Certificate = []byte("certificate") }, identity},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			csr := whole()
			test.change(csr)
			got, err := r.strip(csr)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(any(test.want), got); diff != "" {
				t.Errorf("kept (-want +got):\n%s", diff)
			}
			again, err := r.strip(got) // as client-go does with what an informer starts with
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(any(test.want), again); diff != "" {
				t.Errorf("kept of what was kept (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRegistry_stripThenKnown: the Signer becomes known between the two passes of a transform. What
// is left has no spec.request, so that it is read live and not written back.
func TestRegistry_stripThenKnown(t *testing.T) {
	r := newRegistry()
	csr := &certificatesv1.CertificateSigningRequest{}
	csr.Name, csr.Spec.SignerName, csr.Spec.Request = "web", signerName, []byte("request")
	csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{conditionOf("Approved")}
	kept, err := r.strip(csr)
	if err != nil {
		t.Fatal(err)
	}
	r.set("serving", signerName, nil)
	kept, err = r.strip(kept)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := kept.(*certificatesv1.CertificateSigningRequest)
	if !ok || got.Spec.SignerName != signerName || len(got.Spec.Request) > 0 {
		t.Errorf("kept %+v", kept)
	}
}

func TestRegistry_readiness(t *testing.T) {
	ready := func(name string) *readySigner {
		return &readySigner{signer: &v1alpha1.Signer{ObjectMeta: metav1.ObjectMeta{Name: name, Generation: 1}}, ca: newCA(t, testKeys().ec, nil)}
	}
	r := newRegistry()
	first := ready("first")
	if !r.set("first", signerName, first) || r.set("first", signerName, first) {
		t.Fatal("that it issues is news, and that it still does is none")
	}
	again := *first
	again.signer = first.signer.DeepCopy()
	again.signer.Generation++
	if !r.set("first", signerName, &again) {
		t.Fatal("another spec is news")
	}
	r.set("second", signerName, nil) // a duplicate that is not ready does not unseat the first
	if got := r.get(signerName); got == nil || got.signer.Name != "first" {
		t.Fatalf("got %+v, want the first", got)
	}
	r.remove("second")
	if r.get(signerName) == nil || !r.knows(signerName) {
		t.Fatal("removing the duplicate removed the first")
	}
	r.set("first", signerName, nil)
	if r.get(signerName) != nil || !r.knows(signerName) {
		t.Fatal("a Signer that is not ready is still known, but issues nothing")
	}
	r.set("first", signerName, ready("first"))
	r.set("first", "example.com/other", nil) // deleted and made again under its name
	if r.get(signerName) != nil || r.knows(signerName) {
		t.Fatal("a Signer issues for the signerName that one of its name had before")
	}
	r.remove("first")
	if r.knows(signerName) {
		t.Fatal("a Signer that was deleted is known")
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
		t.Errorf("got %+v, want y: as old as z, and before it by name", got)
	}
}
