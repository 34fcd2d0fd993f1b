// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/approver/review"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// fakeReviewer returns what a test sets.
type fakeReviewer struct {
	unloaded bool
	review   review.Review
	err      error
	requests []*certificatesv1.CertificateSigningRequest
	clocks   review.Clocks
}

func (r *fakeReviewer) Loaded() bool { return !r.unloaded }

func (r *fakeReviewer) Manages(signerName string) bool {
	return !r.unloaded && strings.HasPrefix(signerName, "example.com/")
}

func (r *fakeReviewer) Review(_ context.Context, csr *certificatesv1.CertificateSigningRequest, clocks review.Clocks) (review.Review, error) {
	r.requests, r.clocks = append(r.requests, csr), clocks
	return r.review, r.err
}

// Reviews of a request for "other-pod" by my-pod.
var (
	revision = strings.Repeat("3f1c0a9d5b7e", 5) + "abcd"
	owned    = evaluator.Violation{Requirement: 2, ID: "dns-name-not-owned", Message: `DNS name "other-pod" does not belong to Pod ns/my-pod`, Value: "other-pod"}
	usage    = evaluator.Violation{Requirement: 2, ID: "usage-missing", Message: `usage "server auth" is missing`}
	awaited  = evaluator.Violation{Requirement: 2, ID: "ip-address-unknown", Message: "nothing has address 10.0.0.1 yet", Retryable: true}

	allowed = reviewOf(review.Evaluation{Policy: "pod-serving", Revision: revision, Result: evaluator.Result{Allowed: true}})
	denied  = reviewOf(
		review.Evaluation{Policy: "office-hours", Revision: revision, Result: evaluator.Result{Allowed: true}},
		review.Evaluation{Policy: "pod-serving", Revision: revision, Result: evaluator.Result{Violations: []evaluator.Violation{owned, usage}}},
	)
	held = reviewOf(review.Evaluation{
		Policy: "pod-serving", Revision: revision, HoldFor: time.Minute, Result: evaluator.Result{Violations: []evaluator.Violation{awaited}},
	})
	abstained = reviewOf(review.Evaluation{Policy: "pod-serving", Revision: revision, Result: evaluator.Result{Abstains: true}})
	refused   = review.Review{
		Decision: review.Decision{Outcome: review.Refuse, Reason: "WeakKey", Message: "WeakKey: the RSA key has 1024 bits: use 2048 to 8192; CertificateAuthority: basic constraints ask for a CA certificate: leave CA:TRUE out"},
	}
	notLoaded  = review.Review{Decision: review.Decision{Outcome: review.NotLoaded}, NotLoaded: "pod-serving", Facts: &facts.Facts{}}
	onlyShadow = review.Review{
		Decision: review.Decision{Outcome: review.NotMatched}, Facts: &facts.Facts{},
		Shadow: []review.Evaluation{{Policy: "shadow", Revision: revision, Result: evaluator.Result{Violations: []evaluator.Violation{owned}}}},
	}
)

func reviewOf(evaluations ...review.Evaluation) review.Review {
	return review.Review{
		Facts:       &facts.Facts{PKCS10: facts.PKCS10{DNSNames: []string{"other-pod"}}},
		Evaluations: evaluations, Decision: review.Decide(review.Clocks{}, noon, evaluations),
	}
}

func request(signerName string) *certificatesv1.CertificateSigningRequest {
	return &certificatesv1.CertificateSigningRequest{
		TypeMeta:   metav1.TypeMeta{APIVersion: "certificates.k8s.io/v1", Kind: "CertificateSigningRequest"},
		ObjectMeta: metav1.ObjectMeta{Name: "web", UID: "web-uid"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: signerName, Request: []byte("pem"), Username: "system:serviceaccount:ns:sa", Groups: []string{"system:authenticated"},
			Usages: []certificatesv1.KeyUsage{"server auth"},
		},
	}
}

