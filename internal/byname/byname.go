// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package byname keeps the objects of some names as they are in the cluster, and of each no more
// than is needed.
//
// Each name is listed and watched by a field selector on it, which is what lets RBAC limit the
// verbs list and watch by resourceNames (RBAC takes the name from the selector). Objects of other
// names are never asked for.
package byname

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// retry paces the attempts to read what may not be read, or from an API server that does not
// answer: a mended RBAC rule is noticed within 2 s.
var retry = wait.Backoff{Duration: 250 * time.Millisecond, Factor: 2, Steps: 8, Cap: 2 * time.Second}

// Kind says which objects are kept, and what of them.
type Kind[T any] struct {
	// Client lists and watches.
	Client client.WithWatch
	// Object and List are empty ones of the kind.
	Object client.Object
	List   client.ObjectList
	// Namespace of the objects. Empty means all, or none for a kind that has none.
	Namespace string
	// Strip returns what is kept of an object.
	Strip func(client.Object) T
	// Same reports whether the difference between two states of an object is no news.
	Same func(a, b T) bool
	// Changed is called with a name after each change of what Get returns for it, but for one that
	// is no news. It may block; until it returns, nothing further is seen of the name.
	Changed func(ctx context.Context, name string)
}

// State is what is known of the objects of a name.
type State[T any] struct {
	// Read is true once they were read, and stays so.
	Read bool
	// Err is that of the last attempt to read them. What was read before is kept.
	Err error
	// Objects by their namespace.
	Objects map[string]T
}

// Watcher keeps objects as long as Start runs.
type Watcher[T any] struct {
	kind Kind[T]

	mu    sync.Mutex
	ctx   context.Context // of Start; nil before
	names map[string]*store[T]
}

// New makes a Watcher that watches nothing yet.
func New[T any](kind Kind[T]) *Watcher[T] {
	return &Watcher[T]{kind: kind, names: map[string]*store[T]{}}
}

// Start watches until ctx ends.
func (w *Watcher[T]) Start(ctx context.Context) error {
	w.mu.Lock()
	w.ctx = ctx
	for _, s := range w.names {
		w.run(s)
	}
	w.mu.Unlock()
	<-ctx.Done()
	return nil
}

// Keep makes names those that are watched: others are dropped and forgotten.
func (w *Watcher[T]) Keep(names map[string]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.names, func(name string, s *store[T]) bool {
		if !names[name] && s.stop != nil {
			s.stop()
		}
		return !names[name]
	})
	for name := range names {
		if w.names[name] != nil {
			continue
		}
		s := &store[T]{kind: &w.kind, name: name, state: State[T]{Objects: map[string]T{}}}
		w.names[name] = s
		if w.ctx != nil {
			w.run(s)
		}
	}
}

// Get returns what is known of a name; of one that is not kept, nothing is.
func (w *Watcher[T]) Get(name string) State[T] {
	w.mu.Lock()
	s := w.names[name]
	w.mu.Unlock()
	if s == nil {
		return State[T]{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.state
	state.Objects = maps.Clone(state.Objects)
	return state
}

// run starts to watch a name. w.mu is held.
func (w *Watcher[T]) run(s *store[T]) {
	ctx, stop := context.WithCancel(w.ctx) //nolint:gosec // Keep stops it, or the end of Start does
	s.stop = stop
	s.changed = func() {
		if ctx.Err() == nil {
			w.kind.Changed(ctx, s.name)
		}
	}
	selection := func(o metav1.ListOptions) *client.ListOptions {
		return &client.ListOptions{
			Namespace:     w.kind.Namespace,
			FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, s.name),
			Raw:           &o,
		}
	}
	list := func() client.ObjectList {
		return w.kind.List.DeepCopyObject().(client.ObjectList) // a copy is of the same type
	}
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			found := list()
			if err := w.kind.Client.List(ctx, found, selection(o)); err != nil {
				s.failed(err)
				return nil, err
			}
			return found, nil
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return w.kind.Client.Watch(ctx, list(), selection(o))
		},
	}
	backoff := retry
	reflector := cache.NewReflectorWithOptions(source, w.kind.Object, s, cache.ReflectorOptions{
		Name:    fmt.Sprintf("%T %s/%s", w.kind.Object, w.kind.Namespace, s.name),
		Backoff: &backoff,
	})
	go reflector.RunWithContext(ctx)
}

// store is what is known of one name. It implements cache.ReflectorStore.
type store[T any] struct {
	kind    *Kind[T]
	name    string
	stop    context.CancelFunc
	changed func()

	mu    sync.Mutex
	state State[T]
}

// failed notes that the name could not be read.
func (s *store[T]) failed(err error) {
	s.mu.Lock()
	news := fmt.Sprint(s.state.Err) != fmt.Sprint(err)
	s.state.Err = err
	s.mu.Unlock()
	if news {
		s.changed()
	}
}

func (s *store[T]) strip(object any) (namespace string, _ T, _ error) {
	o, ok := object.(client.Object)
	if !ok || o.GetName() != s.name {
		var none T
		return "", none, fmt.Errorf("watching %s: unexpected object %T", s.name, object)
	}
	return o.GetNamespace(), s.kind.Strip(o), nil
}

// Add puts one object in the place of the one before.
func (s *store[T]) Add(object any) error {
	namespace, now, err := s.strip(object)
	if err != nil {
		return err
	}
	s.mu.Lock()
	before, found := s.state.Objects[namespace]
	s.state.Objects[namespace] = now
	s.mu.Unlock()
	if !found || !s.kind.Same(before, now) {
		s.changed()
	}
	return nil
}

// Update is Add.
func (s *store[T]) Update(object any) error { return s.Add(object) }

// Delete takes one object away.
func (s *store[T]) Delete(object any) error {
	namespace, _, err := s.strip(object)
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.state.Objects, namespace)
	s.mu.Unlock()
	s.changed()
	return nil
}

// Replace puts all objects that there are in the place of those before.
func (s *store[T]) Replace(objects []any, _ string) error {
	next := State[T]{Read: true, Objects: make(map[string]T, len(objects))}
	for _, object := range objects {
		namespace, now, err := s.strip(object)
		if err != nil {
			return err
		}
		next.Objects[namespace] = now
	}
	s.mu.Lock()
	before := s.state
	s.state = next
	s.mu.Unlock()
	if !before.Read || before.Err != nil || !maps.EqualFunc(before.Objects, next.Objects, s.kind.Same) {
		s.changed()
	}
	return nil
}

// Resync does nothing: nothing is derived from what is kept.
func (s *store[T]) Resync() error { return nil }
