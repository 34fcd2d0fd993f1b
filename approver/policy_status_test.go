// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/api/v1alpha1"
	loader "countersign.dev/countersign/approver/policy"
	"countersign.dev/countersign/test/reasons"
)

// TestReasonExamples compares the examples in the comments of api/v1alpha1 with the messages of
// conditions that have these reasons. The revision in an example stands for any revision.
func TestReasonExamples(t *testing.T) {
	policy := func(change func(*v1alpha1.ApprovalPolicySpec), modules map[string]string) client.Object {
		object := policyOf("p", modules)
		if change != nil {
			change(&object.Spec)
		}
		return object
	}
	module := func(text string, more ...string) map[string]string {
		return modules(allowing, append([]string{"policy.rego", text}, more...)...)
	}
	only := func(text string, more ...string) map[string]string {
		out := module(text, more...)
		delete(out, "mine.rego")
		return out
	}
	schema := `{"type": "object", "properties": {"maxNames": {"type": "integer"}}}`
	tests := strings.Replace(passing, "test_control if", "test_allows_own_address if", 1)
	const covered = regoHeader + "subject_controls_key := true\n\nsubject_is_authorized := true\n\nviolations := set()\n"
	allCovered := passing + "\ntest_authorized if mine.subject_is_authorized\n\ntest_violations if count(mine.violations) == 0\n"
	got := map[string]string{}
	for _, tc := range []struct {
		constant, reason, conditionType string
		object                          client.Object
		change                          func(*v1alpha1.ApprovalPolicySpec) // after the object was loaded
	}{
		{constant: "ReasonCompiled", reason: v1alpha1.ReasonCompiled, conditionType: v1alpha1.ConditionCompiled, object: policy(nil, modules(allowing))},
		{constant: "ReasonInvalidRego", reason: v1alpha1.ReasonInvalidRego, conditionType: v1alpha1.ConditionCompiled, object: policy(nil, only(allowing+"\napplies(x) if x\n"))},
		{constant: "ReasonInvalidParameters", reason: v1alpha1.ReasonInvalidParameters, conditionType: v1alpha1.ConditionCompiled, object: policy(func(s *v1alpha1.ApprovalPolicySpec) {
			s.Parameters = &apiextensionsv1.JSON{Raw: []byte(`{"maxNames": "8"}`)}
		}, only(allowing, "parameters.schema.json", schema))},
		{constant: "ReasonTestsPassed", reason: v1alpha1.ReasonTestsPassed, conditionType: v1alpha1.ConditionTestsPassed, object: policy(nil, only(covered, "policy_test.rego", allCovered))},
		{constant: "ReasonTestsFailed", reason: v1alpha1.ReasonTestsFailed, conditionType: v1alpha1.ConditionTestsPassed, object: policy(nil, only(allowing, "policy_test.rego", strings.Replace(tests, "if mine", "if not mine", 1)))},
		{constant: "ReasonCoverageTooLow", reason: v1alpha1.ReasonCoverageTooLow, conditionType: v1alpha1.ConditionTestsPassed, object: policy(func(s *v1alpha1.ApprovalPolicySpec) { s.MinCoverage = 90 }, only(allowing, "policy_test.rego", tests))},
		{constant: "ReasonNoTests", reason: v1alpha1.ReasonNoTests, conditionType: v1alpha1.ConditionTestsPassed, object: policy(nil, modules(allowing))},
		{constant: "ReasonNotCompiled", reason: v1alpha1.ReasonNotCompiled, conditionType: v1alpha1.ConditionTestsPassed, object: policy(nil, modules("nonsense"))},
		{constant: "ReasonDisabled", reason: v1alpha1.ReasonDisabled, conditionType: v1alpha1.ConditionReady, object: policy(func(s *v1alpha1.ApprovalPolicySpec) { s.Mode = v1alpha1.ModeDisabled }, modules(allowing))},
		{constant: "ReasonSourceNotFound", reason: v1alpha1.ReasonSourceNotFound, conditionType: v1alpha1.ConditionCompiled, object: policy(func(s *v1alpha1.ApprovalPolicySpec) {
			s.Rego.ConfigMapRef = &v1alpha1.LocalObjectReference{Name: "team"}
		}, nil)},
		{constant: "ReasonPolicyLoaded", reason: v1alpha1.ReasonPolicyLoaded, conditionType: v1alpha1.ConditionReady, object: policy(nil, modules(allowing))},
		{constant: "ReasonLastGoodActive", reason: v1alpha1.ReasonLastGoodActive, conditionType: v1alpha1.ConditionReady, object: policy(nil, modules(allowing)), change: func(s *v1alpha1.ApprovalPolicySpec) {
			s.Rego.Modules = modules("nonsense")
		}},
		{constant: "ReasonNotLoaded", reason: v1alpha1.ReasonNotLoaded, conditionType: v1alpha1.ConditionReady, object: policy(nil, modules("nonsense"))},
	} {
		l := newLoading(t, tc.object)
		status, _ := l.loads(t, "p")
		if tc.change != nil {
			l.change(t, tc.change)
			status, _ = l.loads(t, "p")
		}
		c := meta.FindStatusCondition(status.Conditions, tc.conditionType)
		if c.Reason != tc.reason {
			t.Errorf("%s: the reason of the condition is %s: %s", tc.constant, c.Reason, c.Message)
		}
		message := c.Message
		if len(status.Revision) > 12 {
			message = strings.ReplaceAll(message, status.Revision[:12], "3f1c0a9d5b7e")
		}
		got[tc.constant] = message
	}
	var budget loader.Budget
	for range loader.MaxSources {
		budget.Add(loader.Source{})
	}
	got["ReasonTooManySources"] = budget.Add(loader.Source{}).Problem().Message
	got["ReasonLoading"] = readyCondition(&policyLoad{object: policyOf("p", nil), result: loader.Loading()}).Message
	got["ReasonEvaluationTooExpensive"] = readyCondition(&policyLoad{object: policyOf("p", nil), result: loader.TakenOut()}).Message
	want, err := reasons.Examples("../api/v1alpha1/approvalpolicy_types.go")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("messages (-example +got):\n%s", diff)
	}
}
