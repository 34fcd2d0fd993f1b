// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package watchset keeps the objects of several watches in memory, and only the part of each object
// that the caller needs.
//
// A [Set] runs one list and watch per key. A key selects objects on the API server: a name, a
// signerName, or everything. Objects that no key selects are never sent. RBAC can limit list and watch
// by resourceNames only for watches by name, see [ByName].
//
// The caller must not modify what a Set returns, and [Options.Keep] must return the same result for the
// same object. A Set does not read from the API server on demand and does not write to it.
package watchset

import (
	"context"
	"iter"
	"maps"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Options configure a [Set] of objects of type O, of which it keeps a *T each.
type Options[O client.Object, T any] struct {
	// Object is an empty object of the kind. Objects of other types are an error. Required.
	Object O
	// Source returns the list and watch of a key. Required.
	Source func(key string) cache.ListerWatcher
	// Backoff delays the retries of a list or watch that failed. The zero value means client-go's
	// default, which is up to a minute.
	Backoff wait.Backoff
	// Keep returns the part of an object to keep. Nil drops the object. Keep can modify the object and
	// return a part of it. Required.
	Keep func(O) *T
	// Same reports whether Changed can skip the difference between two states of an object.
	// If nil, Changed is called for every event.
	Same func(a, b *T) bool
	// Indexes by name. Each returns the values that [Set.ByIndex] finds an object by.
	Indexes map[string]func(*T) []string
	// Changed is called after objects of a key have changed, after the first list of a key, and when
	// the error of a key has changed. Changes is empty if no object has changed. Changed can block
	// until ctx ends: until it returns, the Set handles no further event of the key. Required.
	Changed func(ctx context.Context, key string, changes []Change[T])
}

// Change is the change of one object. Before is nil for a new object, After for a removed one.
type Change[T any] struct{ Before, After *T }

// State is the state of a key.
type State[T any] struct {
	// Synced is true once the objects have been listed, and stays true.
	Synced bool
	// Err is the error of the latest list, nil if it succeeded. Objects of earlier lists are kept.
	Err error
	// Objects that are kept, by namespace and name.
	Objects map[types.NamespacedName]*T
}

// Set keeps objects as long as Start runs. It is safe for concurrent use. [New] returns one.
type Set[O client.Object, T any] struct {
	options Options[O, T]

	mu      sync.RWMutex
	ctx     context.Context //nolint:containedctx // of Start, for watches that start later; nil before
	watches map[string]*store[O, T]
}

// New makes a Set that watches nothing yet: call Keep and Start, in any order.
func New[O client.Object, T any](o Options[O, T]) *Set[O, T] {
	return &Set[O, T]{options: o, watches: map[string]*store[O, T]{}}
}

// NeedLeaderElection returns false: a standby replica keeps its objects up to date.
func (*Set[O, T]) NeedLeaderElection() bool { return false }

// Start watches until ctx ends.
func (s *Set[O, T]) Start(ctx context.Context) error {
	s.mu.Lock()
	s.ctx = ctx
	for _, w := range s.watches {
		w.start(ctx)
	}
	s.mu.Unlock()
	<-ctx.Done()
	return nil
}

// Keep sets the keys that are watched. It stops the watches of other keys and drops their objects.
func (s *Set[O, T]) Keep(keys map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.watches, func(key string, w *store[O, T]) bool {
		if !keys[key] {
			w.drop()
		}
		return !keys[key]
	})
	for key := range keys {
		if s.watches[key] != nil {
			continue
		}
		w := newStore(s, key)
		s.watches[key] = w
		if s.ctx != nil {
			w.start(s.ctx)
		}
	}
}

// Synced reports whether the objects of all keys have been listed.
func (s *Set[O, T]) Synced() bool { return s.unsynced() == nil }

// WaitForSync waits until the objects of all keys have been listed. The error is that of ctx.
func (s *Set[O, T]) WaitForSync(ctx context.Context) error {
	for {
		w := s.unsynced()
		if w == nil {
			return nil
		}
		select {
		case <-w.settled:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Set[O, T]) unsynced() *store[O, T] {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, w := range s.watches {
		if !w.synced {
			return w
		}
	}
	return nil
}

// State returns the state of a key. It is empty if the key is not watched.
func (s *Set[O, T]) State(key string) State[T] {
	s.mu.RLock()
	defer s.mu.RUnlock()
	w := s.watches[key]
	if w == nil {
		return State[T]{}
	}
	return State[T]{Synced: w.synced, Err: w.err, Objects: maps.Clone(w.objects)}
}

// Get returns the objects with a name. There are two if one of two watches lags behind.
func (s *Set[O, T]) Get(name types.NamespacedName) []*T {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found []*T
	for _, w := range s.watches {
		if object := w.objects[name]; object != nil {
			found = append(found, object)
		}
	}
	return found
}

// List returns the objects of some keys, or of all keys if none are given.
func (s *Set[O, T]) List(keys ...string) []*T {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found []*T
	for key, w := range s.watches {
		if len(keys) == 0 || slices.Contains(keys, key) {
			found = slices.AppendSeq(found, maps.Values(w.objects))
		}
	}
	return found
}

// ByIndex iterates over the objects that an index has under a value. The Set is locked meanwhile: do
// not call it from the loop.
func (s *Set[O, T]) ByIndex(index, value string) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		s.mu.RLock()
		defer s.mu.RUnlock()
		for _, w := range s.watches {
			for _, object := range w.indexes[index][value] {
				if !yield(object) {
					return
				}
			}
		}
	}
}

// Store returns the store that the watch of a key fills, nil if the key is not watched. Tests fill it
// without an API server.
func (s *Set[O, T]) Store(key string) cache.TransformingStore {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if w := s.watches[key]; w != nil {
		return w
	}
	return nil
}
