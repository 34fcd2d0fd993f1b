// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/approver/review"
	"countersign.dev/countersign/internal/fairqueue"
)

// TestClocks: a policy holds a request for the sum of the times during which it holds it.
func TestClocks(t *testing.T) {
	h := newHolds()
	for i, by := range [][]string{{"a"}, {"b"}, {"a", "b"}, nil, {review.FactsTooLarge}, {"b"}} {
		h.put(fairqueue.Item{Name: "web"}, "u", since.Add(time.Duration(i)*time.Second), by, fmt.Sprint(i), nil)
	}
	_, got := h.clocks("web", "u", since.Add(6*time.Second))
	want := review.Clocks{Held: map[string]time.Duration{"a": 2 * time.Second, "b": 3 * time.Second, review.FactsTooLarge: time.Second}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, other := h.clocks("web", "other", since); other.Held != nil {
		t.Errorf("a request of the same name has %v", other)
	}
	for i := range 2 * maxClocks {
		h.put(fairqueue.Item{Name: "web"}, "u", since, []string{fmt.Sprint(i)}, "", nil)
	}
	if got := len(h.requests["web"].clocks); got != maxClocks {
		t.Errorf("%d clocks", got)
	}
}

// TestRecordsOfAHold: messages that change all the time make few records, and the latest is on record in the end.
func TestRecordsOfAHold(t *testing.T) {
	for _, tc := range []struct {
		name   string
		period time.Duration
		want   int
	}{
		{"at one time", 0, 1},
		{"a hold of 30 s", 30 * time.Second, 5},
		{"a day", 24 * time.Hour, 17},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, records := newHolds(), 0
			put := func(at time.Duration, message string) bool {
				return h.put(fairqueue.Item{Name: "web"}, "u", since.Add(at), []string{"a"}, message, nil)
			}
			for at := time.Duration(0); at <= tc.period; at += time.Second {
				for _, message := range []string{"a", "b", fmt.Sprint(at), ""} {
					if put(at, message) {
						records++
					}
				}
			}
			if records != tc.want {
				t.Errorf("%d records, want %d", records, tc.want)
			}
			if !put(tc.period+48*time.Hour, "latest") || put(tc.period+480*time.Hour, "latest") {
				t.Error("the latest message is not recorded once")
			}
		})
	}
}

// TestHoldsAreBounded measures what a held request takes, whatever its message and names are.
func TestHoldsAreBounded(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	for _, tc := range []struct {
		name          string
		awaits, bytes int
		want          uint64
	}{
		{"of a Pod", 2, 200, 1536},
		{"of a delegate with many long names", 64, 64 << 10, 5 << 10},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const count = 2000
			h := newHolds()
			before := heap()
			for i := range count {
				item := fairqueue.Item{Requester: fmt.Sprintf("system:serviceaccount:my-namespace:my-app %036d", i), Name: fmt.Sprintf("request-%d", i)}
				var awaits []facts.Awaited
				for j := range tc.awaits {
					awaits = append(awaits, facts.Awaited{Kind: "Pod", Namespace: "my-namespace", Name: fmt.Sprintf("pod-%d-%d", i, j)})
				}
				if !h.put(item, types.UID(fmt.Sprintf("%036d", i)), since, []string{"pod-serving"}, strings.Repeat("x", tc.bytes)+fmt.Sprint(i), awaits) {
					t.Fatal("a new request is not reported")
				}
			}
			got := (heap() - before) / count
			t.Logf("%d bytes", got)
			if got > tc.want {
				t.Errorf("a held request takes %d bytes, want at most %d", got, tc.want)
			}
			if n := len(h.awaiting([]facts.Awaited{{Kind: "Pod", Namespace: "my-namespace", Name: "pod-7-1"}})); n != 1 {
				t.Errorf("%d requests await a Pod, want 1", n)
			}
			for i := range count {
				h.remove(fmt.Sprintf("request-%d", i))
			}
			if len(h.requests)+len(h.byAwaited) > 0 {
				t.Errorf("%d requests and %d objects remain", len(h.requests), len(h.byAwaited))
			}
			runtime.KeepAlive(h)
		})
	}
}
