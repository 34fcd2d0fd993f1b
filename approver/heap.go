// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"math"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// tryGCPercent is GOGC while a source is tried. Its tests leave some hundred megabytes behind, of
// which little is in use at any time: without it, they and not requests set the peak of the process.
const tryGCPercent = 30

// tryHeap keeps the heap of this process small while sources are tried.
var tryHeap smallHeap

// smallHeap lowers GOGC to [tryGCPercent] while somebody needs it. If GOGC is lower, or off, it
// stays as whoever runs the process has set it.
type smallHeap struct {
	mu      sync.Mutex
	users   int
	lowered bool
	before  int // GOGC before it was lowered
}

// use keeps the heap small until done is called, which must be once.
func (h *smallHeap) use() (done func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users++; h.users == 1 && gcPercent() > tryGCPercent {
		h.lowered, h.before = true, debug.SetGCPercent(tryGCPercent)
	}
	return h.done
}

func (h *smallHeap) done() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users--; h.users == 0 && h.lowered {
		h.lowered = false
		debug.SetGCPercent(h.before)
	}
}

// gcPercent is GOGC as it is now, or -1 if it is off.
func gcPercent() int {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return -1
	}
	percent := sample[0].Value.Uint64()
	if percent > math.MaxInt32 {
		return -1
	}
	return int(percent)
}
