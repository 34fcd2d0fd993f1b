// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/internal/fairqueue"
)

// waiting is the requests that stay pending for now: since when, why, and what they wait for.
type waiting struct {
	mu        sync.Mutex
	requests  map[string]*wait // by name
	byAwaited map[facts.Awaited]map[string]bool
}

type wait struct {
	uid     types.UID
	item    fairqueue.Item
	since   time.Time // zero if it is not held
	message string
	awaits  []facts.Awaited
}

func newWaiting() *waiting {
	return &waiting{requests: map[string]*wait{}, byAwaited: map[facts.Awaited]map[string]bool{}}
}

// since is when the hold of a request began, or now if it is not held.
func (w *waiting) since(name string, uid types.UID, now time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if known := w.requests[name]; known != nil && known.uid == uid && !known.since.IsZero() {
		return known.since
	}
	return now
}

// put notes that a request waits. It returns true if that, or the message, is news.
func (w *waiting) put(item fairqueue.Item, uid types.UID, since time.Time, message string, awaits []facts.Awaited) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	known := w.requests[item.Name]
	news := known == nil || known.uid != uid || known.message != message
	w.remove(item.Name)
	w.requests[item.Name] = &wait{uid: uid, item: item, since: since, message: message, awaits: awaits}
	for _, key := range awaits {
		if w.byAwaited[key] == nil {
			w.byAwaited[key] = map[string]bool{}
		}
		w.byAwaited[key][item.Name] = true
	}
	return news
}

// forget ends the wait of a request.
func (w *waiting) forget(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.remove(name)
}

func (w *waiting) remove(name string) {
	known := w.requests[name]
	if known == nil {
		return
	}
	delete(w.requests, name)
	for _, key := range known.awaits {
		if delete(w.byAwaited[key], name); len(w.byAwaited[key]) == 0 {
			delete(w.byAwaited, key)
		}
	}
}

// awaiting lists the requests that wait for any of some things.
func (w *waiting) awaiting(keys []facts.Awaited) []fairqueue.Item {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []fairqueue.Item
	for _, key := range keys {
		for name := range w.byAwaited[key] {
			out = append(out, w.requests[name].item)
		}
	}
	return out
}
