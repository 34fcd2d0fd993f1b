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

	"countersign.dev/countersign/approver"
	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/facts"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// fakeJudge says what a test has it say.
type fakeJudge struct {
	unloaded  bool
	judgement approver.Judgement
	err       error
	judged    []*certificatesv1.CertificateSigningRequest
	since     time.Time
}

func (j *fakeJudge) Loaded() bool { return !j.unloaded }

func (j *fakeJudge) Manages(signerName string) bool {
	return !j.unloaded && strings.HasPrefix(signerName, "example.com/")
}

func (j *fakeJudge) Judge(_ context.Context, csr *certificatesv1.CertificateSigningRequest, since time.Time) (approver.Judgement, error) {
	j.judged, j.since = append(j.judged, csr), since
	return j.judgement, j.err
}

// Judgements of a request for "other-pod" by my-pod.
var (
	revision = strings.Repeat("3f1c0a9d5b7e", 5) + "abcd"
	owned    = evaluator.Violation{Requirement: 2, ID: "dns-name-not-owned", Message: `DNS name "other-pod" does not belong to Pod ns/my-pod`, Value: "other-pod"}
	usage    = evaluator.Violation{Requirement: 2, ID: "usage-missing", Message: `usage "server auth" is missing`}
	awaited  = evaluator.Violation{Requirement: 2, ID: "ip-address-unknown", Message: "nothing has address 10.0.0.1 yet", Retryable: true}

	allowed = judgementOf(approver.Evaluation{Policy: "pod-serving", Revision: revision, Result: evaluator.Result{Allowed: true}})
	denied  = judgementOf(
		approver.Evaluation{Policy: "office-hours", Revision: revision, Result: evaluator.Result{Allowed: true}},
		approver.Evaluation{Policy: "pod-serving", Revision: revision, Result: evaluator.Result{Violations: []evaluator.Violation{owned, usage}}},
	)
	held = judgementOf(approver.Evaluation{
		Policy: "pod-serving", Revision: revision, HoldFor: time.Minute, Result: evaluator.Result{Violations: []evaluator.Violation{awaited}},
	})
	abstained = judgementOf(approver.Evaluation{Policy: "pod-serving", Revision: revision, Result: evaluator.Result{Abstains: true}})
	refused   = approver.Judgement{
		Ours: true, Refused: true,
		Decision: approver.Decision{Verdict: approver.Denied, Reason: "WeakKey", Message: "WeakKey: the RSA key has 1024 bits: use 2048 to 8192; CertificateAuthority: basic constraints ask for a CA certificate: leave CA:TRUE out"},
	}
	notLoaded = approver.Judgement{Ours: true, NotLoaded: "pod-serving", Facts: &facts.Facts{}}
	onlyAudit = approver.Judgement{
		Facts:   &facts.Facts{},
		Audited: []approver.Evaluation{{Policy: "watching", Revision: revision, Result: evaluator.Result{Violations: []evaluator.Violation{owned}}}},
	}
)

func judgementOf(evaluations ...approver.Evaluation) approver.Judgement {
	return approver.Judgement{
		Ours: true, Facts: &facts.Facts{PKCS10: facts.PKCS10{DNSNames: []string{"other-pod"}}},
		Evaluations: evaluations, Decision: approver.Decide(noon, noon, evaluations),
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

func TestNewRequests(t *testing.T) {
	const (
		first  = `pod-serving: dns-name-not-owned: DNS name "other-pod" does not belong to Pod ns/my-pod`
		second = `pod-serving: usage-missing: usage "server auth" is missing`
	)
	for name, tc := range map[string]struct {
		signer    string
		judgement approver.Judgement
		err       error
		onDenial  OnDenial
		want      answer
		unjudged  bool
	}{
		"allowed":          {judgement: allowed, want: answer{Allowed: true}},
		"denied":           {judgement: denied, want: answer{Allowed: true, Warnings: []string{first + " (would be denied)", second + " (would be denied)"}}},
		"held":             {judgement: held, want: answer{Allowed: true, Warnings: []string{"pod-serving: ip-address-unknown: nothing has address 10.0.0.1 yet (is held for now)"}}},
		"abstained":        {judgement: abstained, want: answer{Allowed: true}},
		"only looked at":   {judgement: onlyAudit, want: answer{Allowed: true}},
		"not loaded":       {judgement: notLoaded, want: answer{Allowed: true}},
		"a fault":          {err: errors.New("connection refused"), onDenial: Reject, want: answer{Allowed: true}},
		"another's signer": {signer: "kubernetes.io/kube-apiserver-client", judgement: denied, want: answer{Allowed: true}, unjudged: true},

		"denied, and rejected": {judgement: denied, onDenial: Reject, want: answer{Code: 403, Reason: metav1.StatusReasonForbidden, Message: first + "; " + second}},
		"held, and not rejected": {
			judgement: held, onDenial: Reject,
			want: answer{Allowed: true, Warnings: []string{"pod-serving: ip-address-unknown: nothing has address 10.0.0.1 yet (is held for now)"}},
		},
		"refused": {judgement: refused, want: answer{
			Code: 422, Reason: metav1.StatusReasonInvalid,
			Message: "WeakKey: the RSA key has 1024 bits: use 2048 to 8192; CertificateAuthority: basic constraints ask for a CA certificate: leave CA:TRUE out",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.signer == "" {
				tc.signer = "example.com/serving"
			}
			if tc.onDenial == "" {
				tc.onDenial = Warn
			}
			judge := &fakeJudge{judgement: tc.judgement, err: tc.err}
			h := &requestHandler{decoder: admission.NewDecoder(newScheme(t)), judge: judge, onDenial: tc.onDenial, now: func() time.Time { return noon }}
			got := h.Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
				Operation: admissionv1.Create, Object: raw(t, request(tc.signer)), UserInfo: authenticationv1.UserInfo{Username: "system:serviceaccount:ns:sa"},
			}})
			check(t, tc.want, got)
			if tc.unjudged != (len(judge.judged) == 0) {
				t.Errorf("judged %d times", len(judge.judged))
			}
			if !tc.unjudged && !judge.since.Equal(noon) {
				t.Errorf("its hold begins at %s", judge.since)
			}
		})
	}
}

// TestARequestIsJudgedAsWhoMakesIt: whatever the object says.
func TestARequestIsJudgedAsWhoMakesIt(t *testing.T) {
	judge := &fakeJudge{judgement: allowed}
	h := &requestHandler{decoder: admission.NewDecoder(newScheme(t)), judge: judge, onDenial: Warn, now: time.Now}
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
	if len(judge.judged) != 1 {
		t.Fatalf("judged %d times", len(judge.judged))
	}
	if diff := cmp.Diff(want, judge.judged[0]); diff != "" {
		t.Errorf("judged (-want +got):\n%s", diff)
	}
}

func TestManyViolationsMakeFewWarnings(t *testing.T) {
	result := evaluator.Result{}
	for range 64 {
		result.Violations = append(result.Violations, evaluator.Violation{Requirement: 2, ID: "no", Message: strings.Repeat("x", 400)})
	}
	got := answerRequest(judgementOf(approver.Evaluation{Policy: "p", Result: result}), Warn)
	if n := len(got.Warnings); n != 16 || got.Warnings[15] != "and 49 more" {
		t.Errorf("%d warnings, the last %q", n, got.Warnings[n-1])
	}
	if want := "p: no: " + strings.Repeat("x", 228) + "... (would be denied)"; got.Warnings[0] != want {
		t.Errorf("%q, want %q", got.Warnings[0], want)
	}
}
