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

// TestThreatModelTests checks that the tests exist that threat-model.md names, in the packages that it names.
func TestThreatModelTests(t *testing.T) {
	page, err := os.ReadFile("threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	var rego strings.Builder
	for _, pattern := range []string{"*_test.rego", filepath.Join("*", "*_test.rego")} {
		files, err := filepath.Glob(filepath.Join("..", "policies", pattern))
		if err != nil {
			t.Fatal(err)
		}
		rego.WriteString(strings.Join(files, "\n"))
	}
	rows := 0
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 6 || strings.Contains(line, "---") || strings.Contains(line, "| test |") {
			continue
		}
		rows++
		named := cells[4]
		for _, group := range regexp.MustCompile("((?:`Test[A-Za-z_0-9]+`(?:, )?)+) \\(([a-z0-9/]+)\\)").FindAllStringSubmatch(named, -1) {
			for _, test := range regexp.MustCompile("Test[A-Za-z_0-9]+").FindAllString(group[1], -1) {
				if !declaresTest(t, group[2], test) {
					t.Errorf("package %s has no test %s", group[2], test)
				}
			}
			named = strings.Replace(named, group[0], "", 1)
		}
		for _, file := range regexp.MustCompile("`([a-z_]+_test\\.rego)`").FindAllStringSubmatch(named, -1) {
			if !strings.Contains(rego.String(), "/"+file[1]) {
				t.Errorf("policies has no file %s", file[1])
			}
			named = strings.Replace(named, file[0], "", 1)
		}
		if rest := strings.Trim(named, " ,"); rest != "" || cells[4] == named {
			t.Errorf("the row %q names no test, or %q in addition", cells[2], rest)
		}
	}
	if rows < 40 {
		t.Errorf("threat-model.md has %d rows", rows)
	}
}

// declaresTest reports whether a file of tests in a package declares a function.
func declaresTest(t *testing.T, pkg, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", filepath.FromSlash(pkg), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(source), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}
