// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/test/cluster"
	"countersign.dev/countersign/test/harness"
	"countersign.dev/countersign/test/tutorial"
)

// policyRoot is a copy of policies/ that a test may change, as an admin's repository would be.
type policyRoot string

func copyPolicies(t *testing.T) policyRoot {
	t.Helper()
	root, err := cluster.Root()
	must(t, err)
	dir := filepath.Join(t.TempDir(), "policies")
	must(t, os.CopyFS(dir, os.DirFS(filepath.Join(root, "policies"))))
	return policyRoot(dir)
}

func (p policyRoot) apply(t *testing.T) {
	t.Helper()
	kubectl(t, "apply", "--server-side", "--force-conflicts", "-k", string(p))
}

// edit replaces text of a file that has it once.
func (p policyRoot) edit(t *testing.T, file, old, replacement string) {
	t.Helper()
	path := filepath.Join(string(p), file)
	raw, err := os.ReadFile(path)
	must(t, err)
	if strings.Count(string(raw), old) != 1 {
		t.Fatalf("%s has %q %d times", file, old, strings.Count(string(raw), old))
	}
	must(t, os.WriteFile(path, []byte(strings.Replace(string(raw), old, replacement, 1)), 0o600))
}

func policy(t *testing.T, name string) *v1alpha1.ApprovalPolicy {
	t.Helper()
	var out v1alpha1.ApprovalPolicy
	must(t, json.Unmarshal([]byte(kubectl(t, "get", "approvalpolicy", name, "-o", "json")), &out))
	return &out
}

// settled waits until the status of a policy is that of its current spec, and returns the policy.
func settled(t *testing.T, name string) *v1alpha1.ApprovalPolicy {
	t.Helper()
	var out *v1alpha1.ApprovalPolicy
	must(t, harness.Eventually(t.Context(), enough, func() error {
		if out = policy(t, name); out.Status.ObservedGeneration != out.Generation {
			return fmt.Errorf("policy %s is at generation %d, its status at %d", name, out.Generation, out.Status.ObservedGeneration)
		}
		return nil
	}))
	return out
}

// decided creates a request as my-pod and returns it when it has a verdict.
func decided(t *testing.T, name string, ask tutorial.Request) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	token, err := world.PodToken(t.Context(), world.Pods[tutorial.PodName])
	must(t, err)
	_, _, err = ask.Create(t.Context(), world.TokenConfig(token), name)
	must(t, err)
	return verdict(t, name)
}

// verdict waits until a request is approved or denied.
func verdict(t *testing.T, name string) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	var csr *certificatesv1.CertificateSigningRequest
	must(t, harness.Eventually(t.Context(), enough, func() (err error) {
		csr, err = world.Clientset().CertificatesV1().CertificateSigningRequests().Get(t.Context(), name, metav1.GetOptions{})
		if err == nil && tutorial.Condition(csr, certificatesv1.CertificateApproved, certificatesv1.CertificateDenied) == nil {
			err = errors.New(name + " has no verdict")
		}
		return err
	}))
	return csr
}

// TestPolicyRevisions does what an admin does: install, change a line, check the revision, roll back. Each revision has
// its own ConfigMap, which does not change.
func TestPolicyRevisions(t *testing.T) {
	ctx := t.Context()
	root := copyPolicies(t)
	root.apply(t)
	for _, name := range []string{"pod-client", "pod-serving", "spiffe"} {
		p := settled(t, name)
		for _, condition := range []string{v1alpha1.ConditionCompiled, v1alpha1.ConditionTestsPassed, v1alpha1.ConditionReady} {
			if !meta.IsStatusConditionTrue(p.Status.Conditions, condition) {
				t.Errorf("%s is not %s: %+v", name, condition, p.Status.Conditions)
			}
		}
		if p.Status.Coverage == nil || p.Status.Coverage.Percent != 100 {
			t.Errorf("%s: coverage %+v", name, p.Status.Coverage)
		}
	}
	before := settled(t, "pod-serving")
	configMaps := world.Clientset().CoreV1().ConfigMaps(harness.SystemNamespace)
	old, err := configMaps.Get(ctx, before.Spec.Rego.ConfigMapRef.Name, metav1.GetOptions{})
	must(t, err)
	if old.Immutable == nil || !*old.Immutable {
		t.Errorf("ConfigMap %s is not immutable", old.Name)
	}

	root.edit(t, "pod-serving/pod_serving.rego", "\tnot \"server auth\"", "\t# A line more.\n\tnot \"server auth\"")
	start := time.Now()
	root.apply(t)
	var after *v1alpha1.ApprovalPolicy
	must(t, harness.Eventually(ctx, enough, func() error {
		if after = policy(t, "pod-serving"); after.Status.Revision == before.Status.Revision || after.Status.ObservedGeneration != after.Generation {
			return errors.New("the revision before is active")
		}
		return nil
	}))
	t.Logf("the new revision was active %s after apply began", time.Since(start).Round(10*time.Millisecond))
	if after.Spec.Rego.ConfigMapRef.Name == before.Spec.Rego.ConfigMapRef.Name {
		t.Error("the new revision has the ConfigMap of the old one")
	}
	csr := decided(t, "by-the-new-revision", tutorial.Request{DNSNames: []string{"my-pod.my-namespace.pod.cluster.local"}})
	must(t, contains(csr.Status.Conditions[0].Message, "pod-serving", after.Status.Revision[:12], recorded(t, installation.Approver.Log, csr.Name).ID))
	still, err := configMaps.Get(ctx, old.Name, metav1.GetOptions{})
	must(t, err)
	if still.ResourceVersion != old.ResourceVersion {
		t.Error("the ConfigMap of the old revision was written to")
	}

	root.edit(t, "pod-serving/pod_serving.rego", "\t# A line more.\n", "") // git revert
	root.apply(t)
	must(t, harness.Eventually(ctx, enough, func() error {
		if p := policy(t, "pod-serving"); p.Status.Revision != before.Status.Revision {
			return errors.New("the revision before is not restored")
		}
		return nil
	}))
}

