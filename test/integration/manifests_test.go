// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"countersign.dev/countersign/test/cluster"
	"countersign.dev/countersign/test/harness"
)

// overlayOf writes a kustomization with one resource and more fields, and returns its folder. In the fields, ROOT is the
// path of the repository.
func overlayOf(t *testing.T, resource, fields string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	relative := func(path string) string {
		path, err := filepath.Rel(dir, path)
		must(t, err)
		return path
	}
	root, err := cluster.Root()
	must(t, err)
	fields = "resources: [" + relative(resource) + "]\n" + strings.ReplaceAll(fields, "ROOT", relative(root))
	must(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(fields), 0o600))
	return dir
}

// TestOtherNamespace renders each root for another namespace, and checks that the shipped one is in no part of it, and that
// the API server accepts the result.
func TestOtherNamespace(t *testing.T) {
	kubectl(t, "create", "namespace", "team-certs")
	t.Cleanup(func() { remove(t, "namespace/team-certs") })
	root, err := cluster.Root()
	must(t, err)
	for _, tc := range []struct{ resource, transformers string }{
		{"deploy/overlays/default", "ROOT/deploy/base/namespace"},
		{"deploy/signers/webhook", "ROOT/deploy/signers/webhook/namespace"},
		{"deploy/signers/kubelet-serving", "ROOT/deploy/signers/kubelet-serving/namespace"},
		{"policies", ""},
	} {
		t.Run(tc.resource, func(t *testing.T) {
			dir := overlayOf(t, filepath.Join(root, tc.resource), "namespace: team-certs\ntransformers: ["+tc.transformers+"]\n")
			rendered := kubectl(t, "kustomize", dir)
			for line := range strings.Lines(rendered) {
				if strings.Contains(line, harness.SystemNamespace) {
					t.Errorf("contains the shipped namespace: %s", line)
				}
			}
			if tc.resource == "deploy/overlays/default" && strings.Count(rendered, "  namespace: default\n") != 4 {
				t.Error("the Roles and RoleBindings for Events are not in the namespace default")
			}
			kubectl(t, "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-k", dir)
		})
	}
}

// TestComponents adds each component to the default overlay, and checks that the API server accepts the result.
func TestComponents(t *testing.T) {
	root, err := cluster.Root()
	must(t, err)
	addresses := `patches:
  - target: {kind: NetworkPolicy}
    patch: |
      - {op: replace, path: /spec/egress/0/to/0/ipBlock/cidr, value: 10.9.0.0/28}
  - target: {kind: NetworkPolicy, name: countersign-webhook}
    patch: |
      - {op: replace, path: /spec/ingress/0/from/0/ipBlock/cidr, value: 10.9.0.0/28}
      - {op: replace, path: /spec/ingress/1/from/0/namespaceSelector/matchLabels/kubernetes.io~1metadata.name, value: metrics}
  - target: {kind: NetworkPolicy, name: countersign-(approver|signer)}
    patch: |
      - {op: replace, path: /spec/ingress/0/from/0/namespaceSelector/matchLabels/kubernetes.io~1metadata.name, value: metrics}
`
	for _, tc := range []struct {
		component, fields string
		want              []string
		not               string
	}{
		{"webhook-client-authentication", "", []string{"- --client-authentication=Required", "- --client-ca-file=/etc/countersign/client-ca/ca.crt", "name: countersign-webhook-client-ca"}, ""},
		{"network-policy", addresses, []string{"cidr: 10.9.0.0/28", "port: 9443", "port: 6443", "kubernetes.io/metadata.name: metrics"}, "192.0.2."},
		{"network-policy", addresses, nil, "kubernetes.io/metadata.name: monitoring"},
		{"network-policy", "", []string{"cidr: 192.0.2.0/24", "kubernetes.io/metadata.name: monitoring"}, "port: 8081"},
	} {
		t.Run(tc.component, func(t *testing.T) {
			dir := overlayOf(t, filepath.Join(root, "deploy/overlays/default"), "components: [ROOT/deploy/components/"+tc.component+"]\n"+tc.fields)
			rendered := kubectl(t, "kustomize", dir)
			must(t, contains(rendered, tc.want...))
			if tc.not != "" && strings.Contains(rendered, tc.not) {
				t.Errorf("contains %q", tc.not)
			}
			kubectl(t, "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-k", dir)
		})
	}
}

// TestDefaultOverlay checks what all processes of the default overlay must have.
func TestDefaultOverlay(t *testing.T) {
	root, err := cluster.Root()
	must(t, err)
	rendered := kubectl(t, "kustomize", filepath.Join(root, "deploy/overlays/default"))
	kinds := map[string]int{}
	for document := range strings.SplitSeq(rendered, "\n---\n") {
		var object struct {
			Kind     string
			Metadata struct{ Name string }
			Spec     struct {
				UnhealthyPodEvictionPolicy string
				Selector                   struct{ MatchLabels map[string]string }
				Template                   struct {
					Metadata struct{ Labels map[string]string }
				}
			}
		}
		must(t, yaml.Unmarshal([]byte(document), &object))
		kinds[object.Kind]++
		const partOf = "app.kubernetes.io/part-of"
		switch object.Kind {
		case "Deployment":
			if object.Spec.Template.Metadata.Labels[partOf] != "countersign" || object.Spec.Selector.MatchLabels[partOf] != "" {
				t.Errorf("Deployment %s: labels of Pods %v, selector %v", object.Metadata.Name, object.Spec.Template.Metadata.Labels, object.Spec.Selector.MatchLabels)
			}
		case "PodDisruptionBudget":
			if object.Spec.UnhealthyPodEvictionPolicy != "AlwaysAllow" {
				t.Errorf("PodDisruptionBudget %s: %q", object.Metadata.Name, object.Spec.UnhealthyPodEvictionPolicy)
			}
		}
	}
	if kinds["Deployment"] != 3 || kinds["PodDisruptionBudget"] != 3 {
		t.Errorf("got %v", kinds)
	}
}
