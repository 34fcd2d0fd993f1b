// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"crypto/sha256"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/internal/fairqueue"
)

// holds are the requests that stay pending: held requests, and requests without an opinion. It
// finds the requests to requeue when an object changes. A request takes about 1.2 KiB, and at most 5 KiB.
type holds struct {
	mu        sync.Mutex
	requests  map[string]*hold // by name
	byAwaited map[facts.Awaited]map[string]bool
}

// hold is a request that stays pending.
type hold struct {
	uid     types.UID
	item    fairqueue.Item
	since   time.Time         // zero if the request is not held
	message [sha256.Size]byte // its digest: a message can have kilobytes
	awaits  []facts.Awaited
}

// maxAwaits is the maximum number of objects whose changes requeue one request. A request that awaits
// more is requeued after its delay.
const maxAwaits = 8

func newHolds() *holds {
	return &holds{requests: map[string]*hold{}, byAwaited: map[facts.Awaited]map[string]bool{}}
}

// since returns the time at which the hold of a request began, or now if it is not held.
func (h *holds) since(name string, uid types.UID, now time.Time) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if held := h.requests[name]; held != nil && held.uid == uid && !held.since.IsZero() {
		return held.since
	}
	return now
}

// put adds a request that stays pending, or updates it. It reports whether the request is new, or
// its message has changed.
func (h *holds) put(item fairqueue.Item, uid types.UID, since time.Time, message string, awaits []facts.Awaited) (changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before, digest := h.requests[item.Name], sha256.Sum256([]byte(message))
	h.removeLocked(item.Name)
	awaits = slices.Clone(awaits[:min(len(awaits), maxAwaits)])
	h.requests[item.Name] = &hold{uid: uid, item: item, since: since, message: digest, awaits: awaits}
	for _, key := range awaits {
		if h.byAwaited[key] == nil {
			h.byAwaited[key] = map[string]bool{}
		}
		h.byAwaited[key][item.Name] = true
	}
	return before == nil || before.uid != uid || before.message != digest
}

// remove removes a request. It does nothing if the request is not in holds.
func (h *holds) remove(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.removeLocked(name)
}

func (h *holds) removeLocked(name string) {
	held := h.requests[name]
	if held == nil {
		return
	}
	delete(h.requests, name)
	for _, key := range held.awaits {
		if delete(h.byAwaited[key], name); len(h.byAwaited[key]) == 0 {
			delete(h.byAwaited, key)
		}
	}
}

// awaiting returns the requests that await any of some objects.
func (h *holds) awaiting(keys []facts.Awaited) []fairqueue.Item {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []fairqueue.Item
	for _, key := range keys {
		for name := range h.byAwaited[key] {
			out = append(out, h.requests[name].item)
		}
	}
	return out
}
