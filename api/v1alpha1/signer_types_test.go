// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"os"
	"regexp"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// TestSigner_signerName matches names with the pattern in the shipped custom resource definition.
func TestSigner_signerName(t *testing.T) {
	data, err := os.ReadFile("../../deploy/base/crds/countersign.dev_signers.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(data, &crd); err != nil {
		t.Fatal(err)
	}
	name := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties["signerName"]
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
