// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// evaluating gives every evaluation in this process its turn.
var evaluating = make(turns, runtime.GOMAXPROCS(0))

// turns has no more work done at a time than there is room for, and on a stack that ends with it.
//
// Rego needs deep stacks, which grow while it is evaluated and stay so for long after. Those of 32
// workers were a sixth of what a burst had in use, and the collector lets the heap grow with stacks
// as with what is live. An evaluation only computes, so that more of them than there are processors
// would not end any sooner.
type turns chan struct{}

// do does work once it is its turn, and returns when it is done. If work panics so does do, with
// the text and the stack of that panic: whoever calls it recovers as if it had done the work itself.
func (t turns) do(work func()) {
	t <- struct{}{}
	done := make(chan any)
	go func() {
		defer func() {
			var failed any
			if r := recover(); r != nil {
				failed = fmt.Sprintf("%v\n\n%s", r, debug.Stack())
			}
			<-t
			done <- failed
		}()
		work()
	}()
	if failed := <-done; failed != nil {
		panic(failed)
	}
}