// TestBrokenRevisions checks that the errors of a revision are reported with row and column, and that the last good
// revision stays active. The webhook, which would reject the revision, does not run.
func TestBrokenRevisions(t *testing.T) {
	const file = "pod-serving/pod_serving.rego"
	for _, tc := range []struct {
		name                   string
		file, old, replacement string
		condition, reason      string
		errors                 []string // prefixes of "file:row:col: message", or parts of the condition's message if there are none
		suggestion             string
	}{
		{
			"a syntax error",
			file, "subject_is_authorized if {", "subject_is_authorized if {{", v1alpha1.ConditionCompiled, v1alpha1.ReasonInvalidRego,
			[]string{"pod_serving.rego:42:2: rego_parse_error:"},
			"",
		},
		{
			"a field that is misspelt",
			file, "subject_controls_key if {\n", "subject_controls_key if {\n\tinput.requester.usrname\n", v1alpha1.ConditionCompiled, v1alpha1.ReasonInvalidRego,
			[]string{"pod_serving.rego:32:2: rego_type_error: undefined ref: input.requester.usrname"},
			"username",
		},
		{
			"a failing test",
			file, `not "server auth" in input.request.usages`, `not "client auth" in input.request.usages`, v1alpha1.ConditionTestsPassed, v1alpha1.ReasonTestsFailed,
			[]string{"pod_serving_test.rego:"},
			"",
		},
		{
			"with outside of tests",
			file, "subject_controls_key if {\n", "subject_controls_key if {\n\tinput.requester.username with input as {}\n", v1alpha1.ConditionCompiled, v1alpha1.ReasonInvalidRego,
			[]string{"pod_serving.rego:32:27: "},
			"",
		},
		{
			"a parameter that is misspelt",
			"pod-serving/policy.yaml", "    maxExpirationSeconds: 86400", "    maxExpirationSecond: 86400", v1alpha1.ConditionCompiled, v1alpha1.ReasonInvalidParameters,
			[]string{"spec.parameters:0:0: Additional property maxExpirationSecond is not allowed"},
			"",
		},
		{
			"coverage below the floor",
			file, "applies_never", "", v1alpha1.ConditionTestsPassed, v1alpha1.ReasonCoverageTooLow, nil, "",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := copyPolicies(t)
			root.apply(t)
			good := settled(t, "pod-serving").Status.Revision
			if tc.old == "applies_never" { // a rule that no test reaches
				path := filepath.Join(string(root), file)
				raw, err := os.ReadFile(path)
				must(t, err)
				must(t, os.WriteFile(path, append(raw, "\nnever_tested if {\n\tinput.request.name == \"never\"\n}\n"...), 0o600))
			} else {
				root.edit(t, tc.file, tc.old, tc.replacement)
			}
			root.apply(t)
			p := settled(t, "pod-serving")
			if c := meta.FindStatusCondition(p.Status.Conditions, tc.condition); c == nil || c.Status != metav1.ConditionFalse || c.Reason != tc.reason {
				t.Errorf("%s: %+v", tc.condition, c)
			}
			if c := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionReady); c.Status != metav1.ConditionTrue || c.Reason != v1alpha1.ReasonLastGoodActive {
				t.Errorf("Ready: %+v", c)
			}
			if p.Status.Revision != good {
				t.Errorf("active revision %q, want the last good revision %q", p.Status.Revision, good)
			}
			if len(p.Status.Errors) < len(tc.errors) {
				t.Fatalf("errors %+v", p.Status.Errors)
			}
			for i, want := range tc.errors {
				e := p.Status.Errors[i]
				if got := fmt.Sprintf("%s:%d:%d: %s", e.File, e.Row, e.Col, e.Message); !strings.HasPrefix(got, want) {
					t.Errorf("got %s, want %s…", got, want)
				}
				if tc.suggestion != "" && !slices.Contains(e.Suggestions, tc.suggestion) {
					t.Errorf("suggestions %v, want %s among them", e.Suggestions, tc.suggestion)
				}
			}
			csr := decided(t, "by-last-good-"+fmt.Sprint(time.Now().UnixNano()), tutorial.Request{DNSNames: []string{"my-pod.my-namespace.pod.cluster.local"}})
			if c := csr.Status.Conditions[0]; c.Type != certificatesv1.CertificateApproved || !strings.Contains(c.Message, good[:12]) {
				t.Errorf("not decided by the last good revision: %+v", c)
			}
		})
	}
	copyPolicies(t).apply(t)
	settled(t, "pod-serving")
}

