// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/events"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/issuance"
	"countersign.dev/countersign/test/reasons"
)

// TestReasons_examples checks that the example of each reason is a message that the signer emits.
func TestReasons_examples(t *testing.T) {
	keys := testKeys()
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		reason  string
		key     crypto.Signer // defaults to ECDSA
		request func(*x509.CertificateRequest)
		object  func(*certificatesv1.CertificateSigningRequest)
		spec    v1alpha1.SignerSpec
		ca      func(*x509.Certificate)
	}{
		{reason: "RequestRefused", key: weak},
		{reason: "UsageNotAllowed", object: usages("code signing")},
		{reason: "KeyNotAllowed", key: keys.RSA, spec: v1alpha1.SignerSpec{
			Certificate: v1alpha1.CertificateProfile{KeyAlgorithms: []string{"ECDSA", "Ed25519"}},
		}},
		{reason: "LifetimeNotAllowed", object: expiration(600), spec: v1alpha1.SignerSpec{
			Certificate: v1alpha1.CertificateProfile{MinDuration: &metav1.Duration{Duration: time.Hour}},
		}},
		{reason: "SubjectNotAllowed", request: func(r *x509.CertificateRequest) { r.Subject, r.DNSNames = pkix.Name{}, nil }},
		{reason: "LintFailed", request: func(r *x509.CertificateRequest) {
			r.Subject, r.DNSNames = pkix.Name{}, []string{"web.shop.svc."}
		}},
		{reason: "NameNotPermitted", ca: func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"other"} }},
		{reason: "ApprovalTooOld", object: approved(time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC))},
	}
	emitted := map[string]string{"SigningForbidden": signingForbidden(t)}
	for _, test := range tests {
		key := test.key
		if key == nil {
			key = keys.EC
		}
		test.spec.SignerName = signerName
		profile, err := issuance.NewProfile(test.spec)
		if err != nil {
			t.Fatal(err)
		}
		got, err := issuance.Prepare(now, newCSR(t, key, test.request, test.object), profile, newCA(t, keys.EC, test.ca))
		if err != nil {
			t.Fatal(err)
		}
		if got.Problem == nil || got.Problem.Reason != test.reason {
			t.Errorf("got %+v, want reason %s", got.Problem, test.reason)
			continue
		}
		emitted[test.reason] = got.Problem.Message
	}
	examples, err := reasons.Examples("issuance/reasons.go")
	if err != nil {
		t.Fatal(err)
	}
	if len(examples) != len(emitted) {
		t.Errorf("%d reasons have examples, and the test emits %d", len(examples), len(emitted))
	}
	for name, example := range examples {
		if got := emitted[strings.TrimPrefix(name, "Reason")]; got != example {
			t.Errorf("%s\nexample: %s\nemitted: %s", name, example, got)
		}
	}
}

// signingForbidden returns the note of the Event with that reason.
func signingForbidden(t *testing.T) string {
	t.Helper()
	metrics, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	recorder := events.NewFakeRecorder(1)
	r := &requestReconciler{events: recorder, metrics: metrics}
	signer := &v1alpha1.Signer{Spec: v1alpha1.SignerSpec{SignerName: signerName}}
	resource := schema.GroupResource{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}
	denied := apierrors.NewForbidden(resource, "web", errors.New("no"))
	if _, err := r.afterWriteError(&readySigner{signer: signer}, denied); err == nil {
		t.Fatal("a write that is forbidden is not retried")
	}
	close(recorder.Events)
	got := slices.Collect(each(recorder.Events))
	if len(got) != 1 {
		t.Fatalf("%d Events, want 1", len(got))
	}
	return strings.TrimPrefix(got[0], "Warning SigningForbidden ")
}
