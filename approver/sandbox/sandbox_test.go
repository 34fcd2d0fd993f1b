// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/sandbox/limits"
	"countersign.dev/countersign/policies"
)

const allow = `package countersign.mine

import rego.v2

subject_controls_key := true

subject_is_authorized := true

violations contains v if some v in []
`

// tested returns a policy with one test.
func tested(body string) evaluator.Source {
	return evaluator.Source{Package: "countersign.mine", Modules: map[string]string{
		"mine.rego":      allow,
		"mine_test.rego": "package countersign.mine_test\n\nimport rego.v2\n\nimport data.countersign.mine\n\ntest_it if {\n\tmine.subject_controls_key\n" + body + "\n}\n",
	}}
}

// nested returns statements whose types OPA expands exponentially.
func nested(n int) string {
	var b strings.Builder
	b.WriteString("\nendless if {\n\tx0 := input.request.name\n\ty0 := input.request.kind\n")
	for i := range n {
		fmt.Fprintf(&b, "\tx%[2]d := [x%[1]d, x%[1]d]\n\ty%[2]d := [y%[1]d, y%[1]d]\n", i, i+1)
	}
	return b.String() + fmt.Sprintf("\tx%[1]d == y%[1]d\n}\n", n)
}

// TestCheck: the result is the same as in this process.
func TestCheck(t *testing.T) {
	pkg, modules, _ := policies.Builtin("spiffe")
	for _, tc := range []struct {
		name   string
		source evaluator.Source
	}{
		{"a test passes", tested("true")},
		{"a test fails", tested("false")},
		{"no tests", evaluator.Source{Package: "countersign.mine", Modules: map[string]string{"mine.rego": allow}}},
		{"it does not compile", evaluator.Source{Package: "countersign.mine", Modules: map[string]string{"mine.rego": allow + "x if input.x\n"}}},
		{"parameters", evaluator.Source{Package: "countersign.mine", Modules: map[string]string{"mine.rego": allow, "parameters.schema.json": `{"type": "object", "required": ["a"]}`}, Parameters: map[string]any{"b": 1.5}}},
		{"a shipped policy", evaluator.Source{Package: pkg, Modules: modules}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Check(t.Context(), tc.source)
			if err != nil {
				t.Fatal(err)
			}
			want, err := evaluator.Check(t.Context(), tc.source, func() error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-in this process +got):\n%s", diff)
			}
		})
	}
}

// TestLimits: a source that exceeds a limit has a problem, and this process uses neither the time nor the
// memory.
func TestLimits(t *testing.T) {
	for _, tc := range []struct {
		name     string
		source   evaluator.Source
		compiled bool
		want     string
	}{
		{"an endless test", tested("some a in numbers.range(1, 10000)\nsome b in numbers.range(1, 10000)\nsome c in numbers.range(1, 10000)\na + b + c == -1"), true, "the tests used more than 10 s of CPU time"},
		{"a cross product", tested("count([[a, b] | some a in numbers.range(1, 10000); some b in numbers.range(1, 10000)]) == -1"), true, "the tests used more than 128 MiB of memory"},
		{"exponential types", evaluator.Source{Package: "countersign.mine", Modules: map[string]string{"mine.rego": allow + nested(20)}}, false, "compiling the source used more than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			start, before := time.Now(), usage(t)
			got, err := Check(t.Context(), tc.source)
			if err != nil {
				t.Fatal(err)
			}
			problems := append(got.Errors, got.Tests.Failures...)
			if got.Compiled != tc.compiled || len(problems) != 1 || !strings.HasPrefix(problems[0].Message, tc.want) {
				t.Errorf("got %+v, want %s", got, tc.want)
			}
			t.Logf("%s after %s", problems, time.Since(start))
			if used := usage(t) - before; used > time.Second {
				t.Errorf("this process used %s of CPU time", used)
			}
		})
	}
}

