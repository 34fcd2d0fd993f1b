// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package fairqueue

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"k8s.io/client-go/util/workqueue"
)

func newQueue() workqueue.TypedRateLimitingInterface[Item] {
	return New("", workqueue.NewTypedItemExponentialFailureRateLimiter[Item](time.Millisecond, time.Second))
}

func take(t *testing.T, queue workqueue.TypedRateLimitingInterface[Item], n int) []string {
	t.Helper()
	var names []string
	for range n {
		item, shutdown := queue.Get()
		if shutdown {
			t.Fatal("the queue is shut down")
		}
		names = append(names, item.Name)
		queue.Done(item)
	}
	return names
}

func TestQueue_fair(t *testing.T) {
	queue := newQueue()
	for i := range 10000 {
		queue.Add(Item{"flood", fmt.Sprint("flood-", i)})
	}
	queue.Add(Item{"jane", "jane-1"})
	queue.Add(Item{"joe", "joe-1"})
	queue.Add(Item{"joe", "joe-2"})
	want := []string{"flood-9999", "jane-1", "joe-2", "flood-9998", "joe-1", "flood-9997", "flood-9996"}
	if got := take(t, queue, len(want)); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if queue.Len() != 10003-len(want) {
		t.Errorf("%d left", queue.Len())
	}
}

func TestQueue_newestFirst(t *testing.T) {
	queue := newQueue()
	for _, name := range []string{"old", "older", "old", "new"} { // an item that is added again keeps its place
		queue.Add(Item{"jane", name})
	}
	if got, want := take(t, queue, 3), []string{"new", "older", "old"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestQueue_addDuringWork(t *testing.T) {
	queue := newQueue()
	item := Item{"jane", "a"}
	queue.Add(item)
	got, _ := queue.Get()
	queue.Add(item)
	if queue.Len() != 0 {
		t.Error("two workers get the same item")
	}
	queue.Done(got)
	if second := take(t, queue, 1); second[0] != "a" {
		t.Errorf("got %v", second)
	}
	queue.AddRateLimited(item)
	if second := take(t, queue, 1); second[0] != "a" {
		t.Errorf("after an error: got %v", second)
	}
	if queue.Len() != 0 {
		t.Errorf("%d left", queue.Len())
	}
}
