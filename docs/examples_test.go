// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package docs tests the documentation: it runs the examples and checks links, paths and packages.
package docs

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/test/cluster"
)

var (
	namedBlock = regexp.MustCompile("(?ms)^`([a-z_.]+)`[^\n]*:\n\n```[a-z]+\n(.*?)^```$")
	yamlBlock  = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")
	sources    = []string{"team.rego", "team_test.rego", "parameters.schema.json"}
)

// guide returns docs/policies.md.
func guide(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile("policies.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// yamlBlocks returns the YAML blocks of the guide that contain a text.
func yamlBlocks(t *testing.T, text string) (blocks []string) {
	t.Helper()
	for _, match := range yamlBlock.FindAllStringSubmatch(guide(t), -1) {
		if strings.Contains(match[1], text) {
			blocks = append(blocks, match[1])
		}
	}
	if len(blocks) == 0 {
		t.Fatalf("docs/policies.md has no YAML block with %q", text)
	}
	return blocks
}

// examples returns the files in docs/policies.md by name.
func examples(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, match := range namedBlock.FindAllStringSubmatch(guide(t), -1) {
		out[match[1]] = match[2]
	}
	for _, name := range append(sources, "policy.yaml", "kustomization.yaml") {
		if out[name] == "" {
			t.Fatalf("docs/policies.md does not show %s", name)
		}
	}
	return out
}

// source returns the policy of the guide, as the approver loads it.
func source(t *testing.T) evaluator.Source {
	t.Helper()
	files := examples(t)
	s := evaluator.Source{Package: "countersign.team", Modules: map[string]string{}}
	for _, name := range sources {
		s.Modules[name] = files[name]
	}
	var policy v1alpha1.ApprovalPolicy
	if err := yaml.UnmarshalStrict([]byte(files["policy.yaml"]), &policy); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(policy.Spec.Parameters.Raw, &s.Parameters); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestGuidePolicyDecides evaluates the policy of the guide.
func TestGuidePolicyDecides(t *testing.T) {
	policy, err := evaluator.Compile(t.Context(), source(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, team, pod string
		want            []string // IDs of violations
	}{
		{"a Pod of the team", "blue", "u", nil},
		{"another team", "red", "u", []string{"namespace-not-of-team"}},
		{"another Pod", "blue", "v", []string{"requester-not-pod"}},
		{"another Pod of another team", "red", "v", []string{"requester-not-pod", "namespace-not-of-team"}},
		{"a namespace without a team", "", "u", []string{"namespace-not-of-team"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := facts.Facts{Requester: facts.Requester{Username: "x", Pod: &facts.ObjectRef{UID: "u"}}}
			f.Cluster.Subject.Pod = &facts.Pod{UID: types.UID(tc.pod)}
			f.Cluster.Subject.Namespace = &facts.Namespace{Name: "n", Labels: map[string]string{}}
			if tc.team != "" {
				f.Cluster.Subject.Namespace.Labels["team"] = tc.team
			}
			got, err := policy.Evaluate(t.Context(), evaluator.NewInput(&f))
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, v := range got.Violations {
				ids = append(ids, v.ID)
			}
			if got.Allowed != (tc.want == nil) || strings.Join(ids, " ") != strings.Join(tc.want, " ") {
				t.Errorf("got %+v, want %v", got, tc.want)
			}
		})
	}
}

// TestGuideTestsCover runs the Rego tests of the guide, which cover the policy.
func TestGuideTestsCover(t *testing.T) {
	report, err := evaluator.Test(t.Context(), source(t))
	if err != nil {
		t.Fatal(err)
	}
	if report.Tests != 3 || report.Failures != nil || report.Percent != 100 {
		t.Errorf("got %+v", report)
	}
}

// TestGuideErrors checks that the guide quotes the error of a misspelled field as it is reported.
func TestGuideErrors(t *testing.T) {
	s := source(t)
	s.Modules["team.rego"] = strings.ReplaceAll(s.Modules["team.rego"], "input.requester.username", "input.requester.usrname")
	_, err := evaluator.Compile(t.Context(), s)
	if err == nil {
		t.Fatal("a policy with a misspelled field compiles")
	}
	if want := "* spec.rego: " + err.Error() + "\n"; !strings.Contains(guide(t), want) {
		t.Errorf("docs/policies.md does not quote %q", want)
	}
}

// TestGuidePoliciesAreValid checks that each ApprovalPolicy in the guide has only fields of the API.
func TestGuidePoliciesAreValid(t *testing.T) {
	for _, block := range yamlBlocks(t, "\nkind: ApprovalPolicy\n") {
		var policy v1alpha1.ApprovalPolicy
		if err := yaml.UnmarshalStrict([]byte(block), &policy); err != nil {
			t.Errorf("%v in\n%s", err, block)
		}
	}
}

// TestGuideManifests renders the kustomization of the guide with its candidate. The hashes of both ConfigMaps reach
// the policy.
func TestGuideManifests(t *testing.T) {
	root := t.TempDir()
	if err := os.CopyFS(filepath.Join(root, "policies", "kustomize"), os.DirFS("../policies/kustomize")); err != nil {
		t.Fatal(err)
	}
	files := examples(t)
	_, generator, _ := strings.Cut(yamlBlocks(t, "\n  - name: team-next-rego\n")[0], "configMapGenerator:\n")
	files["kustomization.yaml"] = strings.Replace(files["kustomization.yaml"], "configMapGenerator:\n", "configMapGenerator:\n"+generator, 1)
	candidate := strings.TrimSpace(yamlBlocks(t, "candidate:")[0])
	files["policy.yaml"] += "  " + strings.ReplaceAll(candidate, "\n", "\n  ") + "\n"
	for _, name := range sources {
		files["next/"+name] = files[name]
	}
	dir := filepath.Join(root, "team")
	writeFiles(t, dir, files)

	out := kustomize(t, dir)
	policy := approvalPolicies(t, out)["team"]
	name := regexp.MustCompile(`(?m)^  name: (team-rego-[a-z0-9]{10})$`).FindStringSubmatch(out)
	if name == nil || policy.Spec.Rego.ConfigMapRef.Name != name[1] || !strings.Contains(out, "immutable: true") {
		t.Errorf("the hash of the ConfigMap does not reach the policy:\n%s", out)
	}
	hashed := regexp.MustCompile("^team-next-rego-[a-z0-9]{10}$")
	if policy.Spec.Candidate == nil || !hashed.MatchString(policy.Spec.Candidate.Rego.ConfigMapRef.Name) {
		t.Errorf("the candidate: %+v", policy.Spec.Candidate)
	}
}

// TestGuideSelectsAndPatches renders the kustomization of the guide that takes two of the shipped policies.
func TestGuideSelectsAndPatches(t *testing.T) {
	root := t.TempDir()
	if err := os.CopyFS(filepath.Join(root, "policies"), os.DirFS("../policies")); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "selection")
	writeFiles(t, dir, map[string]string{"kustomization.yaml": yamlBlocks(t, "patches:")[0]})
	policies := approvalPolicies(t, kustomize(t, dir))
	if len(policies) != 2 {
		t.Fatalf("got %+v, want two policies", policies)
	}
	serving, spiffe := policies["pod-serving"].Spec, policies["spiffe"].Spec
	switch {
	case strings.Join(serving.Match.SignerNames, " ") != "example.org/serving",
		!strings.Contains(string(serving.Parameters.Raw), `"maxExpirationSeconds":3600`),
		!regexp.MustCompile("^pod-serving-rego-[a-z0-9]{10}$").MatchString(serving.Rego.ConfigMapRef.Name),
		spiffe.Mode != v1alpha1.ModeAudit:
		t.Errorf("got %+v", policies)
	}
}

func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// approvalPolicies returns the ApprovalPolicies of a stream of YAML documents by name.
func approvalPolicies(t *testing.T, stream string) map[string]v1alpha1.ApprovalPolicy {
	t.Helper()
	out := map[string]v1alpha1.ApprovalPolicy{}
	for document := range strings.SplitSeq(stream, "\n---\n") {
		if !strings.Contains(document, "\nkind: ApprovalPolicy\n") {
			continue
		}
		var policy v1alpha1.ApprovalPolicy
		if err := yaml.UnmarshalStrict([]byte(document), &policy); err != nil {
			t.Fatal(err)
		}
		out[policy.Name] = policy
	}
	return out
}

func kustomize(t *testing.T, dir string) string {
	t.Helper()
	bin, err := cluster.Binaries(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "kubectl"), "kustomize", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}
