// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestReasonsExist checks that the reasons in README.md are constants of the code, and that README.md has every reason
// of package pkcs10.
func TestReasonsExist(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(readme), "\n## Reasons\n")
	table, _, _ := strings.Cut(section, "\n## ")
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| \w+ \| ([^|]+) \|`).FindAllStringSubmatch(table, -1) {
		for _, span := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			documented[span[1]] = true
		}
	}
	if len(documented) < 20 {
		t.Fatalf("README.md has %d reasons: %v", len(documented), documented)
	}
	declared := map[string]string{} // the directory by reason
	for dir, files := range packages(t) {
		for _, reason := range reasons(t, files) {
			declared[reason] = dir
		}
	}
	for reason := range documented {
		if declared[reason] == "" {
			t.Errorf("README.md names the reason %s, which no Reason constant has", reason)
		}
	}
	for reason, dir := range declared {
		if dir == "pkcs10" && !documented[reason] {
			t.Errorf("README.md does not name the reason %s of package pkcs10", reason)
		}
	}
}

// reasons returns the values of the constants Reason… in files.
func reasons(t *testing.T, files []string) (values []string) {
	t.Helper()
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || !strings.HasPrefix(spec.Names[0].Name, "Reason") || len(spec.Values) != 1 {
				return true
			}
			if literal, ok := spec.Values[0].(*ast.BasicLit); ok {
				if value, err := strconv.Unquote(literal.Value); err == nil {
					values = append(values, value)
				}
			}
			return true
		})
	}
	return values
}

// TestMetricsExist checks that the metrics in operations.md are registered somewhere in the code.
func TestMetricsExist(t *testing.T) {
	operations, err := os.ReadFile("operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, files := range packages(t) {
		for _, file := range files {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			code.Write(raw)
		}
	}
	for _, name := range regexp.MustCompile(`countersign_[a-z_]+`).FindAllString(string(operations), -1) {
		if !strings.Contains(code.String(), strconv.Quote(name)) {
			t.Errorf("docs/operations.md names the metric %s, which the code does not have", name)
		}
	}
}
