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
	"countersign.dev/countersign/approver/review"
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
	uid    types.UID
	item   fairqueue.Item
	since  time.Time // at which it was first held; zero if it is not held
	clocks []clock
	// reviewed is the time of the latest successful review, and late the number of successive late ones.
	reviewed time.Time
	late     int
	// message is the digest of the message on record: a message can have kilobytes.
	message  [sha256.Size]byte
	recorded time.Time
	records  uint
	awaits   []facts.Awaited
}

// clock is the duration for which a policy has held a request.
type clock struct {
	policy  string // or review.FactsTooLarge
	held    time.Duration
	holding bool // since the latest review
}

const (
	// maxInterval is the maximum time between two reviews that counts as time of a hold. A review after a
	// longer time is late.
	maxInterval = 2 * maxDelay
	// maxLate is the maximum number of successive late reviews that deny no request. On an approver that is
	// always late, holds end all the same.
	maxLate = 8
	// recordDelay is the minimum time between the first two records of a request that stays pending. It doubles
	// with each record: there are at most 5 in the first 30 s, and 17 in a day.
	recordDelay = time.Second
	// maxClocks is the maximum number of clocks of a request. Beyond it, the oldest starts again.
	maxClocks = 64
)

// maxAwaits is the maximum number of objects whose changes requeue one request. A request that awaits
// more is requeued after its delay.
const maxAwaits = 8

func newHolds() *holds {
	return &holds{requests: map[string]*hold{}, byAwaited: map[facts.Awaited]map[string]bool{}}
}

// clocks returns the time at which a request was first held, or now if it is not held, and for how
// long policies have held it.
func (h *holds) clocks(name string, uid types.UID, now time.Time) (since time.Time, clocks review.Clocks) {
	h.mu.Lock()
	defer h.mu.Unlock()
	held := h.requests[name]
	if held == nil || held.uid != uid || held.since.IsZero() {
		since = now
	} else {
		since = held.since
	}
	if held == nil || held.uid != uid {
		return since, review.Clocks{}
	}
	counted, late := held.count(now)
	clocks = review.Clocks{Held: make(map[string]time.Duration, len(counted)), Late: late > 0 && late <= maxLate}
	for _, c := range counted {
		clocks.Held[c.policy] = c.held
	}
	return since, clocks
}

// count returns the clocks at a review, and the number of successive late reviews.
func (h *hold) count(now time.Time) (clocks []clock, late int) {
	interval := max(now.Sub(h.reviewed), 0)
	if interval > maxInterval {
		interval, late = maxInterval, h.late+1
	}
	clocks = slices.Clone(h.clocks)
	for i := range clocks {
		if clocks[i].holding {
			clocks[i].held += interval
			clocks[i].holding = false
		}
	}
	return clocks, late
}

// put adds a request that stays pending, or updates it after a review at a time. heldBy are the policies that
// hold it. message is empty if there is nothing to record. put reports whether to record the message: it is not
// the one on record, and that one is old enough.
func (h *holds) put(item fairqueue.Item, uid types.UID, now time.Time, heldBy []string, message string, awaits []facts.Awaited) (record bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.requests[item.Name]
	if before != nil && before.uid != uid {
		before = nil
	}
	h.removeLocked(item.Name)
	awaits = slices.Clone(awaits[:min(len(awaits), maxAwaits)])
	held := &hold{uid: uid, item: item, reviewed: now, awaits: awaits}
	held.holdBy(heldBy, before)
	record = held.record(message, before)
	h.requests[item.Name] = held
	for _, key := range awaits {
		if h.byAwaited[key] == nil {
			h.byAwaited[key] = map[string]bool{}
		}
		h.byAwaited[key][item.Name] = true
	}
	return record
}

// record reports whether to record a message. before is the hold before, which can be nil.
func (h *hold) record(message string, before *hold) bool {
	if before != nil {
		h.message, h.recorded, h.records = before.message, before.recorded, before.records
	}
	if message == "" {
		return false
	}
	digest := sha256.Sum256([]byte(message))
	if h.records > 0 && (digest == h.message || h.reviewed.Sub(h.recorded) < recordDelay<<min(h.records-1, 30)) {
		return false
	}
	h.message, h.recorded = digest, h.reviewed
	h.records++
	return true
}

// holdBy continues the clocks of the hold before, which can be nil, and starts those of policies.
func (h *hold) holdBy(policies []string, before *hold) {
	if before != nil {
		h.clocks, h.late = before.count(h.reviewed)
	}
	if len(policies) == 0 {
		h.late = 0
		return
	}
	if h.since = h.reviewed; before != nil && !before.since.IsZero() {
		h.since = before.since
	}
	for _, name := range policies {
		i := slices.IndexFunc(h.clocks, func(c clock) bool { return c.policy == name })
		if i < 0 {
			h.clocks = append(h.clocks[max(0, len(h.clocks)-maxClocks+1):], clock{policy: name})
			i = len(h.clocks) - 1
		}
		h.clocks[i].holding = true
	}
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
