// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package evaluator

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// Limits of evaluations.
const (
	// MaxCPU is the CPU time at which an evaluation is canceled. A shipped policy needs less than a millisecond, and
	// 4 for 64 names.
	MaxCPU = 100 * time.Millisecond
	// MaxRequestCPU is the CPU time of all evaluations over the facts of one request, shadow policies and
	// candidates included. Evaluations beyond it fail.
	MaxRequestCPU = 2 * MaxCPU
	// MaxMemory is the growth of the heap, in bytes, at which an evaluation is canceled. The heap is that of the
	// process, so the evaluation is not necessarily the cause.
	MaxMemory = 64 << 20
	// MaxExceeded is the number of evaluations above MaxCPU that disable a policy. Ten evaluations within the
	// limit reduce the count by one.
	MaxExceeded = 3
	// MaxAbandoned is the age at which an evaluation that ignores its cancellation fails CheckAbandoned.
	MaxAbandoned = time.Minute
	// MaxSlowWaiting is the number of evaluations of slow policies that wait for their turn. Further ones fail.
	MaxSlowWaiting = 4

	watchInterval = 5 * time.Millisecond // between two checks; most evaluations end before the first
	grace         = 50 * time.Millisecond
	within        = 10                    // evaluations that reduce the count of MaxExceeded by one
	slowCPU       = 10 * time.Millisecond // average above which a policy is slow
	averaged      = 8                     // evaluations in the average
)

// ErrTooExpensive is the error of a disabled policy. It is not evaluated until its spec changes.
var ErrTooExpensive = fmt.Errorf("evaluations exceeded %s of CPU time %d times", MaxCPU, MaxExceeded)

// Errors of a canceled evaluation. The caller retries: an error is not a verdict.
var (
	errCPU        = fmt.Errorf("the evaluation used more than %s of CPU time", MaxCPU)
	errRequestCPU = fmt.Errorf("the evaluations for the request used more than %s of CPU time", MaxRequestCPU)
	errMemory     = fmt.Errorf("the heap grew by more than %d MiB during the evaluation", MaxMemory>>20)
	errBusy       = fmt.Errorf("%d evaluations of policies that need more than %s are already queued", MaxSlowWaiting, slowCPU)
)

// slots bounds the evaluations in progress in this process. One policy uses at most half of them, so that
// another policy never waits for it. All slow policies together use one: see [guard.acquire].
var slots = make(chan struct{}, 2*max(2, runtime.GOMAXPROCS(0)))

var (
	slowSlot    = make(chan struct{}, 1)
	slowWaiting atomic.Int32
)

// guard bounds the evaluations of one policy.
type guard struct {
	running  atomic.Int32
	exceeded atomic.Int32 // times within
	average  atomic.Int64 // CPU time, in nanoseconds
	out      atomic.Bool
}

// maxRunning is the maximum number of evaluations of one policy.
var maxRunning = int32(cap(slots) / 2)

// TooExpensive reports whether the policy is disabled.
func (p *Policy) TooExpensive() bool { return p.guard != nil && p.guard.out.Load() }

// count counts an evaluation, and disables the policy if too many exceeded MaxCPU.
func (g *guard) count(exceeds bool) {
	for {
		before := g.exceeded.Load()
		after := max(0, before-1)
		if exceeds {
			after = before + within
		}
		if before == after || g.exceeded.CompareAndSwap(before, after) {
			if after > (MaxExceeded-1)*within {
				g.out.Store(true)
			}
			return
		}
	}
}

// measure adds an evaluation to the average.
func (g *guard) measure(cpu time.Duration) {
	before := g.average.Load()
	g.average.Add((int64(cpu) - before) / averaged) // concurrent evaluations make it inexact
}

// acquire waits for a slot of the policy and one of the process. Slow policies share one slot with a short
// queue, so that they cannot delay other policies.
func (g *guard) acquire(ctx context.Context) (release func(), err error) {
	releaseSlow := func() {}
	if g.average.Load() > int64(slowCPU) {
		if releaseSlow, err = acquireSlow(ctx); err != nil {
			return nil, err
		}
	}
	if err := g.acquireFast(ctx); err != nil {
		releaseSlow()
		return nil, err
	}
	return func() { <-slots; releaseSlow() }, nil
}

func acquireSlow(ctx context.Context) (release func(), err error) {
	defer slowWaiting.Add(-1)
	if slowWaiting.Add(1) > MaxSlowWaiting {
		return nil, errBusy
	}
	select {
	case slowSlot <- struct{}{}:
		return func() { <-slowSlot }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting to evaluate: %w", ctx.Err())
	}
}

func (g *guard) acquireFast(ctx context.Context) error {
	for g.running.Add(1) > maxRunning {
		g.running.Add(-1)
		select {
		case <-time.After(watchInterval):
		case <-ctx.Done():
			return fmt.Errorf("waiting to evaluate: %w", ctx.Err())
		}
	}
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		g.running.Add(-1)
		return fmt.Errorf("waiting to evaluate: %w", ctx.Err())
	}
}

// answer is the result of a query.
type answer struct {
	results rego.ResultSet
	err     error
}

