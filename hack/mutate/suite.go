// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
)

// timeout bounds the tests of one mutant. A mutant that takes longer is detected.
const timeout = time.Minute

// outcome is the result of testing a mutant.
type outcome int

const (
	survived outcome = iota
	detected
	invalid // does not compile
)

// suite is a file to change, and the tests that must detect the changes.
type suite struct {
	file    string
	modules map[string]*ast.Module
	groups  []group
}

// group are the modules of one policy, or of the library, and their tests with the results without a change.
type group struct {
	files []string
	tests []testRule
}

type testRule struct {
	query string
	want  string
}

// load returns the suites of the policies in a directory.
func load(ctx context.Context, dir string) ([]*suite, error) {
	modules, err := parse(dir)
	if err != nil {
		return nil, err
	}
	folders := map[string][]string{}
	for _, file := range slices.Sorted(maps.Keys(modules)) {
		folder, _, _ := strings.Cut(file, "/")
		folders[folder] = append(folders[folder], file)
	}
	lib := folders["lib"]
	delete(folders, "lib")
	all := map[string]group{}
	for folder, files := range folders {
		if all[folder], err = newGroup(ctx, modules, append(withoutTests(lib), files...)); err != nil {
			return nil, fmt.Errorf("%s: %w", folder, err)
		}
	}
	libGroup, err := newGroup(ctx, modules, lib)
	if err != nil {
		return nil, fmt.Errorf("lib: %w", err)
	}
	var suites []*suite
	for _, file := range withoutTests(slices.Sorted(maps.Keys(modules))) {
		s := &suite{file: file, modules: modules}
		folder, name, _ := strings.Cut(file, "/")
		switch {
		case folder != "lib":
			s.groups = []group{all[folder]}
		case name == "example.rego": // inputs for tests
			continue
		default:
			s.groups = []group{libGroup}
			for _, folder := range slices.Sorted(maps.Keys(all)) {
				s.groups = append(s.groups, all[folder])
			}
		}
		suites = append(suites, s)
	}
	return suites, nil
}

func parse(dir string) (map[string]*ast.Module, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*", "*.rego"))
	if err != nil || len(paths) == 0 {
		return nil, fmt.Errorf("no policies in %s: %w", dir, err)
	}
	modules := map[string]*ast.Module{}
	for _, path := range paths {
		text, err := os.ReadFile(path) //nolint:gosec // the user chooses the directory
		if err != nil {
			return nil, err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return nil, err
		}
		if modules[filepath.ToSlash(name)], err = ast.ParseModuleWithOpts(name, string(text), ast.ParserOptions{}); err != nil {
			return nil, err
		}
	}
	return modules, nil
}

func isTest(file string) bool { return strings.HasSuffix(file, "_test.rego") }

func withoutTests(files []string) []string {
	return slices.DeleteFunc(slices.Clone(files), isTest)
}

// testQueries returns the references to the tests in files.
func testQueries(modules map[string]*ast.Module, files []string) []string {
	queries := map[string]bool{}
	for _, file := range files {
		for _, rule := range modules[file].Rules {
			if name := rule.Head.Ref()[0].String(); isTest(file) && strings.HasPrefix(name, "test_") {
				queries[modules[file].Package.Path.String()+"."+name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(queries))
}

// newGroup evaluates the tests in files. All of them must have a result.
func newGroup(ctx context.Context, modules map[string]*ast.Module, files []string) (group, error) {
	g := group{files: files}
	c, err := compile(modules, files, "", nil)
	if err != nil {
		return group{}, err
	}
	for _, query := range testQueries(modules, files) {
		want, err := evaluate(ctx, c, query)
		if err != nil {
			return group{}, fmt.Errorf("%s: %w", query, err)
		}
		if want == "" || want == "{}" {
			return group{}, fmt.Errorf("%s fails", query)
		}
		g.tests = append(g.tests, testRule{query, want})
	}
	if len(g.tests) == 0 {
		return group{}, errors.New("no tests")
	}
	slices.SortStableFunc(g.tests, func(a, b testRule) int { return len(b.want) - len(a.want) }) // the one with most cases first
	return g, nil
}

// compile compiles files, with another module in place of one of them. It is not strict: a mutant can
// have unused imports and variables.
func compile(modules map[string]*ast.Module, files []string, file string, changed *ast.Module) (*ast.Compiler, error) {
	selected := map[string]*ast.Module{}
	for _, name := range files {
		selected[name] = modules[name]
	}
	if changed != nil {
		selected[file] = changed
	}
	c := ast.NewCompiler()
	if c.Compile(selected); c.Failed() {
		return nil, c.Errors
	}
	return c, nil
}

// evaluate returns the value of a test: true, or an object with the cases that pass. It is empty if the
// test fails. A test whose evaluation returns an error has a different value than without the change.
func evaluate(ctx context.Context, c *ast.Compiler, query string) (string, error) {
	results, err := rego.New(rego.Compiler(c), rego.Query("x := "+query)).Eval(ctx)
	if err != nil || len(results) == 0 {
		return "", err
	}
	value, err := ast.InterfaceToValue(results[0].Bindings["x"])
	if err != nil {
		return "", err
	}
	return value.String(), nil
}

// test tests a mutant of the file of the suite, up to the first test that detects it.
func (s *suite) test(ctx context.Context, changed *ast.Module) (outcome, error) {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, g := range s.groups {
		c, err := compile(s.modules, g.files, s.file, changed)
		if _, ok := errors.AsType[ast.Errors](err); ok {
			return invalid, nil
		}
		if err != nil {
			return survived, err
		}
		for _, test := range g.tests {
			got, err := evaluate(limited, c, test.query)
			if ctx.Err() != nil {
				return survived, ctx.Err()
			}
			if err != nil || got != test.want {
				return detected, nil
			}
		}
	}
	return survived, nil
}
