// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package evaluator

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/version"

	"countersign.dev/countersign/policies"
)

// Limits of a source.
const (
	// MaxModules is the maximum number of files.
	MaxModules = 32
	// MaxSource is the maximum size of all files and the parameters, in bytes.
	MaxSource = 256 << 10
	// MaxRules is the maximum size of the parameters and of the files that are not tests, in bytes. A
	// compiled policy stays in memory: 2 MiB, and up to 200 bytes for each byte of its source.
	MaxRules = 64 << 10

	// TooLarge is the name of the only file of a source that was removed because it exceeds a limit. The
	// file says which.
	TooLarge = "too large"

	maxRetained        = 2 << 20
	maxRetainedPerByte = 200
	maxAllocated       = 96 << 20 // while compiling
)

// Size returns the size of the parameters and of the files that are not tests, in bytes.
func (s Source) Size() int {
	rules, _ := s.sizes()
	return rules
}

// TotalSize returns the size of the parameters and of all files, in bytes.
func (s Source) TotalSize() int {
	_, all := s.sizes()
	return all
}

// checksVersion changes with the checks of this package that are not in OPA.
const checksVersion = 2

// Version returns the version of everything that compiles and tests a source: OPA, the schema of the
// input and the checks of this package.
func Version() string {
	return fmt.Sprintf("%s %d %x", version.Version, checksVersion, sha256.Sum256(policies.InputSchema))
}

func (s Source) sizes() (rules, all int) {
	parameters, _ := json.Marshal(s.Parameters) // which came from JSON
	rules, all = len(parameters), len(parameters)
	for name, text := range s.Modules {
		all += len(name) + len(text)
		if !strings.HasSuffix(name, testSuffix) {
			rules += len(name) + len(text)
		}
	}
	return rules, all
}

// CheckSize returns an error if the source exceeds a limit.
func (s Source) CheckSize() Errors {
	rules, all := s.sizes()
	tooLarge, removed := s.Modules[TooLarge]
	switch {
	case removed:
		return Errors{{Message: tooLarge}}
	case len(s.Modules) > MaxModules:
		return Errors{{Message: fmt.Sprintf("the source has %d files, the maximum is %d", len(s.Modules), MaxModules)}}
	case all > MaxSource:
		return Errors{{Message: fmt.Sprintf("the files and the parameters have %d bytes, the maximum is %d", all, MaxSource)}}
	case rules > MaxRules:
		return Errors{{Message: fmt.Sprintf("the parameters and the files that are not tests have %d bytes, the maximum is %d", rules, MaxRules)}}
	}
	return nil
}

// CheckResult is the result of compiling and testing a source.
type CheckResult struct {
	// Errors are the problems that prevent the source from compiling.
	Errors Errors
	// Compiled reports that the source compiles.
	Compiled bool
	// Tests is the result of the tests. It is zero if the source has no tests or does not compile.
	Tests TestReport
}

// Check compiles and tests a source. It calls compiled in between. Package sandbox calls it in a process
// with limits on memory and CPU time.
func Check(ctx context.Context, s Source, compiled func() error) (CheckResult, error) {
	before, allocatedBefore := heap()
	policy, err := Compile(ctx, s)
	if problems, ok := errors.AsType[Errors](err); ok {
		return CheckResult{Errors: problems}, nil
	}
	if err != nil {
		return CheckResult{}, err
	}
	retained, allocated := heap()
	runtime.KeepAlive(policy)
	if problems := checkMemory(retained-before, maxRetained+maxRetainedPerByte*s.Size(), allocated-allocatedBefore); len(problems) > 0 {
		return CheckResult{Errors: problems}, nil
	}
	if err := compiled(); err != nil {
		return CheckResult{}, err
	}
	report, err := Test(ctx, s)
	report.NotCovered = report.NotCovered[:min(len(report.NotCovered), maxNotCovered)]
	report.Failures = slices.Clip(report.Failures[:min(len(report.Failures), maxFailures)])
	return CheckResult{Compiled: true, Tests: report}, err
}

// Maximum numbers in a result.
const (
	maxNotCovered = 64
	maxFailures   = 64
)

// heap returns the size of the objects on the heap after a garbage collection, and of all that were
// ever allocated.
func heap() (live, allocated int) {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int(stats.HeapAlloc), int(stats.TotalAlloc) //nolint:gosec // far below 2^63
}

func checkMemory(retained, most, allocated int) Errors {
	switch {
	case retained > most:
		return Errors{{Message: fmt.Sprintf("the compiled source needs %d KiB of memory, the maximum for its size is %d KiB: simplify its rules", retained>>10, most>>10)}}
	case allocated > maxAllocated:
		return Errors{{Message: fmt.Sprintf("compiling the source allocates %d MiB of memory, the maximum is %d MiB: simplify its rules", allocated>>20, maxAllocated>>20)}}
	}
	return nil
}