// TestCandidate checks that a stricter candidate reports the requests that it would decide differently, and changes no
// verdict.
func TestCandidate(t *testing.T) {
	root := copyPolicies(t)
	root.apply(t)
	active := settled(t, "pod-serving")
	t.Cleanup(func() { remove(t, "configmap/stricter-rego", "-n", harness.SystemNamespace) })
	strict := filepath.Join(string(root), "pod-serving", "pod_serving.rego")
	raw, err := os.ReadFile(strict)
	must(t, err)
	stricter := string(raw) + `
violations contains {"requirement": 2, "id": "not-on-sundays", "message": "the stricter revision allows nothing", "value": "", "retryable": false} if {
	count(input.pkcs10.dnsNames) > 0
}
`
	must(t, os.WriteFile(strict, []byte(stricter), 0o600))
	kubectl(t, "create", "configmap", "stricter-rego", "-n", harness.SystemNamespace, "--from-file="+strict)
	patch := `{"spec": {"candidate": {"rego": {"package": "countersign.pod_serving", "configMapRef": {"name": "stricter-rego"}}}, "minCoverage": 0}}`
	kubectl(t, "patch", "approvalpolicy", "pod-serving", "--type=merge", "-p", patch)
	t.Cleanup(func() {
		atEnd(t, "patch", "approvalpolicy", "pod-serving", "--type=merge", "-p", `{"spec": {"candidate": null, "minCoverage": 100}}`)
	})
	must(t, harness.Eventually(t.Context(), enough, func() error {
		if p := policy(t, "pod-serving"); p.Status.Candidate == nil || p.Status.Candidate.Revision == "" {
			return fmt.Errorf("candidate %+v", p.Status.Candidate)
		}
		return nil
	}))
	csr := decided(t, "with-candidate", tutorial.Request{DNSNames: []string{"my-pod.my-namespace.pod.cluster.local"}})
	if c := csr.Status.Conditions[0]; c.Type != certificatesv1.CertificateApproved || !strings.Contains(c.Message, active.Status.Revision[:12]) {
		t.Errorf("the candidate changed the verdict: %+v", c)
	}
	csr = decided(t, "with-candidate-too", tutorial.Request{DNSNames: []string{"example.com"}})
	if c := csr.Status.Conditions[0]; c.Type != certificatesv1.CertificateDenied {
		t.Errorf("the candidate changed the verdict: %+v", c)
	}
	must(t, harness.Eventually(t.Context(), enough, func() error {
		p := policy(t, "pod-serving")
		c := p.Status.Candidate
		if c == nil || c.Evaluations != 2 || c.Disagreements != 1 || len(c.Samples) != 1 {
			return fmt.Errorf("got %+v", c)
		}
		s := c.Samples[0]
		if s.Request != "with-candidate" || s.Active != "allow" || s.Candidate != "deny" || contains(s.Message, "not-on-sundays", "the stricter revision allows nothing") != nil {
			return fmt.Errorf("sample %+v", s)
		}
		if p.Status.Revision != active.Status.Revision {
			return fmt.Errorf("active revision %s", p.Status.Revision)
		}
		return nil
	}))
	// Promote the candidate by changing one field.
	kubectl(t, "patch", "approvalpolicy", "pod-serving", "--type=merge", "-p", `{"spec": {"rego": {"configMapRef": {"name": "stricter-rego"}}}}`)
	must(t, harness.Eventually(t.Context(), enough, func() error {
		p := policy(t, "pod-serving")
		if p.Status.Candidate == nil || p.Status.Revision != p.Status.Candidate.Revision {
			return fmt.Errorf("active %s, candidate %+v", p.Status.Revision, p.Status.Candidate)
		}
		return nil
	}))
	kubectl(t, "patch", "approvalpolicy", "pod-serving", "--type=merge", "-p", fmt.Sprintf(`{"spec": {"rego": {"configMapRef": {"name": %q}}}}`, active.Spec.Rego.ConfigMapRef.Name))
	must(t, harness.Eventually(t.Context(), enough, func() error {
		if p := policy(t, "pod-serving"); p.Status.Revision != active.Status.Revision {
			return errors.New("not rolled back")
		}
		return nil
	}))
}

