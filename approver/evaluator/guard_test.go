// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package evaluator

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"

	"countersign.dev/countersign/approver/facts"
)

// Conditions that are expensive only for a request with the name bomb, so that tests can pass.
const (
	endless      = `not bomb` + "\n}\n\n" + `bomb if {` + "\n" + `input.request.name == "bomb"` + "\nsome a in numbers.range(1, 10000)\nsome b in numbers.range(1, 10000)\nsome c in numbers.range(1, 10000)\na + b + c == -1"
	crossProduct = `not bomb` + "\n}\n\n" + `bomb if {` + "\n" + `input.request.name == "bomb"` + "\ncount([[a, b] | some a in numbers.range(1, 10000); some b in numbers.range(1, 10000)]) == 0"
	doublingBomb = `not bomb` + "\n}\n\n" + `bomb if {` + "\n" + `input.request.name == "bomb"` + "\ncount([s | some a in numbers.range(1, 9999); some b in numbers.range(1, 9999); s := sprintf(\"%d%d%s\", [a, b, concat(\"\", [input.request.name | some _ in numbers.range(1, 5000)])])]) == 0"
)

func inputOf(name string) *Input {
	return NewInput(&facts.Facts{Request: facts.Request{Name: name}})
}

// TestExpensivePolicyIsTakenOut: a policy that is expensive for some requests is taken out after
// MaxExceeded of them. The heap stays bounded, and a policy beside it decides throughout.
func TestExpensivePolicyIsTakenOut(t *testing.T) {
	honest, err := Compile(t.Context(), policyWith("true"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, condition string }{
		{"endless", endless},
		{"a cross product", crossProduct},
		{"large strings", doublingBomb},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := Compile(t.Context(), policyWith(tc.condition))
			if err != nil {
				t.Fatal(err)
			}
			runtime.GC()
			before, peak := heapObjects(), uint64(0)
			stop, stopped := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(stopped)
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Millisecond):
						peak = max(peak, heapObjects())
						if r, err := honest.Evaluate(context.Background(), inputOf("web")); err != nil || !r.Allowed {
							t.Errorf("the honest policy: %+v, %v", r, err)
						}
					}
				}
			}()
			evaluations := 0
			for deadline := time.Now().Add(time.Minute); !p.TooExpensive() && time.Now().Before(deadline); evaluations++ {
				if r, err := p.Evaluate(t.Context(), inputOf("web")); evaluations == 0 && (err != nil || !r.Allowed) {
					t.Errorf("a request that is not expensive: %+v, %v", r, err)
				}
				if _, err := p.Evaluate(t.Context(), inputOf("bomb")); !errors.Is(err, errCPU) && !errors.Is(err, errMemory) {
					t.Errorf("got %v", err)
				}
			}
			close(stop)
			<-stopped
			if !p.TooExpensive() || honest.TooExpensive() {
				t.Errorf("taken out: %v, the honest policy: %v", p.TooExpensive(), honest.TooExpensive())
			}
			if _, err := p.Evaluate(t.Context(), inputOf("web")); !errors.Is(err, ErrTooExpensive) {
				t.Errorf("after it was taken out: %v", err)
			}
			t.Logf("taken out after %d; the heap grew by %d MiB at most", evaluations, (peak-min(peak, before))>>20)
			if peak > before+4*MaxMemory {
				t.Errorf("the heap grew by %d MiB", (peak-before)>>20)
			}
		})
	}
}

// TestAbandoned: a query that ignores its cancellation holds no caller, and a slot of its own policy only.
func TestAbandoned(t *testing.T) {
	g, release := &guard{}, make(chan struct{})
	stuck := func(topdown.Cancel) (rego.ResultSet, error) {
		<-release
		return rego.ResultSet{}, errors.New("released")
	}
	var callers sync.WaitGroup
	start := time.Now()
	for range maxRunning + 2 { // two wait for a slot of the policy
		callers.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*Timeout)
			defer cancel()
			if _, err := g.run(ctx, &budget{}, stuck); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
	}
	callers.Wait()
	if waited := time.Since(start); waited > 3*Timeout {
		t.Errorf("callers were held for %s", waited)
	}
	if g.running.Load() != maxRunning || len(slots) != 0 || len(idle) != cap(slots) {
		t.Errorf("%d slots of the policy and %d of the process are in use, %d workers are idle", g.running.Load(), len(slots), len(idle))
	}
	if err := CheckAbandoned(); err != nil {
		t.Errorf("before MaxAbandoned: %v", err)
	}
	old := &evaluation{started: time.Now().Add(-MaxAbandoned - time.Second)}
	abandoned.Store(old, struct{}{})
	if err := CheckAbandoned(); err == nil {
		t.Error("an evaluation older than MaxAbandoned must be an error")
	}
	abandoned.Delete(old)
	close(release)
	for g.running.Load() > 0 && time.Since(start) < time.Minute {
		time.Sleep(time.Millisecond)
	}
	if g.running.Load() > 0 {
		t.Error("a slot is in use after the query ended")
	}
}

