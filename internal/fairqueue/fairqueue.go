// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package fairqueue is a work queue for controllers that shares the workers fairly among requesters.
//
// The default queue of a controller is first in, first out: if one requester creates ten thousand
// requests, all other requesters wait for them. In this queue, requesters take turns. A request waits for at
// most one request of every other requester, however many requests they have.
//
// The requests of one requester are last in, first out. A requester that retries does not wait for its
// earlier requests, which the new one supersedes. If a requester creates more than can be handled, its
// oldest requests wait: it gives up on those first.
package fairqueue

import (
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/util/workqueue"

	"countersign.dev/countersign/internal/certreq"
)

// Item is an object to reconcile, in the share of a requester.
type Item struct {
	// Requester is any text that identifies the requester.
	Requester string
	// Name of the object.
	Name string
}

// ItemOf returns the Item of a request. The requester is its user or, with a token that is bound to a Pod,
// the Pod.
func ItemOf(csr *certificatesv1.CertificateSigningRequest) Item {
	return Item{Requester: csr.Spec.Username + " " + strings.Join(csr.Spec.Extra[certreq.PodUIDExtra], " "), Name: csr.Name}
}

// New returns a work queue for a controller. Pass it as controller.TypedOptions.NewQueue.
func New(name string, limiter workqueue.TypedRateLimiter[Item]) workqueue.TypedRateLimitingInterface[Item] {
	return workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[Item]{
		Name: name,
		DelayingQueue: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[Item]{
			Name:  name,
			Queue: workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[Item]{Name: name, Queue: &storage{items: map[string][]Item{}}}),
		}),
	})
}

// storage holds the items of a queue. The work queue removes duplicates and locks it.
type storage struct {
	items map[string][]Item // by requester, newest last
	turns []string          // requesters that have items, next first
	size  int
}

// Touch is called for an item that is in the queue already. The item keeps its place.
func (*storage) Touch(Item) {}

func (s *storage) Len() int { return s.size }

func (s *storage) Push(item Item) {
	if len(s.items[item.Requester]) == 0 {
		s.turns = append(s.turns, item.Requester)
	}
	s.items[item.Requester] = append(s.items[item.Requester], item)
	s.size++
}

func (s *storage) Pop() Item {
	requester := s.turns[0]
	s.turns = s.turns[1:]
	own := s.items[requester]
	last := len(own) - 1
	item := own[last]
	own[last] = Item{}
	if s.items[requester] = own[:last]; last > 0 {
		s.turns = append(s.turns, requester)
	} else {
		delete(s.items, requester)
	}
	s.size--
	return item
}
