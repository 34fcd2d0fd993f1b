// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Command mutate checks that the tests of the shipped policies detect changes of their Rego.
//
// It removes each condition of each rule in turn, each element of a set, each definition of a rule,
// and inverts retryable and requirement of each violation. A change of a policy must fail the tests
// of that policy. A change of the library must fail its tests, or those of a policy that imports it.
// survivors.txt lists the changes that no test detects, each with a reason. The command fails if
// another change survives, or if a listed one does not.
//
// Usage:
//
//	go run ./hack/mutate [-C dir] [text ...]
//
// With texts it only applies changes whose description contains one of them.
package main

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

//go:embed survivors.txt
var survivorsFile string

// parallel is the number of mutants that are tested at the same time.
const parallel = 2

func main() {
	dir := flag.String("C", "policies", "the `directory` with the policies")
	flag.Parse()
	debug.SetGCPercent(400)
	clean, err := run(context.Background(), *dir, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(2)
	}
	if !clean {
		os.Exit(1)
	}
}

// run tests the mutants, and reports whether exactly the listed ones survive.
func run(ctx context.Context, dir string, only []string) (bool, error) {
	listed, err := parseSurvivors(survivorsFile)
	if err != nil {
		return false, fmt.Errorf("survivors.txt: %w", err)
	}
	suites, err := load(ctx, dir)
	if err != nil {
		return false, err
	}
	results := test(ctx, suites, only)
	clean := true
	for _, r := range results {
		switch {
		case r.err != nil:
			return false, fmt.Errorf("%s: %w", r.id, r.err)
		case r.outcome == survived && !listed[r.id]:
			clean = false
			fmt.Printf("survives: %s\n", r.id)
		case r.outcome != survived && listed[r.id]:
			clean = false
			fmt.Printf("is detected, remove it from survivors.txt: %s\n", r.id)
		}
		delete(listed, r.id)
	}
	if len(only) > 0 {
		return clean, nil
	}
	for id := range listed {
		clean = false
		fmt.Printf("does not exist, remove it from survivors.txt: %s\n", id)
	}
	return clean, nil
}

// parseSurvivors parses survivors.txt: a comment with the reason, and the lines of the mutants that
// survive for this reason.
func parseSurvivors(text string) (map[string]bool, error) {
	out := map[string]bool{}
	reason := false
	for i, line := range strings.Split(text, "\n") {
		switch line = strings.TrimSpace(line); {
		case line == "":
			reason = false
		case strings.HasPrefix(line, "#"):
			reason = true
		case !reason:
			return nil, fmt.Errorf("line %d: no reason: add a comment above it", i+1)
		case out[line]:
			return nil, fmt.Errorf("line %d: listed twice", i+1)
		default:
			out[line] = true
		}
	}
	return out, nil
}

type result struct {
	id      string
	outcome outcome
	err     error
}

// test tests the mutants of all suites, and returns the results sorted by id.
func test(ctx context.Context, suites []*suite, only []string) []result {
	type job struct {
		suite *suite
		mutant
	}
	var jobs []job
	for _, s := range suites {
		for _, m := range mutants(s.file, s.modules[s.file]) {
			if len(only) == 0 || slices.ContainsFunc(only, func(text string) bool { return strings.Contains(m.id, text) }) {
				jobs = append(jobs, job{s, m})
			}
		}
	}
	p := progress{start: time.Now(), all: len(jobs), counts: map[outcome]int{}}
	queue := make(chan job)
	var workers sync.WaitGroup
	for range parallel {
		workers.Go(func() {
			for j := range queue {
				outcome, err := j.suite.test(ctx, j.module)
				p.add(result{j.id, outcome, err})
			}
		})
	}
	for _, j := range jobs {
		queue <- j
	}
	close(queue)
	workers.Wait()
	slices.SortFunc(p.results, func(a, b result) int { return strings.Compare(a.id, b.id) })
	return p.results
}

// progress collects results, and prints their number.
type progress struct {
	start time.Time
	all   int

	mu      sync.Mutex
	results []result
	counts  map[outcome]int
}

func (p *progress) add(r result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[r.outcome]++
	p.results = append(p.results, r)
	if done := len(p.results); done%50 == 0 || done == p.all {
		fmt.Fprintf(os.Stderr, "%d of %d after %s: %d detected, %d do not compile, %d survive\n",
			done, p.all, time.Since(p.start).Round(time.Second), p.counts[detected], p.counts[invalid], p.counts[survived])
	}
}
