// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"

	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/sandbox"
	"countersign.dev/countersign/policies"
)

// TestShippedPoliciesPass: what LoadTested states of the shipped policies holds.
func TestShippedPoliciesPass(t *testing.T) {
	parameters := map[string]map[string]any{
		"kubelet-serving": {}, "spiffe": {"trustDomain": "example.org"}, "pod-client": {}, "pod-serving": {},
	}
	for _, name := range policies.Builtins() {
		pkg, modules, _ := policies.Builtin(name)
		p := parameters[name]
		p["maxExpirationSeconds"], p["defaultExpirationSeconds"] = 3600, 3600
		source := Source{Source: evaluator.Source{Package: pkg, Modules: modules, Parameters: p}}
		got, err := sandbox.Check(t.Context(), source.Source)
		if err != nil {
			t.Fatal(err)
		}
		if !shipped(source) || got.Tests.Failures != nil || got.Tests.Percent != 100 || got.Tests.Tests != countTests(source) {
			t.Errorf("%s: %d tests counted, got %+v", name, countTests(source), got)
		}
		source.Modules[strings.ReplaceAll(name, "-", "_")+".rego"] += "# changed\n"
		if shipped(source) {
			t.Errorf("%s: a changed source counts as shipped", name)
		}
	}
}

// TestBudget: the limits of all sources together.
func TestBudget(t *testing.T) {
	sized := func(size int) Source {
		s := Source{Source: evaluator.Source{Modules: map[string]string{"a.rego": ""}}}
		s.Modules["a.rego"] = strings.Repeat("x", size-s.Size())
		return s
	}
	var b Budget
	for range MaxTotalSize / evaluator.MaxRules {
		if got := b.Add(sized(evaluator.MaxRules)); got != nil {
			t.Fatal(got.Problem())
		}
	}
	if got := b.Add(sized(100)); got == nil || got.Problem().Reason != "TooManySources" {
		t.Errorf("beyond the size: %+v", got)
	}
	b = Budget{}
	for range MaxSources {
		if got := b.Add(sized(100)); got != nil {
			t.Fatal(got.Problem())
		}
	}
	if got := b.Add(sized(100)); got == nil || got.Problem().Reason != "TooManySources" {
		t.Errorf("beyond the number: %+v", got)
	}
}
