// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package evaluator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/tester"
)

// testTimeout replaces the timeout of OPA for one test. The limit of the tests is CPU time: see package
// sandbox.
const testTimeout = time.Hour

// maxCases is the maximum number of failing cases that are named for one test.
const maxCases = 8

// TestReport is the result of the tests of a source.
type TestReport struct {
	// Tests is the number of tests.
	Tests int
	// Failures are the tests that fail or cannot run. Nil if all pass.
	Failures Errors
	// Percent is the share of the lines in the policy's rules that the tests cover, rounded down.
	Percent int
	// NotCovered are the lines that the tests do not cover, each as file:row.
	NotCovered []string
}

// Test runs the tests of a source that compiles. Problems of the tests are in the report. An error
// is a problem of this process, such as a context that ended.
func Test(ctx context.Context, s Source) (TestReport, error) {
	files := slices.Sorted(maps.Keys(s.Modules))
	if !slices.ContainsFunc(files, func(name string) bool { return strings.HasSuffix(name, testSuffix) }) {
		return TestReport{}, nil
	}
	modules, c, err := s.compileTests(ctx)
	if problems, ok := errors.AsType[Errors](err); ok {
		return TestReport{Failures: problems}, nil
	}
	if err != nil {
		return TestReport{}, err
	}
	coverage := cover.New()
	results, err := tester.NewRunner().
		SetCompiler(c).
		SetModules(modules).
		RaiseBuiltinErrors(false).
		SetTimeout(testTimeout).
		SetParallel(1).
		SetCoverageQueryTracer(coverage).
		SetCoverageRuns([]cover.Kind{}). // one run: the others explain why a line is not covered
		RunTests(ctx, nil)
	if err != nil {
		return TestReport{Failures: fromError("", err)}, nil
	}
	var report TestReport
	report.addResults(results)
	if ctx.Err() != nil {
		return TestReport{}, fmt.Errorf("running the tests of package %s: %w", s.Package, ctx.Err())
	}
	slices.SortFunc(report.Failures, func(a, b Error) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Row, b.Row))
	})
	report.addCoverage(coverage.Report(modules).Files, files)
	return report, nil
}

// compileTests parses and compiles a source together with its tests.
func (s Source) compileTests(ctx context.Context) (map[string]*ast.Module, *ast.Compiler, error) {
	modules, err := s.parse(true)
	if err != nil {
		return nil, nil, err
	}
	schema, err := s.checkParameters(ctx)
	if err != nil {
		return nil, nil, err
	}
	c, err := compiler(modules, schema)
	return modules, c, err
}

// addResults waits for the results, and adds the tests that fail.
func (report *TestReport) addResults(results <-chan *tester.Result) {
	for r := range results {
		report.Tests++
		if !r.Pass() || r.Skip {
			report.Failures = append(report.Failures, Error{File: r.Location.File, Row: r.Location.Row, Col: r.Location.Col, Message: failure(r)})
		}
	}
}

// addCoverage adds the coverage of the files that are not tests.
func (report *TestReport) addCoverage(covered map[string]*cover.FileReport, files []string) {
	lines, all := 0, 0
	for _, name := range files {
		file := covered[name]
		if file == nil || strings.HasSuffix(name, testSuffix) {
			continue
		}
		lines, all = lines+file.CoveredLines, all+file.CoveredLines+file.NotCoveredLines
		for _, gap := range file.NotCovered {
			for row := gap.Start.Row; row <= gap.End.Row; row++ {
				report.NotCovered = append(report.NotCovered, fmt.Sprintf("%s:%d", name, row))
			}
		}
	}
	report.NotCovered = slices.Compact(report.NotCovered)
	if all > 0 {
		report.Percent = 100 * lines / all
	}
}

// failure describes a test that failed, and in which cases.
func failure(r *tester.Result) string {
	text := r.Name + " fails"
	switch {
	case r.Skip:
		return r.Name + " is skipped: remove the prefix todo_, or the test"
	case r.Error != nil:
		text += ": " + r.Error.Error()
	}
	var cases []string
	for path, sub := range r.SubResults.Iter {
		if sub.Fail {
			cases = append(cases, strings.Join(path, "/"))
		}
	}
	if cases != nil {
		slices.Sort(cases)
		text += " for " + strings.Join(cases[:min(len(cases), maxCases)], ", ")
		if more := len(cases) - maxCases; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
	}
	return text
}
