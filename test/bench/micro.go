// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"countersign.dev/countersign/test/cluster"
)

// The Go benchmarks of package approver/review that are in the table.
const (
	benchEvaluate = "BenchmarkEvaluate"
	benchOne      = "BenchmarkPolicies/1"
	benchMany     = "BenchmarkPolicies/200"
)

// microRow has the medians of a Go benchmark.
type microRow struct {
	Name         string  `json:"name"`
	Microseconds float64 `json:"microseconds"`
	Bytes        float64 `json:"bytes"`
	Allocations  float64 `json:"allocations"`
	// Runs are the microseconds of each run. Every benchmark runs once before the next run starts, so that runs with the
	// same index are comparable.
	Runs []float64 `json:"runs"`
}

// micro runs the benchmarks of package approver/review count times.
func micro(ctx context.Context, folder string, count int, out io.Writer) ([]microRow, error) {
	root, err := cluster.Root()
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(out, "-- running the Go benchmarks of package approver/review")
	binary := filepath.Join(folder, "approver.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, "./approver/review")
	build.Dir = root
	if output, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the benchmarks: %w\n%s", err, output)
	}
	var b benchmarks
	for i := range count {
		run := exec.CommandContext(ctx, binary, "-test.run=^$", "-test.bench=^Benchmark(Evaluate|Policies)$", "-test.benchmem", "-test.benchtime=0.3s")
		run.Dir = filepath.Join(root, "approver", "review")
		output, err := run.Output()
		if err != nil {
			return nil, fmt.Errorf("running the benchmarks: %w\n%s", err, output)
		}
		for line := range strings.Lines(string(output)) {
			b.add(line)
		}
		fmt.Fprintf(out, "   %d of %d runs\n", i+1, count)
	}
	return b.rows()
}

// benchmarks collects the results of several runs, by name in the order of the first run.
type benchmarks struct {
	order  []string
	byName map[string]*benchmark
}

type benchmark struct{ microseconds, bytes, allocations []float64 }

// add reads a line of the output of a benchmark. It ignores lines without a result.
func (b *benchmarks) add(line string) {
	var name string
	var n int
	var nanoseconds, size, allocated float64
	if _, err := fmt.Sscanf(line, "%s %d %f ns/op %f B/op %f allocs/op", &name, &n, &nanoseconds, &size, &allocated); err != nil {
		return
	}
	if dash := strings.LastIndex(name, "-"); dash > 0 { // the number of processors
		name = name[:dash]
	}
	if b.byName == nil {
		b.byName = map[string]*benchmark{}
	}
	one := b.byName[name]
	if one == nil {
		one = &benchmark{}
		b.byName[name] = one
		b.order = append(b.order, name)
	}
	one.microseconds = append(one.microseconds, nanoseconds/1000)
	one.bytes, one.allocations = append(one.bytes, size), append(one.allocations, allocated)
}

// rows returns the medians. It is an error if a benchmark of the table is missing.
func (b *benchmarks) rows() ([]microRow, error) {
	for _, name := range []string{benchEvaluate, benchOne, benchMany} {
		if !slices.Contains(b.order, name) {
			return nil, fmt.Errorf("package approver/review has no %s", name)
		}
	}
	var all []microRow
	for _, name := range b.order {
		one := b.byName[name]
		all = append(all, microRow{
			Name: name, Runs: one.microseconds,
			Microseconds: median(one.microseconds), Bytes: median(one.bytes), Allocations: median(one.allocations),
		})
	}
	return all, nil
}
