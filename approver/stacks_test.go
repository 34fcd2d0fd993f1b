// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// goroutine is the one that calls it, as runtime.Stack calls it.
func goroutine() string {
	text := make([]byte, 64)
	name, _, _ := bytes.Cut(text[:runtime.Stack(text, false)], []byte(" ["))
	return string(name)
}

func TestStacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 2
		s := newStacks(n)
		defer func() { // the goroutines end with the test
			for range n {
				if used := <-s; used != nil {
					close(used.work)
				}
			}
		}()
		release, inside := make(chan struct{}), make(chan string, 10)
		start := func() {
			go s.do(func() {
				inside <- goroutine()
				<-release
			})
		}
		for range n + 1 {
			start()
		}
		synctest.Wait()
		if len(inside) != n {
			t.Fatalf("%d work at a time, want %d", len(inside), n)
		}
		first := map[string]bool{<-inside: true, <-inside: true}

		release <- struct{}{}
		if next := <-inside; !first[next] {
			t.Error("the next works on a goroutine of its own, want one of those before")
		}

		start()
		time.Sleep(patience - 1)
		synctest.Wait()
		if len(inside) != 0 {
			t.Error("one more works before it has waited long")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if len(inside) != 1 || first[<-inside] {
			t.Error("one that has waited long is not working on a goroutine of its own")
		}
		close(release)
	})
}

func TestStacks_panic(t *testing.T) {
	s := newStacks(1)
	for range 2 { // the stack is given back
		func() {
			defer func() {
				if text, _ := recover().(string); !strings.HasPrefix(text, "a fault\n") || !strings.Contains(text, "stacks_test.go") {
					t.Errorf("got %q, want the fault and where it was", text)
				}
			}()
			s.do(func() { panic("a fault") })
		}()
	}
}
