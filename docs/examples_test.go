// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package docs runs the examples of the documentation.
package docs

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/test/cluster"
)

var (
	named = regexp.MustCompile("(?ms)^`([a-z_.]+)`[^\n]*:\n\n```[a-z]+\n(.*?)^```$")
	block = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")
)

// examples are the files that docs/policies.md shows, by name.
func examples(t *testing.T) map[string]string {
	t.Helper()
	raw, err := os.ReadFile("policies.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, match := range named.FindAllStringSubmatch(string(raw), -1) {
		out[match[1]] = match[2]
	}
	for _, name := range []string{"team.rego", "team_test.rego", "parameters.schema.json", "policy.yaml", "kustomization.yaml"} {
		if out[name] == "" {
			t.Fatalf("docs/policies.md does not show %s", name)
		}
	}
	return out
}

func source(t *testing.T) evaluator.Source {
	t.Helper()
	files := examples(t)
	s := evaluator.Source{Package: "countersign.team", Modules: map[string]string{}}
	for _, name := range []string{"team.rego", "team_test.rego", "parameters.schema.json"} {
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

func TestThePolicyOfTheGuideDecides(t *testing.T) {
	policy, err := evaluator.Compile(t.Context(), source(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		team, pod string
		want      []string // ids of violations
	}{
		"a Pod of the team":   {"blue", "u", nil},
		"another team":        {"red", "u", []string{"namespace-not-of-team"}},
		"another Pod":         {"blue", "v", []string{"requester-not-pod"}},
		"another of both":     {"red", "v", []string{"requester-not-pod", "namespace-not-of-team"}},
		"a namespace of none": {"", "u", []string{"namespace-not-of-team"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := facts.Facts{Requester: facts.Requester{Username: "x", Pod: &facts.ObjectRef{UID: "u"}}}
			f.Cluster.Subject.Pod = &facts.Pod{UID: "v"}
			if tc.pod == "u" {
				f.Cluster.Subject.Pod.UID = "u"
			}
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

func TestTheTestsOfTheGuidePassAndCover(t *testing.T) {
	report, err := evaluator.Test(t.Context(), source(t))
	if err != nil {
		t.Fatal(err)
	}
	if report.Tests != 3 || report.Failures != nil || report.Percent != 100 {
		t.Errorf("got %+v", report)
	}
}

// TestTheManifestsOfTheGuide: kustomize renders what it shows, with the hash in the policy, and each
// ApprovalPolicy on the page has only fields that there are.
func TestTheManifestsOfTheGuide(t *testing.T) {
	raw, err := os.ReadFile("policies.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range block.FindAllStringSubmatch(string(raw), -1) {
		if !strings.Contains(match[1], "\nkind: ApprovalPolicy\n") {
			continue
		}
		var policy v1alpha1.ApprovalPolicy
		if err := yaml.UnmarshalStrict([]byte(match[1]), &policy); err != nil {
			t.Errorf("%v in\n%s", err, match[1])
		}
	}

	root := t.TempDir()
	dir := filepath.Join(root, "team")
	if err := os.CopyFS(filepath.Join(root, "policies", "kustomize"), os.DirFS("../policies/kustomize")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	files := examples(t)
	candidate := ""
	for _, match := range block.FindAllStringSubmatch(string(raw), -1) {
		switch {
		case strings.HasPrefix(match[1], "candidate:"):
			candidate = match[1]
		case strings.Contains(match[1], "team-next-rego"):
			_, generator, _ := strings.Cut(match[1], "configMapGenerator:\n")
			files["kustomization.yaml"] = strings.Replace(files["kustomization.yaml"], "configMapGenerator:\n", "configMapGenerator:\n"+generator, 1)
		}
	}
	files["policy.yaml"] += "  " + strings.ReplaceAll(strings.TrimSpace(candidate), "\n", "\n  ") + "\n"
	for _, name := range []string{"parameters.schema.json", "team.rego", "team_test.rego"} {
		files["next/"+name] = files[name]
	}
	if err := os.Mkdir(filepath.Join(dir, "next"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := kustomize(t, dir)
	var policy v1alpha1.ApprovalPolicy
	for document := range strings.SplitSeq(out, "\n---\n") {
		if strings.Contains(document, "kind: ApprovalPolicy") {
			if err := yaml.UnmarshalStrict([]byte(document), &policy); err != nil {
				t.Fatal(err)
			}
		}
	}
	hashed := regexp.MustCompile("^team-next-rego-[a-z0-9]{10}$")
	if policy.Spec.Candidate == nil || !hashed.MatchString(policy.Spec.Candidate.Rego.ConfigMapRef.Name) {
		t.Errorf("the candidate: %+v", policy.Spec.Candidate)
	}
	name := regexp.MustCompile(`(?m)^  name: (team-rego-[a-z0-9]{10})$`).FindStringSubmatch(out)
	if name == nil || !strings.Contains(out, "configMapRef:\n      name: "+name[1]+"\n") || !strings.Contains(out, "immutable: true") {
		t.Errorf("the hash of the ConfigMap does not reach the policy:\n%s", out)
	}
}

// TestPickAndPatch renders the kustomization of the guide that takes two of the shipped policies.
func TestPickAndPatch(t *testing.T) {
	raw, err := os.ReadFile("policies.md")
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, match := range block.FindAllStringSubmatch(string(raw), -1) {
		if strings.Contains(match[1], "patches:") {
			text = match[1]
		}
	}
	root := t.TempDir()
	mine := filepath.Join(root, "mine")
	if err := os.CopyFS(filepath.Join(root, "policies"), os.DirFS("../policies")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(mine, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(mine, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	policies := map[string]v1alpha1.ApprovalPolicy{}
	for document := range strings.SplitSeq(kustomize(t, mine), "\n---\n") {
		var policy v1alpha1.ApprovalPolicy
		if err := yaml.Unmarshal([]byte(document), &policy); err == nil && policy.Kind == "ApprovalPolicy" {
			policies[policy.Name] = policy
		}
	}
	serving, kubelets := policies["pod-serving"], policies["kubelet-serving"]
	if len(policies) != 2 || strings.Join(serving.Spec.Match.SignerNames, " ") != "example.org/serving" || !strings.Contains(string(serving.Spec.Parameters.Raw), `"maxExpirationSeconds":3600`) ||
		!regexp.MustCompile("^pod-serving-rego-[a-z0-9]{10}$").MatchString(serving.Spec.Rego.ConfigMapRef.Name) || kubelets.Spec.Mode != v1alpha1.ModeAudit {
		t.Errorf("got %+v", policies)
	}
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