func usage(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestSizes: sources at the limit are accepted, sources beyond have a problem.
func TestSizes(t *testing.T) {
	sized := func(name string, length int) evaluator.Source {
		modules := map[string]string{"mine.rego": allow}
		s := evaluator.Source{Package: "countersign.mine", Modules: modules, Parameters: map[string]any{}}
		used := len("{}") + len("mine.rego") + len(allow) + len(name)
		modules[name] = strings.TrimSpace("package countersign.x\n\nimport rego.v2\n\n# ")
		modules[name] += strings.Repeat("x", length-used-len(modules[name]))
		return s
	}
	files := evaluator.Source{Package: "countersign.mine", Modules: map[string]string{"mine.rego": allow}}
	for i := range evaluator.MaxModules - 1 {
		files.Modules[fmt.Sprintf("m%d.rego", i)] = fmt.Sprintf("package countersign.m%d\n\nimport rego.v2\n\nx := 1\n", i)
	}
	more := evaluator.Source{Package: files.Package, Modules: map[string]string{"one_more.rego": "package x\n"}}
	maps.Copy(more.Modules, files.Modules)
	for _, tc := range []struct {
		name   string
		source evaluator.Source
		want   string
	}{
		{"rules at the limit", sized("x.rego", evaluator.MaxRules), ""},
		{"rules beyond", sized("x.rego", evaluator.MaxRules+1), "the parameters and the files that are not tests have 65537 bytes, the maximum is 65536"},
		{"tests at the limit", sized("x_test.rego", evaluator.MaxSource), ""},
		{"tests beyond", sized("x_test.rego", evaluator.MaxSource+1), "the files and the parameters have 262145 bytes, the maximum is 262144"},
		{"files at the limit", files, ""},
		{"files beyond", more, "the source has 33 files, the maximum is 32"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Check(t.Context(), tc.source)
			if err != nil || (tc.want == "") != got.Compiled || !got.Compiled && got.Errors.Error() != tc.want {
				t.Errorf("got %+v, %v; want %s", got, err, tc.want)
			}
		})
	}
}

// TestBusy: callers beyond the maximum are rejected, and a caller whose context ends does not wait.
func TestBusy(t *testing.T) {
	turn <- struct{}{} // another source is being tested
	defer func() { <-turn }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Check(ctx, tested("true")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a deadline: %v", err)
	}
	for range cap(queue) {
		queue <- struct{}{}
	}
	if _, err := Check(t.Context(), tested("true")); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v, want %v", err, ErrBusy)
	}
	for range cap(queue) {
		<-queue
	}
}

// TestCancel: the process ends with the context.
func TestCancel(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	start := time.Now()
	_, err := Check(ctx, tested("some a in numbers.range(1, 10000)\nsome b in numbers.range(1, 10000)\nsome c in numbers.range(1, 10000)\na + b + c == -1"))
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 5*time.Second {
		t.Errorf("got %v after %s", err, time.Since(start))
	}
}

// TestProblemOf: an end that the source did not cause is not its problem.
func TestProblemOf(t *testing.T) {
	const sigkill = syscall.WaitStatus(9)
	exited := func(status int) syscall.WaitStatus { return syscall.WaitStatus(status << 8) }
	for _, tc := range []struct {
		name     string
		status   syscall.WaitStatus
		cpu      time.Duration
		stderr   string
		compiled bool
		want     string
	}{
		{"killed by someone", sigkill, time.Second, "", true, ""},
		{"killed for its CPU time", sigkill, limits.TotalCPU * time.Second, "", true, "the tests used more than 10 s of CPU time: remove loops over large values"},
		{"killed while compiling", exited(2), limits.CompileCPU * time.Second, "CPU time limit exceeded", false, "compiling the source used more than 2 s of CPU time: remove loops over large values"},
		{"a stack overflow", exited(2), time.Second, "fatal error: stack overflow\n\ngoroutine 1", false, "compiling the source ended the process: fatal error: stack overflow"},
		{"no memory for a thread", exited(2), time.Second, "runtime/cgo: pthread_create failed: Resource temporarily unavailable\nSIGABRT: abort", true, "the tests used more than 128 MiB of memory: remove values that grow"},
		{"limits cannot be set", exited(1), 0, "setting limits: operation not permitted", false, ""},
	} {
		got, ok := problemOf(tc.status, tc.cpu, tc.stderr, tc.compiled)
		if got != tc.want || ok != (tc.want != "") {
			t.Errorf("%s: %q, %v", tc.name, got, ok)
		}
	}
}

func TestHead(t *testing.T) {
	h := &head{max: 5}
	for range 3 {
		if n, err := h.Write([]byte("abc")); n != 3 || err != nil {
			t.Fatal(n, err)
		}
	}
	if h.String() != "abcab" {
		t.Errorf("got %q", h)
	}
}
