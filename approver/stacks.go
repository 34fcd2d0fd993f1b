// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"time"
)

// evaluating are what the evaluations in this process are done on.
var evaluating = newStacks(runtime.GOMAXPROCS(0))

// patience is how long an evaluation waits for a stack. A policy that is evaluated in less than a
// millisecond never keeps others waiting so long; one that runs into its timeout must not either.
const patience = 100 * time.Millisecond

// stacks are goroutines that stay, for work that needs a deep stack.
//
// Rego does, and growing one takes a tenth of what an evaluation costs. 32 workers that each had theirs
// took a sixth of what a burst had in use, and the collector lets the heap grow with stacks as with
// what is live. An evaluation only computes: as many at a time as there are processors are enough.
type stacks chan *stack

// stack is a goroutine that works; nil until it is wanted for the first time.
type stack struct {
	work chan func()
	done chan any // why the work panicked, or nil
}

func newStacks(n int) stacks {
	s := make(stacks, n)
	for range n {
		s <- nil
	}
	return s
}

// do does work on one of the stacks, or on the caller's own if none is free for too long, and returns when it is
// done. If work panics so does do, with the text and the stack of that panic: whoever calls it
// recovers as if it had done the work itself.
func (s stacks) do(work func()) {
	var mine *stack
	select {
	case mine = <-s:
	default:
		select {
		case mine = <-s:
		case <-time.After(patience):
			work()
			return
		}
	}
	if mine == nil {
		mine = &stack{work: make(chan func()), done: make(chan any)}
		go mine.run()
	}
	mine.work <- work
	failed := <-mine.done
	s <- mine
	if failed != nil {
		panic(failed)
	}
}

func (s *stack) run() {
	for work := range s.work {
		s.done <- panicOf(work)
	}
}

func panicOf(work func()) (failed any) {
	defer func() {
		if r := recover(); r != nil {
			failed = fmt.Sprintf("%v\n\n%s", r, debug.Stack())
		}
	}()
	work()
	return nil
}
