// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

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
	since = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	final = evaluator.Violation{Requirement: 2, ID: "dns-name-not-owned", Message: "x is not yours"}
	key   = evaluator.Violation{Requirement: 1, ID: "pod-gone", Message: "Pod p is gone"}
	soon  = evaluator.Violation{Requirement: 2, ID: "ip-address-unknown", Message: "nothing has 10.0.0.1", Retryable: true}
)

func said(policy string, violations ...evaluator.Violation) Evaluation {
	return Evaluation{
		Policy: policy, Revision: "0123456789abcdef", HoldFor: 30 * time.Second,
		Result: evaluator.Result{Allowed: len(violations) == 0, Violations: violations},
	}
}

func TestDecide(t *testing.T) {
	abstains := Evaluation{Policy: "c", Result: evaluator.Result{Abstains: true}}
	fails := Evaluation{Policy: "d", Err: errors.New("no answer")}
	patient := said("b", soon)
	patient.HoldFor = time.Hour
	for name, tc := range map[string]struct {
		after       time.Duration
		evaluations []Evaluation
		want        Decision
	}{
		"nothing matches":                       {0, nil, Decision{}},
		"all abstain":                           {0, []Evaluation{abstains}, Decision{}},
		"one allows":                            {0, []Evaluation{said("a")}, Decision{Verdict: Approved, Reason: "PolicyAllowed", Message: "allowed by a (revision 0123456789ab)"}},
		"one allows, one abstains":              {0, []Evaluation{said("a"), abstains}, Decision{Verdict: Approved, Reason: "PolicyAllowed", Message: "allowed by a (revision 0123456789ab)"}},
		"all allow":                             {0, []Evaluation{said("a"), said("b")}, Decision{Verdict: Approved, Reason: "PolicyAllowed", Message: "allowed by a (revision 0123456789ab), b (revision 0123456789ab)"}},
		"one allows, one fails":                 {0, []Evaluation{said("a"), fails}, Decision{}},
		"one denies, one fails":                 {0, []Evaluation{said("a", final), fails}, Decision{}},
		"one allows, one denies":                {0, []Evaluation{said("a"), said("b", final)}, Decision{Verdict: Denied, Reason: "SubjectNotAuthorized", Message: "not allowed by b (revision 0123456789ab): dns-name-not-owned: x is not yours"}},
		"every violation is named":              {0, []Evaluation{said("a", key, final)}, Decision{Verdict: Denied, Reason: "SubjectDoesNotControlKey", Message: "not allowed by a (revision 0123456789ab): pod-gone: Pod p is gone; dns-name-not-owned: x is not yours"}},
		"every policy is named":                 {0, []Evaluation{said("a", final), said("b", key)}, Decision{Verdict: Denied, Reason: "SubjectDoesNotControlKey", Message: "not allowed by a (revision 0123456789ab): dns-name-not-owned: x is not yours; and not by b (revision 0123456789ab): pod-gone: Pod p is gone"}},
		"retryable is held":                     {29 * time.Second, []Evaluation{said("a", soon)}, Decision{Verdict: Held, Reason: "Held", Message: "not allowed by a (revision 0123456789ab): ip-address-unknown: nothing has 10.0.0.1", Until: since.Add(30 * time.Second)}},
		"held until holdFor":                    {30 * time.Second, []Evaluation{said("a", soon)}, Decision{Verdict: Denied, Reason: "HoldExpired", Message: "not allowed by a (revision 0123456789ab): ip-address-unknown: nothing has 10.0.0.1; held for 30s"}},
		"retryable beside final is not held":    {0, []Evaluation{said("a", soon, final)}, Decision{Verdict: Denied, Reason: "SubjectNotAuthorized", Message: "not allowed by a (revision 0123456789ab): ip-address-unknown: nothing has 10.0.0.1; dns-name-not-owned: x is not yours"}},
		"retryable in one, final in another":    {0, []Evaluation{said("a", soon), said("b", final)}, Decision{Verdict: Denied, Reason: "SubjectNotAuthorized", Message: "not allowed by a (revision 0123456789ab): ip-address-unknown: nothing has 10.0.0.1; and not by b (revision 0123456789ab): dns-name-not-owned: x is not yours"}},
		"the shortest hold ends first":          {31 * time.Second, []Evaluation{said("a", soon), patient}, Decision{Verdict: Denied, Reason: "HoldExpired", Message: "not allowed by a (revision 0123456789ab): ip-address-unknown: nothing has 10.0.0.1; and not by b (revision 0123456789ab): ip-address-unknown: nothing has 10.0.0.1; held for 30s"}},
		"a result that says nothing is no deny": {0, []Evaluation{fails, abstains}, Decision{}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Decide(since, since.Add(tc.after), tc.evaluations)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRefuse(t *testing.T) {
	spec := &certificatesv1.CertificateSigningRequestSpec{Usages: []certificatesv1.KeyUsage{"server auth"}}
	many := &pkcs10.Request{}
	for i := range MaxNames + 1 {
		many.DNSNames = append(many.DNSNames, fmt.Sprint(i))
	}
	for name, tc := range map[string]struct {
		request *pkcs10.Request
		refused *pkcs10.Error
		want    Decision
	}{
		"nothing to refuse":   {&pkcs10.Request{DNSNames: many.DNSNames[:MaxNames], Usages: []certificatesv1.KeyUsage{"server auth"}}, nil, Decision{}},
		"refused by parsing":  {nil, &pkcs10.Error{Refusals: []pkcs10.Refusal{{Reason: "WeakKey", Message: "weak"}, {Reason: "UnsupportedName", Message: "odd"}}}, Decision{Verdict: Denied, Reason: "WeakKey", Message: "WeakKey: weak; UnsupportedName: odd"}},
		"too many names":      {many, nil, Decision{Verdict: Denied, Reason: "TooManyNames", Message: "TooManyNames: 65 names and addresses: ask for at most 64"}},
		"a usage in disguise": {&pkcs10.Request{Usages: []certificatesv1.KeyUsage{"client auth"}}, nil, Decision{Verdict: Denied, Reason: "UsageMismatch", Message: `UsageMismatch: the PKCS#10 request asks for "client auth", which is not in spec.usages`}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Refuse(spec, tc.request, tc.refused)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRetryAfterBacksOffAndMeetsTheEnd(t *testing.T) {
	until := since.Add(30 * time.Second)
	for waited, want := range map[time.Duration]time.Duration{
		0:                        250 * time.Millisecond,
		2 * time.Second:          time.Second,
		20 * time.Second:         5 * time.Second,
		29 * time.Second:         time.Second,
		40 * time.Second:         time.Millisecond,
		29500 * time.Millisecond: 500 * time.Millisecond,
	} {
		if got := retryAfter(since, since.Add(waited), until); got != want {
			t.Errorf("after %s: got %s, want %s", waited, got, want)
		}
	}
}

func TestMatchesSigner(t *testing.T) {
	for _, tc := range []struct {
		pattern, signerName string
		want                bool
	}{
		{"example.com/serving", "example.com/serving", true},
		{"example.com/serving", "example.com/serving2", false},
		{"example.com/serving", "example.com/servin", false},
		{"example.com/*", "example.com/serving", true},
		{"example.com/*", "example.com/a.b", true},
		{"example.com/*", "example.com/a/b", true},
		{"example.com/*", "example.com/", false},
		{"example.com/*", "example.com", false},
		{"example.com/*", "sub.example.com/serving", false},
		{"example.com/*", "example.comx/serving", false},
		{"example.com/*", "evil.com/example.com/x", false},
	} {
		var set PolicySet
		set.replace([]loadedPolicy{{name: "p", signerNames: []string{tc.pattern}}})
		if got := set.Matches(tc.signerName); got != tc.want {
			t.Errorf("%q matches %q: %v", tc.pattern, tc.signerName, got)
		}
	}
}

func TestPoliciesMatchOnceAndInOrder(t *testing.T) {
	var set PolicySet
	set.replace([]loadedPolicy{
		{name: "b", uid: "2", signerNames: []string{"example.com/*", "example.com/serving"}},
		{name: "a", uid: "1", signerNames: []string{"example.com/*"}},
		{name: "c", uid: "3", signerNames: []string{"example.com/serving"}},
		{name: "d", uid: "4", signerNames: []string{"example.org/*"}},
		{name: "e", uid: "5", signerNames: []string{"example.com/*"}, mode: "Disabled"},
	})
	var names []string
	for _, p := range set.matching("example.com/serving") {
		names = append(names, p.name)
	}
	if diff := cmp.Diff([]string{"a", "b", "c"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestThePolicySetIsReadyOnceAllIsLoaded(t *testing.T) {
	var set PolicySet
	if err := set.Ready(); err == nil || err.Error() != "policies have not been loaded yet" {
		t.Errorf("zero set: %v", err)
	}
	set.replace([]loadedPolicy{{name: "broken", signerNames: []string{"example.com/*"}}, {name: "watched", mode: "Audit"}, {name: "off", mode: "Disabled"}})
	if err := set.Ready(); err == nil || err.Error() != "not loaded, see the status of each ApprovalPolicy: broken" {
		t.Errorf("a policy that is not compiled: %v", err)
	}
	if !set.Matches("example.com/serving") || set.Matches("example.org/serving") {
		t.Error("a policy that is not compiled matches its signers all the same")
	}
	set.replace([]loadedPolicy{{name: "good", compiled: &evaluator.Policy{}}})
	if err := set.Ready(); err != nil {
		t.Error(err)
	}
}