// TestModeAndNamespaces checks that a policy in mode Audit, or for other namespaces, decides nothing.
func TestModeAndNamespaces(t *testing.T) {
	const signer = "example.com/watched"
	manifest := func(mode, team string) string {
		return strings.NewReplacer("MODE", mode, "TEAM", team).Replace(`
apiVersion: countersign.dev/v1alpha1
kind: ApprovalPolicy
metadata: {name: watched}
spec:
  match: {signerNames: [example.com/watched], namespaceSelector: {matchLabels: {team: TEAM}}}
  mode: MODE
  rego: {builtin: pod-serving}
`)
	}
	apply(t, manifest("Audit", "blue"))
	t.Cleanup(func() { remove(t, "approvalpolicy/watched") })
	settled(t, "watched")
	token, err := world.PodToken(t.Context(), world.Pods[tutorial.PodName])
	must(t, err)
	for _, name := range []string{"watched-1", "watched-2", "watched-3"} {
		_, _, err = tutorial.Request{DNSNames: []string{"example.com"}, SignerName: signer}.Create(t.Context(), world.TokenConfig(token), name)
		must(t, err)
		decided(t, name+"-marker", tutorial.Request{DNSNames: []string{"my-pod.my-namespace.pod.cluster.local"}}) // the approver has had time to decide it
		csr, err := world.Clientset().CertificatesV1().CertificateSigningRequests().Get(t.Context(), name, metav1.GetOptions{})
		must(t, err)
		events, err := world.Events(t.Context(), name)
		must(t, err)
		if len(csr.Status.Conditions) > 0 || len(events) > 0 {
			t.Errorf("%s was touched: %+v, Events %v", name, csr.Status.Conditions, events)
		}
		switch name {
		case "watched-1": // the namespace has no such label
			kubectl(t, "label", "namespace", tutorial.Namespace, "team=blue")
			t.Cleanup(func() { atEnd(t, "label", "namespace", tutorial.Namespace, "team-") })
		case "watched-2": // evaluated after the label was added
			must(t, harness.Eventually(t.Context(), enough, func() error {
				raw, err := os.ReadFile(installation.Approver.Log)
				if err == nil && !strings.Contains(string(raw), `"verdict":"Audited","reason":"","message":"","request":{"name":"watched-2"`) {
					err = errors.New("watched-2 is not on record")
				}
				return err
			}))
		}
	}
	// The approver is not allowed to approve for this signer, so that the policy is disabled and not enforced.
	apply(t, manifest("Disabled", "blue"))
	if p := settled(t, "watched"); !meta.IsStatusConditionPresentAndEqual(p.Status.Conditions, v1alpha1.ConditionReady, metav1.ConditionFalse) {
		t.Errorf("disabled: %+v", p.Status.Conditions)
	}
	must(t, installation.Approver.Ready(t.Context()))
}

// TestStandbyReportsRevision checks that the standby replica loads the policies and reports their revisions.
func TestStandbyReportsRevision(t *testing.T) {
	standby, err := installation.Run(t.Context(), "approver", "standby")
	must(t, err)
	t.Cleanup(func() {
		if err := standby.Stop(); err != nil {
			t.Error(err)
		}
	})
	must(t, standby.Ready(t.Context()))
	must(t, harness.Eventually(t.Context(), enough, func() error {
		p := policy(t, "pod-serving")
		for _, replica := range p.Status.Replicas {
			if replica.Name == "standby" && replica.Revision == p.Status.Revision {
				return nil
			}
		}
		return fmt.Errorf("replicas %+v, active %s", p.Status.Replicas, p.Status.Revision)
	}))
}
