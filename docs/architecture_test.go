// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	codeSpan  = regexp.MustCompile("`([^`\n]+)`")
	described = regexp.MustCompile("(?:^|\n|, | and |\\. )\\*\\*`([^`\n]+)`\\*\\*")
	pathLike  = regexp.MustCompile(`^[\w.-]+(/[\w.-]+)*/?$`)
	symbol    = regexp.MustCompile(`^(\w+)\.([A-Z]\w*)(?:\.\w+)*$`)
)

func architecture(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile("architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	return fenced.ReplaceAllString(string(raw), "")
}

// TestArchitecturePaths checks that every path in architecture.md exists.
func TestArchitecturePaths(t *testing.T) {
	for _, match := range codeSpan.FindAllStringSubmatch(architecture(t), -1) {
		name := match[1]
		if !isPath(name) {
			continue
		}
		if _, err := os.Stat(filepath.Join("..", name)); err != nil {
			t.Errorf("docs/architecture.md names %s, which does not exist", name)
		}
	}
}

// isPath reports whether a code span is a path of the repository: it exists, it begins with a directory of the
// repository, or it looks like a file in a directory.
func isPath(name string) bool {
	if !pathLike.MatchString(name) {
		return false
	}
	first, _, nested := strings.Cut(name, "/")
	if !nested {
		return slices.Contains([]string{".go", ".md", ".sh"}, path.Ext(name)) || name == ".golangci.yml"
	}
	if info, err := os.Stat(filepath.Join("..", first)); err == nil && info.IsDir() {
		return true
	}
	return slices.Contains([]string{".go", ".md", ".sh", ".yaml", ".yml", ".json", ".rego", ".txt"}, path.Ext(name))
}

// TestArchitecturePackages checks that architecture.md describes every Go package of the module, and no other.
func TestArchitecturePackages(t *testing.T) {
	var want, got []string
	for dir := range packages(t) {
		want = append(want, dir)
	}
	for _, match := range described.FindAllStringSubmatch(architecture(t), -1) {
		got = append(got, match[1])
	}
	for _, dir := range want {
		if !slices.Contains(got, dir) {
			t.Errorf("docs/architecture.md does not describe package %s: add a paragraph that begins with **`%s`**", dir, dir)
		}
	}
	for _, dir := range got {
		if !slices.Contains(want, dir) {
			t.Errorf("docs/architecture.md describes %s, which is not a Go package of the module", dir)
		}
	}
}

// TestArchitectureSymbols checks that every package.Symbol in architecture.md is declared.
func TestArchitectureSymbols(t *testing.T) {
	declared := map[string]bool{}
	names := map[string]bool{}
	for _, files := range packages(t) {
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			names[parsed.Name.Name] = true
			for _, name := range declarations(parsed) {
				declared[parsed.Name.Name+"."+name] = true
			}
		}
	}
	for _, match := range codeSpan.FindAllStringSubmatch(architecture(t), -1) {
		parts := symbol.FindStringSubmatch(match[1])
		if parts != nil && names[parts[1]] && !declared[parts[1]+"."+parts[2]] {
			t.Errorf("docs/architecture.md names %s, which is not declared", match[1])
		}
	}
}

// declarations returns the names that a file declares at its top level, but methods.
func declarations(file *ast.File) (names []string) {
	for _, declaration := range file.Decls {
		switch d := declaration.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				names = append(names, d.Name.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					names = append(names, s.Name.Name)
				case *ast.ValueSpec:
					for _, name := range s.Names {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	return names
}
