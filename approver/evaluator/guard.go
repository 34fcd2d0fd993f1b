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
	// MaxMemory is the growth of the heap, in bytes, at which an evaluation is canceled.
	MaxMemory = 64 << 20
	// MaxExceeded is how often a policy can exceed Timeout or MaxMemory before it is taken out. Ten
	// evaluations within the limits make up for one.
	MaxExceeded = 3
	// MaxAbandoned is the age at which an evaluation that ignores its cancellation fails CheckAbandoned.
	MaxAbandoned = time.Minute

	watchInterval = 5 * time.Millisecond // between two reads of the heap; most evaluations end before the first
	grace         = 50 * time.Millisecond
	leastCPU      = Timeout / 10 // of this process, without which a node is overloaded
	within        = 10           // evaluations that make up for one that exceeds a limit
)

// ErrTooExpensive is the error of a policy that was taken out. It does not evaluate until its source
// changes.
var ErrTooExpensive = fmt.Errorf("evaluations exceeded %s or %d MiB of memory %d times", Timeout, MaxMemory>>20, MaxExceeded)

// errMemory is the error of an evaluation that was canceled because the heap grew.
var errMemory = fmt.Errorf("the evaluation used more than %d MiB of memory", MaxMemory>>20)

// slots bounds the evaluations in progress in this process. One policy uses at most half of them, so that
// another policy never waits for it.
var slots = make(chan struct{}, 2*max(2, runtime.GOMAXPROCS(0)))

// guard bounds the evaluations of one policy.
type guard struct {
	running  atomic.Int32
	exceeded atomic.Int32 // times within
	out      atomic.Bool
}

// maxRunning is the maximum number of evaluations of one policy.
var maxRunning = int32(cap(slots) / 2)

// TooExpensive reports whether the policy was taken out.
func (p *Policy) TooExpensive() bool { return p.guard != nil && p.guard.out.Load() }

// count counts an evaluation, and takes the policy out if too many exceeded a limit.
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

// acquire waits for a slot of the policy and one of the process.
func (g *guard) acquire(ctx context.Context) error {
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

// run runs a query, and abandons it if it does not end soon after a limit. An abandoned query keeps the
// slot of its policy until it ends.
func (g *guard) run(ctx context.Context, query func(topdown.Cancel) (rego.ResultSet, error)) (rego.ResultSet, error) {
	if g.out.Load() {
		return nil, ErrTooExpensive
	}
	if err := g.acquire(ctx); err != nil {
		return nil, err
	}
	defer func() { <-slots }()
	limited, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	e := &evaluation{started: time.Now(), cpu: cpuTime()}
	ended, w := topdown.NewCancel(), <-idle
	w.queries <- func() (answer, bool) {
		defer g.running.Add(-1)
		results, err := query(ended)
		return answer{results, err}, e.end()
	}
	a, limit := e.wait(limited, w.answers)
	if limit == nil {
		idle <- w
		g.count(false)
		return a.results, a.err
	}
	ended.Cancel()
	if ctx.Err() == nil && e.blamed(limit) {
		g.count(true)
	}
	select {
	case <-w.answers:
		idle <- w
	case <-time.After(grace):
		if e.abandon() {
			idle <- newWorker()
		} else { // it has just ended
			<-w.answers
			idle <- w
		}
	}
	return nil, limit
}

// evaluation is an evaluation in progress.
type evaluation struct {
	started time.Time
	cpu     time.Duration // of this process when it started
	decided atomic.Bool   // that the query ended before it was abandoned, or the reverse
}

// end reports whether the query was abandoned before it ended.
func (e *evaluation) end() bool {
	if e.decided.CompareAndSwap(false, true) {
		return false
	}
	abandoned.Delete(e)
	return true
}

// abandon reports whether the query is abandoned: it has not ended.
func (e *evaluation) abandon() bool {
	abandoned.Store(e, struct{}{})
	if e.decided.CompareAndSwap(false, true) {
		return true
	}
	abandoned.Delete(e)
	return false
}

// watched are the evaluations that did not end within watchInterval. abandoned are those that did not end
// after they were canceled.
var watched, abandoned sync.Map

// wait waits for an answer, or for the end of the context or of the memory.
func (e *evaluation) wait(ctx context.Context, done <-chan answer) (a answer, limit error) {
	tick := time.NewTimer(watchInterval)
	defer tick.Stop()
	baseline := uint64(0)
	for {
		select {
		case a = <-done:
			watched.Delete(e)
			return a, nil
		case <-ctx.Done():
			return a, ctx.Err()
		case <-tick.C:
			now := heapObjects()
			if baseline == 0 {
				watched.Store(e, struct{}{})
				baseline = now
			}
			if now > baseline+MaxMemory {
				return a, errMemory
			}
			tick.Reset(watchInterval)
		}
	}
}

// blamed reports whether the evaluation is the cause of exceeding a limit: it is the oldest one when the
// heap has grown, and this process got CPU time when the evaluation timed out.
func (e *evaluation) blamed(limit error) bool {
	defer watched.Delete(e)
	if !errors.Is(limit, errMemory) {
		return cpuTime()-e.cpu > leastCPU
	}
	oldest := true
	watched.Range(func(other, _ any) bool {
		o, ok := other.(*evaluation)
		oldest = oldest && (!ok || !o.started.Before(e.started))
		return oldest
	})
	return oldest
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
