// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package review

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/pkcs10"
)

var (
	since     = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	notOwned  = evaluator.Violation{Requirement: 2, ID: "dns-name-not-owned", Message: "x is not yours"}
	podGone   = evaluator.Violation{Requirement: 1, ID: "pod-gone", Message: "Pod p is gone"}
	ipUnknown = evaluator.Violation{Requirement: 2, ID: "ip-address-unknown", Message: "nothing has 10.0.0.1", Retryable: true}
)

func answer(policy string, violations ...evaluator.Violation) Evaluation {
	return Evaluation{
		Policy: policy, Revision: "0123456789abcdef", HoldFor: 30 * time.Second,
		Result: evaluator.Result{Allowed: len(violations) == 0, Violations: violations},
	}
}

func TestDecide(t *testing.T) {
	abstains := Evaluation{Policy: "c", Result: evaluator.Result{Abstains: true}}
	fails := Evaluation{Policy: "d", Err: errors.New("no answer")}
	patient := answer("b", ipUnknown)
	patient.HoldFor = time.Hour
	for _, tc := range []struct {
		name        string
		after       time.Duration
		evaluations []Evaluation
		want        Decision
	}{
		{"nothing matches", 0, nil, Decision{}},
		{"all abstain", 0, []Evaluation{abstains}, Decision{}},
		{"one allows", 0, []Evaluation{answer("a")}, Decision{Outcome: Approve, Reason: "PolicyAllowed", Message: "allowed by a (revision 0123456789ab)"}},
		{"one allows, one abstains", 0, []Evaluation{answer("a"), abstains}, Decision{Outcome: Approve, Reason: "PolicyAllowed", Message: "allowed by a (revision 0123456789ab)"}},
		{"all allow", 0, []Evaluation{answer("a"), answer("b")}, Decision{Outcome: Approve, Reason: "PolicyAllowed", Message: "allowed by a (revision 0123456789ab), b (revision 0123456789ab)"}},
		{"one allows, one fails", 0, []Evaluation{answer("a"), fails}, Decision{}},
		{"one denies, one fails", 0, []Evaluation{answer("a", notOwned), fails}, Decision{}},
		{"one allows, one denies", 0, []Evaluation{answer("a"), answer("b", notOwned)}, Decision{Outcome: Deny, Reason: "SubjectNotAuthorized", Message: "not allowed by b (revision 0123456789ab): dns-name-not-owned: x is not yours"}},
		{"every violation is named", 0, []Evaluation{answer("a", podGone, notOwned)}, Decision{Outcome: Deny, Reason: "SubjectDoesNotControlKey", Message: "not allowed by a (revision 0123456789ab): pod-gone: Pod p is gone; dns-name-not-owned: x is not yours"}},
		{"every policy is named", 0, []Evaluation{answer("a", notOwned), answer("b", podGone)}, Decision{Outcome: Deny, Reason: "SubjectDoesNotControlKey", Message: "not allowed by a (revision 0123456789ab): dns-name-not-owned: x is not yours; and not by b (revision 0123456789ab): pod-gone: Pod p is gone"}},
		{"a retryable violation is held", 29 * time.Second, []Evaluation{answer("a", ipUnknown)}, Decision{Outcome: Hold, Reason: "Held", Message: "not allowed by a (revision 0123456789ab): ip-address-unknown: nothing has 10.0.0.1", Until: since.Add(30 * time.Second)}},
		{"held until holdFor", 30 * time.Second, []Evaluation{answer("a", ipUnknown)}, Decision{Outcome: Deny, Reason: "HoldExpired", Message: "not allowed by a (revision 0123456789ab): ip-address-unknown: nothing has 10.0.0.1; held for 30s"}},
		{"a retryable and a final violation", 0, []Evaluation{answer("a", ipUnknown, notOwned)}, Decision{Outcome: Deny, Reason: "SubjectNotAuthorized", Message: "not allowed by a (revision 0123456789ab): ip-address-unknown: nothing has 10.0.0.1; dns-name-not-owned: x is not yours"}},
		{"a retryable violation, and a final one of another policy", 0, []Evaluation{answer("a", ipUnknown), answer("b", notOwned)}, Decision{Outcome: Deny, Reason: "SubjectNotAuthorized", Message: "not allowed by a (revision 0123456789ab): ip-address-unknown: nothing has 10.0.0.1; and not by b (revision 0123456789ab): dns-name-not-owned: x is not yours"}},
		{"the shortest hold ends first", 31 * time.Second, []Evaluation{answer("a", ipUnknown), patient}, Decision{Outcome: Deny, Reason: "HoldExpired", Message: "not allowed by a (revision 0123456789ab): ip-address-unknown: nothing has 10.0.0.1; and not by b (revision 0123456789ab): ip-address-unknown: nothing has 10.0.0.1; held for 30s"}},
		{"one fails, one abstains", 0, []Evaluation{fails, abstains}, Decision{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			clocks := Clocks{Held: map[string]time.Duration{"a": tc.after, "b": tc.after}}
			if diff := cmp.Diff(tc.want, Decide(clocks, since.Add(tc.after), tc.evaluations)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestDecide_clocks: each policy has a clock of its own.
func TestDecide_clocks(t *testing.T) {
	patient := answer("patient", ipUnknown)
	patient.HoldFor = 5 * time.Minute
	for _, tc := range []struct {
		name        string
		clocks      Clocks
		evaluations []Evaluation
		outcome     Outcome
		left        time.Duration
	}{
		{"held by another policy", Clocks{Held: map[string]time.Duration{"patient": time.Minute}}, []Evaluation{answer("a", ipUnknown)}, Hold, 30 * time.Second},
		{"facts were too large", Clocks{Held: map[string]time.Duration{FactsTooLarge: time.Minute}}, []Evaluation{answer("a", ipUnknown)}, Hold, 30 * time.Second},
		{"both hold", Clocks{Held: map[string]time.Duration{"patient": 295 * time.Second, "a": time.Second}}, []Evaluation{answer("a", ipUnknown), patient}, Hold, 5 * time.Second},
		{"one has expired", Clocks{Held: map[string]time.Duration{"patient": 5 * time.Minute}}, []Evaluation{answer("a", ipUnknown), patient}, Deny, 0},
		{"one has expired and now allows", Clocks{Held: map[string]time.Duration{"a": time.Minute}}, []Evaluation{answer("a"), patient}, Hold, 5 * time.Minute},
		{"expired, and late", Clocks{Held: map[string]time.Duration{"a": time.Minute}, Late: true}, []Evaluation{answer("a", ipUnknown)}, Hold, lateHold},
		{"a final violation, and late", Clocks{Held: map[string]time.Duration{"a": time.Minute}, Late: true}, []Evaluation{answer("a", notOwned)}, Deny, 0},
		{"holdFor is 0s, and late", Clocks{Late: true}, []Evaluation{{Policy: "a", Result: evaluator.Result{Violations: []evaluator.Violation{ipUnknown}}}}, Deny, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Decide(tc.clocks, since, tc.evaluations)
			if got.Outcome != tc.outcome || got.Outcome == Hold && got.Until.Sub(since) != tc.left {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestRefusal(t *testing.T) {
	spec := &certificatesv1.CertificateSigningRequestSpec{Usages: []certificatesv1.KeyUsage{"server auth"}}
	many := &pkcs10.Request{}
	for i := range MaxNames + 1 {
		many.DNSNames = append(many.DNSNames, fmt.Sprint(i))
	}
	for _, tc := range []struct {
		name    string
		request *pkcs10.Request
		refused *pkcs10.Error
		want    Decision
	}{
		{"nothing to refuse", &pkcs10.Request{DNSNames: many.DNSNames[:MaxNames], Usages: []certificatesv1.KeyUsage{"server auth"}}, nil, Decision{}},
		{"refused by parsing", nil, &pkcs10.Error{Refusals: []pkcs10.Refusal{{Reason: "WeakKey", Message: "weak"}, {Reason: "UnsupportedName", Message: "odd"}}}, Decision{Outcome: Refuse, Reason: "WeakKey", Message: "WeakKey: weak; UnsupportedName: odd"}},
		{"too many names", many, nil, Decision{Outcome: Refuse, Reason: "TooManyNames", Message: "TooManyNames: the request has 65 names and addresses; the maximum is 64"}},
		{"a usage in disguise", &pkcs10.Request{Usages: []certificatesv1.KeyUsage{"client auth"}}, nil, Decision{Outcome: Refuse, Reason: "UsageMismatch", Message: `UsageMismatch: the PKCS#10 request asks for usage "client auth", which spec.usages does not contain`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Refusal(spec, tc.request, tc.refused)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
