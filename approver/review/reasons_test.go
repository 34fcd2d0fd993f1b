// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package review

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/approver/policy"
	"countersign.dev/countersign/pkcs10"
	"countersign.dev/countersign/test/reasons"
)

// TestReasonExamples compares the examples in the comments of reasons.go with the messages of
// decisions that have these reasons.
func TestReasonExamples(t *testing.T) {
	answer := func(violations ...evaluator.Violation) []Evaluation {
		return []Evaluation{{
			Policy: "pod-serving", Revision: "3f1c0a9d5b7e8d2c", HoldFor: 30 * time.Second,
			Result: evaluator.Result{Allowed: len(violations) == 0, Violations: violations},
		}}
	}
	unknown := evaluator.Violation{Requirement: 2, ID: "ip-address-unknown", Message: "address 10.0.34.2 does not belong to Pod my-namespace/my-pod yet: the Pod has no address so far", Retryable: true}
	spec := &certificatesv1.CertificateSigningRequestSpec{Usages: []certificatesv1.KeyUsage{"server auth"}}
	many := &pkcs10.Request{}
	for i := range MaxNames + 1 {
		many.DNSNames = append(many.DNSNames, strconv.Itoa(i))
	}
	var large facts.Gathered
	large.Cluster.Subject.Pod = &facts.Pod{Labels: map[string]string{"x": strings.Repeat("x", 140_000)}}
	size := len(evaluator.NewInput(&large.Facts).JSON())
	got := map[string]string{}
	for _, tc := range []struct {
		constant, reason string
		decision         Decision
	}{
		{"ReasonPolicyAllowed", ReasonPolicyAllowed, Decide(Clocks{}, since, answer())},
		{"ReasonSubjectDoesNotControlKey", ReasonSubjectDoesNotControlKey, Decide(Clocks{}, since, answer(evaluator.Violation{
			Requirement: 1, ID: "pod-gone", Message: "Pod my-pod, which made the request, does not exist any more: make a new request from the Pod that runs now",
		}))},
		{"ReasonSubjectNotAuthorized", ReasonSubjectNotAuthorized, Decide(Clocks{}, since, answer(evaluator.Violation{
			Requirement: 2, ID: "dns-name-not-owned", Message: `DNS name "web.my-namespace.svc" does not belong to Pod my-namespace/my-pod (Service my-namespace/web selects app=web; Pod my-pod has app=api): ask for names of the Pod, or of Services that select it`,
		}))},
		{"ReasonHoldExpired", ReasonHoldExpired, Decide(Clocks{Held: map[string]time.Duration{"pod-serving": 30 * time.Second}}, since, answer(unknown))},
		{"ReasonHeld", ReasonHeld, Decide(Clocks{}, since, answer(unknown))},
		{"ReasonFactsTooLarge", ReasonFactsTooLarge, decideTooLarge(Clocks{Held: map[string]time.Duration{FactsTooLarge: 30 * time.Second}}, since, []policy.Policy{{HoldFor: time.Minute}, {HoldFor: 30 * time.Second}}, large.TooLarge(size))},
		{"ReasonTooManyNames", string(ReasonTooManyNames), Refusal(spec, many, nil)},
		{"ReasonUsageMismatch", string(ReasonUsageMismatch), Refusal(spec, &pkcs10.Request{Usages: []certificatesv1.KeyUsage{"client auth"}}, nil)},
	} {
		if tc.decision.Reason != tc.reason {
			t.Errorf("%s: the reason of the decision is %s", tc.constant, tc.decision.Reason)
		}
		got[tc.constant] = tc.decision.Message
	}
	want, err := reasons.Examples("reasons.go")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("messages (-example +got):\n%s", diff)
	}
}