// TestExceededCount: ten evaluations within the limits make up for one beyond.
func TestExceededCount(t *testing.T) {
	g := &guard{}
	for range 5 {
		g.count(true)
		for range within {
			g.count(false)
		}
	}
	if g.out.Load() {
		t.Error("taken out although it made up")
	}
	for i := range MaxExceeded {
		if g.out.Load() {
			t.Errorf("taken out after %d", i)
		}
		g.count(true)
		g.count(false)
	}
	if !g.out.Load() {
		t.Error("not taken out")
	}
}

// TestStarvationIsNotBlamed: an evaluation that gets no CPU time before its timeout does not count against
// its policy, although other work of the process uses all CPUs.
func TestStarvationIsNotBlamed(t *testing.T) {
	var others sync.WaitGroup
	var stopped atomic.Bool
	for range runtime.GOMAXPROCS(0) {
		others.Go(func() {
			for i := 0; i%(1<<20) != 0 || !stopped.Load(); {
				i++
			}
		})
	}
	g := &guard{}
	_, err := g.run(t.Context(), &budget{}, func(topdown.Cancel) (rego.ResultSet, error) {
		time.Sleep(Timeout + grace/2)
		return rego.ResultSet{}, nil
	})
	stopped.Store(true)
	others.Wait()
	if !errors.Is(err, context.DeadlineExceeded) || g.exceeded.Load() != 0 {
		t.Errorf("error %v, %d evaluations count", err, g.exceeded.Load()/within)
	}
}

// TestSlowPoliciesTakeTurns: slow policies use one slot, a further caller fails, and other policies evaluate
// meanwhile.
func TestSlowPoliciesTakeTurns(t *testing.T) {
	fast, err := Compile(t.Context(), policyWith("true"))
	if err != nil {
		t.Fatal(err)
	}
	release, errReleased := make(chan struct{}), errors.New("released")
	wait := func(topdown.Cancel) (rego.ResultSet, error) {
		<-release
		return rego.ResultSet{}, errReleased
	}
	var callers sync.WaitGroup
	for range 1 + MaxSlowWaiting {
		slow := &guard{} // of another policy each
		slow.average.Store(int64(2 * slowCPU))
		callers.Go(func() {
			if _, err := slow.run(t.Context(), &budget{}, wait); !errors.Is(err, errReleased) {
				t.Errorf("within the bound: %v", err)
			}
		})
	}
	for len(slowSlot) < 1 || slowWaiting.Load() < MaxSlowWaiting {
		time.Sleep(time.Millisecond)
	}
	further := &guard{}
	further.average.Store(int64(2 * slowCPU))
	if _, err := further.run(t.Context(), &budget{}, wait); !errors.Is(err, errBusy) {
		t.Errorf("beyond the bound: %v", err)
	}
	if r, err := fast.Evaluate(t.Context(), inputOf("web")); err != nil || !r.Allowed {
		t.Errorf("another policy: %+v, %v", r, err)
	}
	if len(slots) != 1 {
		t.Errorf("slow policies use %d slots", len(slots))
	}
	close(release)
	callers.Wait()
	if len(slowSlot) != 0 || slowWaiting.Load() != 0 || len(slots) != 0 {
		t.Errorf("%d slots of slow policies and %d of the process are in use, %d wait", len(slowSlot), len(slots), slowWaiting.Load())
	}
}

// TestAverage: one evaluation of MaxCPU makes a policy slow, and a few cheap ones make it fast again.
func TestAverage(t *testing.T) {
	g := &guard{}
	g.measure(MaxCPU)
	if g.average.Load() <= int64(slowCPU) {
		t.Errorf("the average is %s after one evaluation of %s", time.Duration(g.average.Load()), MaxCPU)
	}
	for range averaged {
		g.measure(time.Millisecond)
	}
	if g.average.Load() > int64(slowCPU) {
		t.Errorf("the average is %s after %d cheap evaluations", time.Duration(g.average.Load()), averaged)
	}
}

// TestRequestBudget: all evaluations for one request share MaxRequestCPU, also those of different policies.
func TestRequestBudget(t *testing.T) {
	honest, err := Compile(t.Context(), policyWith("true"))
	if err != nil {
		t.Fatal(err)
	}
	bomb := inputOf("bomb")
	for range int(MaxRequestCPU / MaxCPU) {
		expensive, err := Compile(t.Context(), policyWith(endless))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := expensive.Evaluate(t.Context(), bomb); !errors.Is(err, errCPU) && !errors.Is(err, errRequestCPU) {
			t.Errorf("an expensive policy: %v", err)
		}
	}
	if _, err := honest.Evaluate(t.Context(), bomb); !errors.Is(err, errRequestCPU) {
		t.Errorf("the request has %s left: %v", bomb.budget.left(), err)
	}
	if r, err := honest.Evaluate(t.Context(), inputOf("web")); err != nil || !r.Allowed {
		t.Errorf("another request: %+v, %v", r, err)
	}
	if honest.guard.exceeded.Load() != 0 {
		t.Error("the budget of a request counts against a policy")
	}
}

// TestPanic: a query that panics is an error, and the worker runs the next one.
func TestPanic(t *testing.T) {
	g := &guard{}
	for range 2 * cap(slots) {
		_, err := g.run(t.Context(), &budget{}, func(topdown.Cancel) (rego.ResultSet, error) { panic("a defect of OPA") })
		if err == nil || g.running.Load() != 0 {
			t.Errorf("error %v, %d running", err, g.running.Load())
		}
	}
}
