// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

	"countersign.dev/countersign/api/v1alpha1"
)

// TestPolicyLoadedMetric follows a policy from a source that cannot be used to one that can, and back.
func TestPolicyLoadedMetric(t *testing.T) {
	const broken = "package countersign.mine\n\nnonsense"
	const metric = `countersign_approver_policy_loaded{policy="p",reason=`
	l := newLoading(t, policyOf("p", map[string]string{"mine.rego": broken}))
	for _, step := range []struct {
		name   string
		change func(*v1alpha1.ApprovalPolicySpec)
		want   string
	}{
		{"never loaded", func(*v1alpha1.ApprovalPolicySpec) {}, metric + "\"NotLoaded\"} 0\n"},
		{"loaded", func(s *v1alpha1.ApprovalPolicySpec) { s.Rego.Modules = map[string]string{"mine.rego": allowing} }, metric + "\"PolicyLoaded\"} 1\n"},
		{"broken again", func(s *v1alpha1.ApprovalPolicySpec) { s.Rego.Modules = map[string]string{"mine.rego": broken} }, metric + "\"LastGoodActive\"} 0\n"},
		{"disabled", func(s *v1alpha1.ApprovalPolicySpec) { s.Mode = v1alpha1.ModeDisabled }, ""},
	} {
		l.change(t, step.change)
		if err := l.reconcile(t); err != nil {
			t.Fatal(err)
		}
		text, err := testutil.CollectAndFormat(policyLoaded, expfmt.TypeTextPlain, "countersign_approver_policy_loaded")
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "#") {
				got += line
			}
		}
		if got != step.want {
			t.Errorf("%s: got %q, want %q", step.name, got, step.want)
		}
	}
}
