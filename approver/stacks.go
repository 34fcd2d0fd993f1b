// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// evaluating gives every evaluation in this process its turn.
var evaluating = newTurns(runtime.GOMAXPROCS(0))

// turns has no more work done at a time than there are of them, each on a goroutine that stays.
//
// Rego needs deep stacks, which grow while it is evaluated, for a tenth of what the evaluation costs. 32
// workers that each had theirs were a sixth of what a burst had in use, and the collector lets the heap
// grow with stacks as with what is live. An evaluation only computes, so that more of them than there
// are processors would not end any sooner.
type turns chan *turn

// turn is a goroutine that works; nil until it is wanted for the first time.
type turn struct {
	work chan func()
	done chan any // why the work panicked, or nil
}

func newTurns(n int) turns {
	t := make(turns, n)
	for range n {
		t <- nil
	}
	return t
}

// do does work once it is its turn, and returns when it is done. If work panics so does do, with
// the text and the stack of that panic: whoever calls it recovers as if it had done the work itself.
func (t turns) do(work func()) {
	mine := <-t
	if mine == nil {
		mine = &turn{work: make(chan func()), done: make(chan any)}
		go mine.run()
	}
	mine.work <- work
	failed := <-mine.done
	t <- mine
	if failed != nil {
		panic(failed)
	}
}

func (t *turn) run() {
	for work := range t.work {
		t.done <- panicOf(work)
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
