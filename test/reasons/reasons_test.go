// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package reasons_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"countersign.dev/countersign/test/reasons"
)

func write(t *testing.T, source string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "a.go")
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestExamples(t *testing.T) {
	got, err := reasons.Examples(write(t, `package a

// Reasons of a condition.
const (
	// ReasonA: it is a.
	// Example: "Secret \"a\" is missing"
	ReasonA = "A"
	// Other has no example.
	Other = "Other"
)

// ReasonB is another reason.
// Example: "b"
const ReasonB = "B"
`))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"ReasonA": `Secret "a" is missing`, "ReasonB": "b"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("examples (-want +got):\n%s", diff)
	}
}

func TestExamples_invalid(t *testing.T) {
	for _, tc := range []struct{ name, source, want string }{
		{"no example", "package a\n\n// ReasonA: it is a.\nconst ReasonA = \"A\"\n", "ReasonA: the comment has no line"},
		{"no comment", "package a\n\nconst ReasonA = \"A\"\n", "ReasonA: the comment has no line"},
		{"not a string", "package a\n\n// ReasonA: it is a.\n// Example: a\nconst ReasonA = \"A\"\n", "ReasonA: the example must be"},
		{"text after it", "package a\n\n// ReasonA: it is a.\n// Example: \"a\"\n// More.\nconst ReasonA = \"A\"\n", "ReasonA: the example must be"},
		{"not Go", "package", "expected 'IDENT'"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := reasons.Examples(write(t, tc.source)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got error %v, want %q", err, tc.want)
			}
		})
	}
}

// TestExamples_api checks that every reason of the API has an example.
func TestExamples_api(t *testing.T) {
	for _, file := range []string{"approvalpolicy_types.go", "signer_types.go"} {
		examples, err := reasons.Examples(filepath.Join("..", "..", "api", "v1alpha1", file))
		if err != nil || len(examples) < 10 {
			t.Errorf("%s: got %d examples, %v", file, len(examples), err)
		}
	}
}