// worker is a goroutine that runs queries. A query needs a deep stack: a new goroutine would have to grow
// its own, which doubles the CPU time of an evaluation.
type worker struct {
	queries chan func() (answer, bool)
	answers chan answer
}

// idle are the workers without a query. There is one for each slot.
var idle = func() chan *worker {
	c := make(chan *worker, cap(slots))
	for range cap(slots) {
		c <- newWorker()
	}
	return c
}()

func newWorker() *worker {
	w := &worker{queries: make(chan func() (answer, bool)), answers: make(chan answer, 1)}
	go func() {
		for query := range w.queries {
			a, abandoned := query()
			if abandoned {
				return
			}
			w.answers <- a
		}
	}()
	return w
}

// run runs a query, and abandons it if it does not end soon after it is canceled. An abandoned query keeps the
// slot of its policy until it ends. budget is the CPU time that the request has left.
func (g *guard) run(ctx context.Context, budget *budget, query func(topdown.Cancel) (rego.ResultSet, error)) (rego.ResultSet, error) {
	if g.out.Load() {
		return nil, ErrTooExpensive
	}
	if budget.left() <= 0 {
		return nil, errRequestCPU
	}
	release, err := g.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	limited, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	e := &evaluation{started: time.Now()}
	ended, w := topdown.NewCancel(), <-idle
	w.queries <- func() (answer, bool) {
		defer g.running.Add(-1)
		runtime.LockOSThread() // its CPU time is that of the query
		defer runtime.UnlockOSThread()
		e.meter.Store(newMeter())
		results, err := recovered(query, ended)
		g.measure(e.used())
		budget.spend(e.used())
		return answer{results, err}, e.end()
	}
	a, limit := e.wait(limited, budget, w.answers)
	if limit == nil {
		idle <- w
		g.count(false)
		return a.results, a.err
	}
	ended.Cancel()
	if errors.Is(limit, errCPU) {
		g.count(true)
	}
	select {
	case <-w.answers:
		idle <- w
	case <-time.After(grace):
		if e.abandon() {
			budget.spend(MaxRequestCPU)
			idle <- newWorker()
		} else { // it has just ended
			<-w.answers
			idle <- w
		}
	}
	return nil, limit
}

// recovered runs a query, and returns an error if it panics.
func recovered(query func(topdown.Cancel) (rego.ResultSet, error), ended topdown.Cancel) (results rego.ResultSet, err error) {
	defer func() {
		if problem := recover(); problem != nil {
			err = fmt.Errorf("the evaluation panicked: %v", problem)
		}
	}()
	return query(ended)
}

// budget is the CPU time that the evaluations for one request have used.
type budget struct{ used atomic.Int64 }

func (b *budget) left() time.Duration { return MaxRequestCPU - time.Duration(b.used.Load()) }

func (b *budget) spend(cpu time.Duration) { b.used.Add(int64(cpu)) }

// evaluation is an evaluation in progress.
type evaluation struct {
	started time.Time
	meter   atomic.Pointer[meter] // nil until the query starts
	decided atomic.Bool           // that the query ended before it was abandoned, or the reverse
}

// used returns the CPU time of the query.
func (e *evaluation) used() time.Duration {
	if m := e.meter.Load(); m != nil {
		return m.used()
	}
	return 0
}

// end marks the query as ended, and reports whether it was abandoned before.
func (e *evaluation) end() bool {
	if e.decided.CompareAndSwap(false, true) {
		return false
	}
	abandoned.Delete(e)
	return true
}

// abandon marks the query as abandoned, and reports false if it has ended.
func (e *evaluation) abandon() bool {
	abandoned.Store(e, struct{}{})
	if e.decided.CompareAndSwap(false, true) {
		return true
	}
	abandoned.Delete(e)
	return false
}

// abandoned are the evaluations that did not end after they were canceled.
var abandoned sync.Map

// wait waits for an answer, or until the evaluation reaches a limit.
func (e *evaluation) wait(ctx context.Context, budget *budget, done <-chan answer) (a answer, limit error) {
	tick := time.NewTimer(watchInterval)
	defer tick.Stop()
	heap := uint64(0)
	for {
		select {
		case a = <-done:
			return a, nil
		case <-ctx.Done():
			return a, ctx.Err()
		case <-tick.C:
			now := heapObjects()
			if heap == 0 {
				heap = now
			}
			switch used := e.used(); {
			case used > MaxCPU:
				return a, errCPU
			case used > budget.left():
				return a, errRequestCPU
			case now > heap+MaxMemory:
				return a, errMemory
			}
			tick.Reset(watchInterval)
		}
	}
}

// CheckAbandoned returns an error if an evaluation ignores its cancellation for longer than MaxAbandoned.
// It uses a CPU, and only a restart ends it.
func CheckAbandoned() error {
	var err error
	abandoned.Range(func(key, _ any) bool {
		if e, ok := key.(*evaluation); ok && time.Since(e.started) > MaxAbandoned {
			err = fmt.Errorf("an evaluation did not end when it was canceled, and has been running for %s", time.Since(e.started).Round(time.Second))
		}
		return err == nil
	})
	return err
}

// heapObjects returns the size of the objects on the heap, including garbage.
func heapObjects() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
