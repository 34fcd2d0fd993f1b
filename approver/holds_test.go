// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/internal/fairqueue"
)

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
				if !h.put(item, types.UID(fmt.Sprintf("%036d", i)), since, strings.Repeat("x", tc.bytes)+fmt.Sprint(i), awaits) {
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
