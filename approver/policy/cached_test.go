// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/evaluator"
)

func rego(size int) v1alpha1.RegoSource {
	const name = "mine_test.rego"
	return v1alpha1.RegoSource{Package: "mine", Modules: map[string]string{name: strings.Repeat("#", size-len(name))}}
}

func parametersOf(size int) *apiextensionsv1.JSON {
	return &apiextensionsv1.JSON{Raw: []byte(`{"x":"` + strings.Repeat("x", size-len(`{"x":""}`)) + `"}`)}
}

// TestStrip: the size of a cached policy is bounded, and what is left out is a problem of its policy.
func TestStrip(t *testing.T) {
	const (
		null       = 4 // bytes of no parameters
		maxModules = evaluator.MaxSource - null
	)
	builtin := v1alpha1.RegoSource{Builtin: "pod-serving"}
	for _, tc := range []struct {
		name      string
		spec      v1alpha1.ApprovalPolicySpec
		problem   string // reason of the source
		candidate string // likewise
	}{
		{name: "at the limits", spec: v1alpha1.ApprovalPolicySpec{
			Rego: rego(maxModules), Parameters: parametersOf(evaluator.MaxRules),
			Candidate: &v1alpha1.Candidate{Rego: rego(maxModules), Parameters: parametersOf(evaluator.MaxRules)},
		}},
		{name: "modules", spec: v1alpha1.ApprovalPolicySpec{
			Rego: rego(maxModules + 1), Candidate: &v1alpha1.Candidate{Rego: builtin},
		}, problem: v1alpha1.ReasonInvalidRego},
		{name: "modules of the candidate", spec: v1alpha1.ApprovalPolicySpec{
			Rego: builtin, Candidate: &v1alpha1.Candidate{Rego: rego(1 << 20)},
		}, candidate: v1alpha1.ReasonInvalidRego},
		{name: "parameters of both", spec: v1alpha1.ApprovalPolicySpec{
			Rego: builtin, Parameters: parametersOf(evaluator.MaxRules + 1), Candidate: &v1alpha1.Candidate{Rego: builtin},
		}, problem: v1alpha1.ReasonInvalidRego, candidate: v1alpha1.ReasonInvalidRego},
		{name: "parameters of the candidate", spec: v1alpha1.ApprovalPolicySpec{
			Rego: builtin, Candidate: &v1alpha1.Candidate{Rego: builtin, Parameters: parametersOf(1 << 20)},
		}, candidate: v1alpha1.ReasonInvalidRego},
		{name: "selector", spec: v1alpha1.ApprovalPolicySpec{
			Match: v1alpha1.ApprovalPolicyMatch{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{strings.Repeat("x", 1<<20): "x"}}},
			Rego:  builtin,
		}, problem: v1alpha1.ReasonSourceNotFound},
	} {
		t.Run(tc.name, func(t *testing.T) {
			labels := map[string]string{}
			for i := range 10000 {
				labels[fmt.Sprint("label-", i)] = strings.Repeat("x", 63)
			}
			object := &v1alpha1.ApprovalPolicy{
				ObjectMeta: metav1.ObjectMeta{
					Name: "p", UID: "u", ResourceVersion: "7", Generation: 3, Labels: labels, Annotations: labels,
					ManagedFields: []metav1.ManagedFieldsEntry{{FieldsV1: metav1.NewFieldsV1(strings.Repeat("x", 1<<20))}},
				},
				Spec: tc.spec,
			}
			Strip(object)
			raw, err := json.Marshal(object)
			if err != nil {
				t.Fatal(err)
			}
			if most := 2*(evaluator.MaxSource+evaluator.MaxRules) + 2<<10; len(raw) > most {
				t.Errorf("a cached policy has %d bytes, want at most %d", len(raw), most)
			}
			if object.Name != "p" || object.UID != "u" || object.ResourceVersion != "7" || object.Generation != 3 {
				t.Errorf("the identity has changed: %+v", object.ObjectMeta)
			}
			second := object.DeepCopy()
			if Strip(second); !cmp.Equal(object, second) {
				t.Error("stripping twice changes the policy:", cmp.Diff(object, second))
			}
			source, err := Loader{}.Source(t.Context(), object)
			if err != nil {
				t.Fatal(err)
			}
			if got := reasonOf(source); got != tc.problem {
				t.Errorf("problem of the source: %q, want %q", got, tc.problem)
			}
			if tc.spec.Candidate == nil {
				return
			}
			if source, err = (Loader{}).CandidateSource(t.Context(), object); err != nil {
				t.Fatal(err)
			}
			if got := reasonOf(source); got != tc.candidate {
				t.Errorf("problem of the candidate: %q, want %q", got, tc.candidate)
			}
		})
	}
}

// reasonOf returns the reason why a source cannot be loaded, before it is compiled.
func reasonOf(s Source) string {
	result := LoadResult{notFound: s.NotFound}
	if result.notFound == "" {
		if s.Parameters != nil && len(s.Modules) == 1 { // at the limits, parameters and modules are too large together
			s.Parameters = nil
		}
		if result.Errors = s.CheckSize(); result.Errors == nil {
			return ""
		}
	}
	return result.Problem().Reason
}
