// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package review

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"countersign.dev/countersign/approver/evaluator"
)

// TestRecordBoundsShadow: all shadow policies share the violations of one policy.
func TestRecordBoundsShadow(t *testing.T) {
	long := evaluator.Result{Violations: []evaluator.Violation{{Requirement: 2, ID: "no", Message: strings.Repeat("x", 20<<10)}}}
	r := Review{Evaluations: []Evaluation{{Policy: "a", Result: long}, {Policy: "b", Result: long}}}
	for range 9 {
		r.Shadow = append(r.Shadow, Evaluation{Policy: "shadow", Result: long})
	}
	got := map[bool]int{}
	for _, p := range Record(podRequest(t), r).Policies {
		violations, _ := p.Violations.([]evaluator.Violation)
		got[p.Audit] += len(violations)
	}
	if got[false] != 2 || got[true] != 1 {
		t.Errorf("%d violations of policies that decide, %d of shadow policies", got[false], got[true])
	}
}

// TestRecordBoundsViolations: the message of a violation can contain whatever the requester has asked for.
func TestRecordBoundsViolations(t *testing.T) {
	many := func(n, length int) []evaluator.Violation {
		out := make([]evaluator.Violation, n)
		for i := range out {
			out[i] = evaluator.Violation{Requirement: 2, ID: "no", Message: fmt.Sprint(i), Value: strings.Repeat("x", length)}
		}
		return out
	}
	for _, tc := range []struct {
		name       string
		violations []evaluator.Violation
		want       int
		truncated  bool
	}{
		{"none", nil, 0, false},
		{"as many as fit", many(maxViolations, 64), maxViolations, false},
		{"one more", many(maxViolations+1, 64), maxViolations, true},
		{"as long as fit", many(31, 1<<10), 31, false},
		{"too long in total", many(40, 1<<10), 31, true},
		{"the first is too long", many(2, maxViolationBytes), 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, shadow := range []bool{false, true} {
				r, answers := Review{}, []Evaluation{{Policy: "a", Result: evaluator.Result{Violations: tc.violations}}}
				if shadow {
					r.Shadow = answers
				} else {
					r.Evaluations = answers
				}
				record := Record(podRequest(t), r)
				got, ok := record.Policies[0].Violations.([]evaluator.Violation)
				if !ok || len(got) != tc.want || record.Policies[0].Audit != shadow {
					t.Errorf("shadow %v: %d violations of %T, want %d", shadow, len(got), record.Policies[0].Violations, tc.want)
				}
				if slices.Contains(record.Truncated, "policies.violations") != tc.truncated {
					t.Errorf("shadow %v: truncated %v", shadow, record.Truncated)
				}
			}
		})
	}
}
