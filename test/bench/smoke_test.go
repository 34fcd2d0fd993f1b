// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMain runs the null system if the arguments say so: bench starts its own binary for it.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == nullName {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestSmoke runs everything once with few requests, and checks that each ends as expected. It asserts no times.
func TestSmoke(t *testing.T) {
	r, err := run(t.Context(), short, "", os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	measured, hostile := map[string]int{}, 0
	for _, m := range r.Measured {
		measured[m.System] += m.Issued
		hostile += m.Hostile
		if m.Issued != m.Requests-m.Hostile || m.Denied != m.Hostile {
			t.Errorf("%s, %s, %s: of %d requests, %d of them hostile, %d were issued and %d denied", m.System, m.At, m.Load, m.Requests, m.Hostile, m.Issued, m.Denied)
		}
	}
	for _, system := range []string{countersign, nullName, kcm} {
		if measured[system] == 0 {
			t.Errorf("%s was not measured", system)
		}
	}
	if hostile == 0 {
		t.Error("no request was hostile")
	}
	if len(r.Growth) != 4 {
		t.Errorf("the growth has %d steps, want 4: %+v", len(r.Growth), r.Growth)
	}
	dir := t.TempDir()
	output, docs := filepath.Join(dir, "results.json"), filepath.Join(dir, "performance.md")
	if err := os.WriteFile(docs, []byte("before\n"+docsBegin+"\nold\n"+docsEnd+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := publish(r, output, docs, os.Stderr); err != nil {
		t.Fatal(err)
	}
	stored, err := readResults(output)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.Targets, stored.Targets); diff != "" {
		t.Errorf("results.json (-measured +stored):\n%s", diff)
	}
	text, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(text); !strings.HasPrefix(got, "before\n"+docsBegin) || !strings.HasSuffix(got, docsEnd+"\nafter\n") || strings.Contains(got, "old") || !strings.Contains(got, "| figure | target |") {
		t.Errorf("the documentation is not updated between its markers:\n%s", got)
	}
}

func TestWrong(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		name    string
		request request
		want    string
	}{
		{"issued", request{ended: now}, ""},
		{"hostile, denied", request{ended: now, hostile: true, failure: "Denied: no"}, ""},
		{"never ended", request{}, "request r has not ended"},
		{"hostile, issued", request{ended: now, hostile: true}, "hostile request r was issued a certificate"},
		{"denied", request{ended: now, failure: "Denied: no"}, "request r ended without a certificate: Denied: no"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := ""
			if err := wrong(map[string]*request{"r": &test.request}); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	many := map[string]*request{"a": {}, "b": {}, "c": {}, "d": {}, "e": {}}
	if got, want := wrong(many).Error(), "request a has not ended\nrequest b has not ended\nrequest c has not ended\nand 2 more"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRatioIsOfTheSameRound(t *testing.T) {
	m := func(system string, round int, rate float64) measurement {
		return measurement{At: comparison, System: system, Load: "burst", Round: round, PerSecond: rate}
	}
	r := &results{Measured: []measurement{
		m(countersign, 0, 100), m(nullName, 0, 200), m(nullName, 1, 400), m(countersign, 1, 100), m(countersign, 2, 300), m(nullName, 2, 300), m(countersign, 3, 1),
	}}
	if got := r.ratio(comparison, countersign, nullName); got != 0.5 {
		t.Errorf("got %v, want the median of 0.5, 0.25 and 1", got)
	}
}

func TestNumbers(t *testing.T) {
	for _, tc := range []struct{ q, want float64 }{{0.5, 2}, {0.99, 4}, {0, 1}} {
		if got := quantile([]time.Duration{time.Millisecond, 2 * time.Millisecond, 3 * time.Millisecond, 4 * time.Millisecond}, tc.q); got != tc.want {
			t.Errorf("quantile %v: got %v, want %v", tc.q, got, tc.want)
		}
	}
	for _, tc := range []struct {
		n    int
		want string
	}{{0, "0"}, {999, "999"}, {1000, "1,000"}, {1234567, "1,234,567"}} {
		if got := thousands(tc.n); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
	got, err := numbers("10, 20")
	if err != nil || !cmp.Equal(got, []int{10, 20}) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := numbers("10,none"); err == nil || err.Error() != `"none" is not a number of at least 1` {
		t.Errorf("got %v", err)
	}
}

func TestUsageOfThisProcess(t *testing.T) {
	if _, err := os.Stat("/proc/self/status"); errors.Is(err, os.ErrNotExist) {
		t.Skip("this system has no /proc")
	}
	if u := usageOf(os.Getpid()); u.residentMiB <= 0 || u.peakMiB < u.residentMiB {
		t.Errorf("got %+v", u)
	}
}
