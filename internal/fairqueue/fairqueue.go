// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package fairqueue is a work queue whose turns are shared out by who asks.
//
// A controller's queue is first come, first served: one requester that makes ten thousand
// requests has everybody else wait for all of them. Here every requester with work in the
// queue has one turn in each round, so that one request waits for no more than a turn of
// every other requester, however many requests they have.
//
// Of one requester's requests the newest comes first. Who asks again, because an answer is
// late, does not wait for what the new request supersedes; who makes more than can be worked
// on has the eldest wait, which it has given up on first.
package fairqueue

import (
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/util/workqueue"

	"countersign.dev/countersign/internal/certreq"
)

// Item is a piece of work and whose share it comes out of.
type Item struct {
	// Requester whose share it is; any text that tells one from another.
	Requester string
	// Name of the object to work on.
	Name string
}

// ItemOf is a certificate request, in the share of the user that made it, or of the Pod.
func ItemOf(csr *certificatesv1.CertificateSigningRequest) Item {
	return Item{Requester: csr.Spec.Username + " " + strings.Join(csr.Spec.Extra[certreq.PodUIDExtra], " "), Name: csr.Name}
}

// New makes a work queue for a controller; pass it as controller.TypedOptions.NewQueue.
func New(name string, limiter workqueue.TypedRateLimiter[Item]) workqueue.TypedRateLimitingInterface[Item] {
	return workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[Item]{
		Name: name,
		DelayingQueue: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[Item]{
			Name:  name,
			Queue: workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[Item]{Name: name, Queue: &storage{waiting: map[string][]Item{}}}),
		}),
	})
}

// storage is what is in the queue. The work queue around it keeps items apart and calls it
// from one goroutine at a time.
type storage struct {
	waiting map[string][]Item // by requester, the newest last
	turns   []string          // the requesters that have something waiting, the next first
	size    int
}

// Touch is called for an item that is in the queue already: it keeps its place.
func (*storage) Touch(Item) {}

func (s *storage) Len() int { return s.size }

func (s *storage) Push(item Item) {
	if len(s.waiting[item.Requester]) == 0 {
		s.turns = append(s.turns, item.Requester)
	}
	s.waiting[item.Requester] = append(s.waiting[item.Requester], item)
	s.size++
}

func (s *storage) Pop() Item {
	requester := s.turns[0]
	s.turns = s.turns[1:]
	items := s.waiting[requester]
	last := len(items) - 1
	item := items[last]
	items[last] = Item{}
	if s.waiting[requester] = items[:last]; last > 0 {
		s.turns = append(s.turns, requester)
	} else {
		delete(s.waiting, requester)
	}
	s.size--
	return item
}
