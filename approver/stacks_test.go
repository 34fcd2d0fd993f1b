// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestTurns(t *testing.T) {
	const room = 2
	turns := newTurns(room)
	var working, most atomic.Int32
	var all sync.WaitGroup
	done := make([]bool, 100)
	for i := range done {
		all.Go(func() {
			turns.do(func() {
				now := working.Add(1)
				for before := most.Load(); now > before && !most.CompareAndSwap(before, now); before = most.Load() {
				}
				done[i] = true
				working.Add(-1)
			})
			if !done[i] {
				t.Errorf("%d: do returned before the work was done", i)
			}
		})
	}
	all.Wait()
	if most.Load() > room {
		t.Errorf("%d at a time, want at most %d", most.Load(), room)
	}
}

func TestTurnsPassOnAPanic(t *testing.T) {
	turns := newTurns(1)
	for range 2 { // the turn is given back
		func() {
			defer func() {
				if text, _ := recover().(string); !strings.HasPrefix(text, "a fault\n") || !strings.Contains(text, "turns_test.go") {
					t.Errorf("got %q, want the fault and where it was", text)
				}
			}()
			turns.do(func() { panic("a fault") })
		}()
	}
}
