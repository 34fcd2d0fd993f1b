// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/policies"
)

// Limits of all sources together, candidates included. They bound the memory of the compiled policies.
const (
	// MaxSources is the maximum number of sources.
	MaxSources = 48
	// MaxTotalSize is the maximum of the sum of [evaluator.Source.Size], in bytes.
	MaxTotalSize = 512 << 10
)

// Budget counts the sources that are loaded.
type Budget struct{ sources, size int }

// Add counts a source. It returns a result with a problem if the source exceeds a limit.
func (b *Budget) Add(source Source) *LoadResult {
	if source.NotFound != "" {
		return nil
	}
	size := min(source.Size(), evaluator.MaxRules) // a larger one is not loaded
	switch {
	case b.sources >= MaxSources:
		return &LoadResult{tooMany: fmt.Sprintf("older policies have %d sources, the maximum: delete policies or candidates", MaxSources)}
	case b.size+size > MaxTotalSize:
		return &LoadResult{tooMany: fmt.Sprintf("the sources of older policies and this one have %d bytes without tests, the maximum is %d: delete policies or candidates", b.size+size, MaxTotalSize)}
	}
	b.sources, b.size = b.sources+1, b.size+size
	return nil
}

// Loading returns the result of a source that is not loaded yet.
func Loading() LoadResult { return LoadResult{loading: true} }

// TakenOut returns the result of a source that was taken out before this process started.
func TakenOut() LoadResult { return LoadResult{takenOut: true} }

// testDigest returns the SHA-256, in lower-case hex, of everything that the result of tests depends on.
func (s Source) testDigest(minCoverage int32) string {
	sum := sha256.Sum256([]byte(fmt.Sprint(s.Digest(), " ", minCoverage, " ", evaluator.Version())))
	return hex.EncodeToString(sum[:])
}

// Tested returns the entry in status.tested for a source whose tests passed, or false.
func (r LoadResult) Tested() (v1alpha1.TestedSource, bool) {
	return v1alpha1.TestedSource{
		Digest: r.digest, Tests: int32(r.Tests.Tests), Percent: int32(r.Tests.Percent), //nolint:gosec // small
		NotCovered: r.Tests.NotCovered[:min(len(r.Tests.NotCovered), 16)],
	}, r.Usable() && r.digest != ""
}

// LoadTested loads a source without running its tests. It returns false if the source was not tested
// before. A source counts as tested if the status of the policy says so, which only the approver can
// write, or if it is a shipped one, whose tests run when Countersign is built.
func (l Loader) LoadTested(ctx context.Context, source Source, object *v1alpha1.ApprovalPolicy) (LoadResult, bool, error) {
	minCoverage := object.Spec.MinCoverage
	if source.NotFound != "" {
		result, err := l.Load(ctx, source, minCoverage)
		return result, true, err
	}
	result := LoadResult{minCoverage: minCoverage, digest: source.testDigest(minCoverage)}
	at := slices.IndexFunc(object.Status.Tested, func(t v1alpha1.TestedSource) bool { return t.Digest == result.digest })
	switch {
	case len(source.CheckSize()) > 0:
		return LoadResult{}, false, nil
	case at >= 0:
		tested := object.Status.Tested[at]
		result.Tests = evaluator.TestReport{Tests: int(tested.Tests), Percent: int(tested.Percent), NotCovered: tested.NotCovered}
	case shipped(source):
		result.Tests = evaluator.TestReport{Tests: countTests(source), Percent: 100}
	default:
		return LoadResult{}, false, nil
	}
	var err error
	result.compiled, err = evaluator.Compile(ctx, source.Source)
	if problems, ok := errors.AsType[evaluator.Errors](err); ok { // the parameters of a shipped policy
		result.Errors, result.Tests = problems, evaluator.TestReport{}
		return result, true, nil
	}
	return result, true, err
}

// shipped reports whether package and modules are those of a policy that Countersign ships.
func shipped(source Source) bool {
	return slices.ContainsFunc(policies.Builtins(), func(name string) bool {
		pkg, modules, _ := policies.Builtin(name)
		return pkg == source.Package && maps.Equal(modules, source.Modules)
	})
}

var testRule = regexp.MustCompile(`(?m)^test_\w+`)

// countTests returns the number of tests of a shipped policy.
func countTests(source Source) int {
	tests := map[string]bool{}
	for name, text := range source.Modules {
		if strings.HasSuffix(name, "_test.rego") {
			for _, test := range testRule.FindAllString(text, -1) {
				tests[name+test] = true
			}
		}
	}
	return len(tests)
}
