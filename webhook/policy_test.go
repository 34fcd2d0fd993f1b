// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/evaluator"
)

// TestWebhookNamePolicy runs the tests of the policy webhook-name as the approver does, and checks that they cover it.
func TestWebhookNamePolicy(t *testing.T) {
	const dir = "../deploy/signers/webhook"
	raw, err := os.ReadFile(filepath.Join(dir, "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var policy v1alpha1.ApprovalPolicy
	for document := range strings.SplitSeq(string(raw), "\n---\n") {
		if strings.Contains(document, "name: webhook-name\n") {
			err = yaml.Unmarshal([]byte(document), &policy)
		}
	}
	if err != nil || policy.Name != "webhook-name" {
		t.Fatalf("policy %q, error %v", policy.Name, err)
	}
	if policy.Spec.MinCoverage != 100 {
		t.Errorf("minCoverage %d, want 100", policy.Spec.MinCoverage)
	}
	source := evaluator.Source{Package: policy.Spec.Rego.Package, Modules: map[string]string{}}
	if err := yaml.Unmarshal(policy.Spec.Parameters.Raw, &source.Parameters); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"webhook_name.rego", "webhook_name_test.rego", "parameters.schema.json"} {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		source.Modules[name] = string(raw)
	}
	report, err := evaluator.Test(t.Context(), source)
	if err != nil {
		t.Fatal(err)
	}
	if report.Failures != nil || report.Percent != 100 || report.NotCovered != nil || report.Tests < 2 {
		t.Errorf("got %+v", report)
	}
	delete(source.Parameters, "namespace")
	if _, err := evaluator.Compile(t.Context(), source); err == nil || !strings.Contains(err.Error(), "namespace is required") {
		t.Errorf("without the parameter namespace: %v", err)
	}
}
