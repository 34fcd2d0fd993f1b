// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signertest

import (
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"countersign.dev/countersign/test/reasons"
)

var (
	// SourceReasons are the reasons of a Signer whose examples package source checks.
	SourceReasons = []string{"SecretNotFound", "FileNotFound", "NotManaged", "SecretReadOnly"}
	// TrustReasons are the reasons of a Signer whose examples package trust checks.
	TrustReasons = []string{"Published", "PublishRefused"}
)

var fingerprint = regexp.MustCompile(`\([0-9a-f]{8}\)`)

// SignerReasons returns the example of each reason of a Signer, from the doc comments of package v1alpha1.
func SignerReasons(t *testing.T) map[string]string {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	examples, err := reasons.Examples(filepath.Join(filepath.Dir(here), "..", "..", "..", "api", "v1alpha1", "signer_types.go"))
	if err != nil {
		t.Fatal(err)
	}
	byReason := map[string]string{}
	for name, example := range examples {
		byReason[strings.TrimPrefix(name, "Reason")] = example
	}
	return byReason
}

// CheckExample fails the test if a message differs from the example of its reason. Fingerprints in the messages can
// differ.
func CheckExample(t *testing.T, examples map[string]string, reason, message string) {
	t.Helper()
	got, want := fingerprint.ReplaceAllString(message, "(00000000)"), fingerprint.ReplaceAllString(examples[reason], "(00000000)")
	if got != want {
		t.Errorf("the example of reason %s differs from the message\nexample: %q\nmessage: %q", reason, examples[reason], message)
	}
}