func TestNewRequest(t *testing.T) {
	const (
		first  = `pod-serving: dns-name-not-owned: DNS name "other-pod" does not belong to Pod ns/my-pod`
		second = `pod-serving: usage-missing: usage "server auth" is missing`
	)
	for _, tc := range []struct {
		name      string
		signer    string
		review    review.Review
		err       error
		onDenial  OnDenial
		want      answer
		untouched bool
	}{
		{name: "allowed", review: allowed, want: answer{Allowed: true}},
		{name: "denied", review: denied, want: answer{Allowed: true, Warnings: []string{first + " (would be denied)", second + " (would be denied)"}}},
		{name: "held", review: held, want: answer{Allowed: true, Warnings: []string{"pod-serving: ip-address-unknown: nothing has address 10.0.0.1 yet (held for now)"}}},
		{name: "abstained", review: abstained, want: answer{Allowed: true}},
		{name: "only a shadow policy", review: onlyShadow, want: answer{Allowed: true}},
		{name: "not loaded", review: notLoaded, want: answer{Allowed: true}},
		{name: "an error", err: errors.New("connection refused"), onDenial: Reject, want: answer{Allowed: true}},
		{name: "a signer without a policy", signer: "kubernetes.io/kube-apiserver-client", review: denied, want: answer{Allowed: true}, untouched: true},

		{name: "denied, and rejected", review: denied, onDenial: Reject, want: answer{Code: 403, Reason: metav1.StatusReasonForbidden, Message: first + "; " + second}},
		{
			name:   "held, and not rejected",
			review: held, onDenial: Reject,
			want: answer{Allowed: true, Warnings: []string{"pod-serving: ip-address-unknown: nothing has address 10.0.0.1 yet (held for now)"}},
		},
		{name: "refused", review: refused, want: answer{
			Code: 422, Reason: metav1.StatusReasonInvalid,
			Message: "WeakKey: the RSA key has 1024 bits: use 2048 to 8192; CertificateAuthority: basic constraints ask for a CA certificate: leave CA:TRUE out",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.signer == "" {
				tc.signer = "example.com/serving"
			}
			if tc.onDenial == "" {
				tc.onDenial = Warn
			}
			reviewer := &fakeReviewer{review: tc.review, err: tc.err}
			h := &requestHandler{decoder: admission.NewDecoder(newScheme(t)), reviewer: reviewer, onDenial: tc.onDenial}
			got := h.Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
				Operation: admissionv1.Create, Object: raw(t, request(tc.signer)), UserInfo: authenticationv1.UserInfo{Username: "system:serviceaccount:ns:sa"},
			}})
			check(t, tc.want, got)
			if tc.untouched != (len(reviewer.requests) == 0) {
				t.Errorf("%d reviews", len(reviewer.requests))
			}
			if reviewer.clocks.Held != nil || reviewer.clocks.Late {
				t.Errorf("clocks are %+v", reviewer.clocks)
			}
		})
	}
}

// TestNewRequestIdentity checks that the identity comes from admission, not from the object.
func TestNewRequestIdentity(t *testing.T) {
	reviewer := &fakeReviewer{review: allowed}
	h := &requestHandler{decoder: admission.NewDecoder(newScheme(t)), reviewer: reviewer, onDenial: Warn}
	forged := request("example.com/serving")
	forged.Spec.Extra = map[string]certificatesv1.ExtraValue{"authentication.kubernetes.io/pod-name": {"other-pod"}}
	h.Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Operation: admissionv1.Create, Object: raw(t, forged), UserInfo: authenticationv1.UserInfo{
			Username: "system:serviceaccount:ns:mine", UID: "7", Groups: []string{"g"},
			Extra: map[string]authenticationv1.ExtraValue{"authentication.kubernetes.io/pod-name": {"my-pod"}},
		},
	}})
	want := request("example.com/serving")
	want.Spec.Username, want.Spec.UID, want.Spec.Groups = "system:serviceaccount:ns:mine", "7", []string{"g"}
	want.Spec.Extra = map[string]certificatesv1.ExtraValue{"authentication.kubernetes.io/pod-name": {"my-pod"}}
	if len(reviewer.requests) != 1 {
		t.Fatalf("%d reviews", len(reviewer.requests))
	}
	if diff := cmp.Diff(want, reviewer.requests[0]); diff != "" {
		t.Errorf("reviewed request (-want +got):\n%s", diff)
	}
}

func TestNewRequestWarningLimit(t *testing.T) {
	result := evaluator.Result{}
	for range 64 {
		result.Violations = append(result.Violations, evaluator.Violation{Requirement: 2, ID: "no", Message: strings.Repeat("x", 400)})
	}
	got := answerRequest(reviewOf(review.Evaluation{Policy: "p", Result: result}), Warn)
	if n := len(got.Warnings); n != 16 || got.Warnings[15] != "and 49 more" {
		t.Errorf("%d warnings, the last %q", n, got.Warnings[n-1])
	}
	if want := "p: no: " + strings.Repeat("x", 228) + "... (would be denied)"; got.Warnings[0] != want {
		t.Errorf("%q, want %q", got.Warnings[0], want)
	}
}
