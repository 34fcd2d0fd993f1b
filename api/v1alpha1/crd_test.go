// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// schemaOf returns the schema in the shipped custom resource definition of a resource.
func schemaOf(t *testing.T, resource string) apiextensionsv1.JSONSchemaProps {
	t.Helper()
	data, err := os.ReadFile("../../deploy/base/crds/countersign.dev_" + resource + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(data, &crd); err != nil {
		t.Fatal(err)
	}
	return *crd.Spec.Versions[0].Schema.OpenAPIV3Schema
}

// TestDescriptions checks that kubectl explain prints the description of each field well.
func TestDescriptions(t *testing.T) {
	for _, resource := range []string{"approvalpolicies", "signers"} {
		schema := schemaOf(t, resource)
		for _, field := range []string{"spec", "status"} {
			checkDescriptions(t, resource+"."+field, field, schema.Properties[field])
		}
	}
}

func checkDescriptions(t *testing.T, path, field string, schema apiextensionsv1.JSONSchemaProps) {
	t.Helper()
	if !strings.HasPrefix(schema.Description, field+" ") {
		t.Errorf("%s: the description begins with %.20q, want the field name", path, schema.Description)
	}
	for line := range strings.SplitSeq(schema.Description, "\n") {
		if len(line) > 76 {
			t.Errorf("%s: a line of the description has %d characters, want at most 76: %s", path, len(line), line)
		}
	}
	if field == "conditions" || field == "namespaceSelector" {
		return // types of Kubernetes
	}
	properties := schema.Properties
	if schema.Items != nil && schema.Items.Schema != nil {
		properties = schema.Items.Schema.Properties
	}
	for name, property := range properties {
		checkDescriptions(t, path+"."+name, name, property)
	}
}

// TestSigner_signerName matches names with the pattern in the shipped custom resource definition.
func TestSigner_signerName(t *testing.T) {
	name := schemaOf(t, "signers").Properties["spec"].Properties["signerName"]
	pattern, err := regexp.Compile(name.Pattern)
	if err != nil || name.Pattern == "" {
		t.Fatalf("pattern %q: %v", name.Pattern, err)
	}
	for _, tc := range []struct {
		signerName string
		valid      bool
	}{
		{"example.com/serving", true},
		{"example.com/a.b-c", true},
		{"example.com/*", false}, // all signers of a domain
		{"*/serving", false},
		{"*.example.com/serving", false},
		{"example.com/", false},
		{"example.com", false},
		{"example.com/a/b", false},
		{"Example.com/serving", false},
		{"", false},
	} {
		if got := pattern.MatchString(tc.signerName); got != tc.valid {
			t.Errorf("signerName %q: matches %v, want %v", tc.signerName, got, tc.valid)
		}
	}
}

// TestPropagationDefault: the kubelet caches a ClusterTrustBundle that is mounted by name for 5 minutes, and writes it with
// the next sync of the Pod, at most 90 s later. Clients need time to reload it.
func TestPropagationDefault(t *testing.T) {
	var text string
	if err := yaml.Unmarshal(schemaOf(t, "signers").Properties["spec"].Properties["trust"].Properties["propagation"].Default.Raw, &text); err != nil {
		t.Fatal(err)
	}
	const kubelet, client = 5*time.Minute + 90*time.Second, 2 * time.Minute
	if got, err := time.ParseDuration(text); err != nil || got < kubelet+client {
		t.Errorf("spec.trust.propagation defaults to %s, %v: want at least %v", text, err, kubelet+client)
	}
}
