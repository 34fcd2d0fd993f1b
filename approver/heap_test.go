// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"context"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"countersign.dev/countersign/approver/evaluator"
)

// watched calls look whenever work asks its context for a deadline, as running the tests of a policy does.
type watched struct {
	context.Context
	look func()
}

func (w watched) Deadline() (time.Time, bool) {
	w.look()
	return w.Context.Deadline()
}

var tested = Source{Source: evaluator.Source{Package: "heap", Modules: map[string]string{
	"heap.rego":      "package heap\n\nimport rego.v2\n\nsubject_controls_key := true\n\nsubject_is_authorized := true\n\nviolations := set()\n",
	"heap_test.rego": "package heap_test\n\nimport rego.v2\n\nimport data.heap\n\ntest_authorized if heap.subject_is_authorized\n",
}}}

// setGOGC sets GOGC for one test.
func setGOGC(t *testing.T, percent int) {
	before := debug.SetGCPercent(percent)
	t.Cleanup(func() { debug.SetGCPercent(before) })
}

func TestHeapIsSmallWhileASourceIsTried(t *testing.T) {
	for _, tc := range []struct{ set, want int }{{100, 30}, {31, 30}, {30, 30}, {20, 20}, {0, 0}, {-1, -1}} {
		setGOGC(t, tc.set)
		during := []int{}
		ctx := watched{t.Context(), func() { during = append(during, gcPercent()) }}
		attempt, err := Loader{}.Try(ctx, tested, 0)
		if err != nil || !attempt.Usable() {
			t.Fatal(err, attempt.Error())
		}
		if len(during) == 0 {
			t.Fatal("nobody looked")
		}
		for _, got := range during {
			if got != tc.want {
				t.Errorf("GOGC %d, while trying: %d, want %d", tc.set, got, tc.want)
			}
		}
		if got := gcPercent(); got != tc.set {
			t.Errorf("GOGC %d, afterwards: %d", tc.set, got)
		}
	}
}

func TestHeapIsAsBeforeAfterAPanic(t *testing.T) {
	setGOGC(t, 100)
	func() {
		defer func() {
			if got := recover(); got != "a fault" {
				t.Errorf("got %v", got)
			}
		}()
		_, _ = Loader{}.Try(watched{t.Context(), func() { panic("a fault") }}, tested, 0)
	}()
	if got := gcPercent(); got != 100 {
		t.Errorf("GOGC is left at %d", got)
	}
}

func TestHeapIsSmallUntilTheLastIsDone(t *testing.T) {
	setGOGC(t, 100)
	var h smallHeap
	first, second := h.use(), h.use()
	first()
	if got := gcPercent(); got != tryGCPercent {
		t.Errorf("while there is another: %d", got)
	}
	second()
	if got := gcPercent(); got != 100 {
		t.Errorf("after all: %d", got)
	}
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 20 {
				done := h.use()
				if got := gcPercent(); got != tryGCPercent {
					t.Errorf("among many: %d", got)
				}
				done()
			}
		})
	}
	all.Wait()
	if got := gcPercent(); got != 100 {
		t.Errorf("after many: %d", got)
	}
}
