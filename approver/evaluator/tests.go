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

	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/tester"
)

// TestTimeout bounds all tests of a policy together.
const TestTimeout = 10 * time.Second

// maxCases is how many failing cases of one test are named.
const maxCases = 8

// TestReport is what the tests of a source say.
type TestReport struct {
	// Tests is how many there are.
	Tests int
	// Failures are the tests that fail, or that could not be run; nil if all pass.
	Failures Errors
	// Percent of the lines of the policy's own rules that the tests reach, rounded down.
	Percent int
	// TimedOut is true if they did not end in time, which may be the machine's fault.
	TimedOut bool
	// NotCovered are the lines that they do not reach, each as file:row.
	NotCovered []string
}

// Test runs the tests of a source that compiles. What is wrong with the tests is in the report;
// an error is a fault of the machine, such as a context that ended.
func Test(ctx context.Context, s Source) (TestReport, error) {
	files := slices.Sorted(maps.Keys(s.Modules))
	if !slices.ContainsFunc(files, func(name string) bool { return strings.HasSuffix(name, testSuffix) }) {
		return TestReport{}, nil
	}
	refused := func(err error) (TestReport, error) {
		if faults, ok := errors.AsType[Errors](err); ok {
			return TestReport{Failures: faults}, nil
		}
		return TestReport{}, err
	}
	modules, err := s.parse(true)
	if err != nil {
		return refused(err)
	}
	schema, err := s.checkParameters(ctx)
	if err != nil {
		return refused(err)
	}
	c, err := compiler(modules, schema)
	if err != nil {
		return refused(err)
	}
	limited, cancel := context.WithTimeout(ctx, TestTimeout)
	defer cancel()
	coverage := cover.New()
	results, err := tester.NewRunner().
		SetCompiler(c).
		SetModules(modules).
		RaiseBuiltinErrors(false).
		SetTimeout(TestTimeout).
		SetCoverageQueryTracer(coverage).
		SetCoverageRuns([]cover.Kind{}). // one run: the others tell why a line is not reached
		RunTests(limited, nil)
	if err != nil {
		return TestReport{Failures: fromError("", err)}, nil
	}
	var report TestReport
	for r := range results {
		report.Tests++
		if r.Pass() && !r.Skip {
			continue
		}
		report.Failures = append(report.Failures, Error{File: r.Location.File, Row: r.Location.Row, Col: r.Location.Col, Message: failure(r)})
	}
	switch {
	case ctx.Err() != nil:
		return TestReport{}, fmt.Errorf("running the tests of package %s: %w", s.Package, ctx.Err())
	case limited.Err() != nil:
		report.TimedOut = true
		report.Failures = append(report.Failures, Error{Message: fmt.Sprintf("the tests did not end within %s", TestTimeout)})
	}
	slices.SortFunc(report.Failures, func(a, b Error) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Row, b.Row))
	})
	reached := coverage.Report(modules).Files
	covered, all := 0, 0
	for _, name := range files {
		file := reached[name]
		if file == nil || strings.HasSuffix(name, testSuffix) {
			continue
		}
		covered, all = covered+file.CoveredLines, all+file.CoveredLines+file.NotCoveredLines
		for _, gap := range file.NotCovered {
			for row := gap.Start.Row; row <= gap.End.Row; row++ {
				report.NotCovered = append(report.NotCovered, fmt.Sprintf("%s:%d", name, row))
			}
		}
	}
	report.NotCovered = slices.Compact(report.NotCovered)
	if all > 0 {
		report.Percent = 100 * covered / all
	}
	return report, nil
}

// failure says which test failed, and in which cases.
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
