// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package watchset

import (
	"context"
	"fmt"
	"slices"
	"unique"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// store holds the objects of one key. It implements cache.TransformingStore, which a reflector fills.
// The lock of the Set guards its fields.
type store[O client.Object, T any] struct {
	set  *Set[O, T]
	key  string
	ctx  context.Context //nolint:containedctx // ends with the watch
	stop context.CancelFunc

	synced  bool
	settled chan struct{} // closed when the objects have been listed, and when the key is dropped
	err     error         // of the latest list
	objects map[types.NamespacedName]*T
	indexes map[string]map[string][]*T // by the name of the index and the value
}

func newStore[O client.Object, T any](s *Set[O, T], key string) *store[O, T] {
	w := &store[O, T]{
		set: s, key: key, ctx: context.Background(), stop: func() {},
		settled: make(chan struct{}), objects: map[types.NamespacedName]*T{}, indexes: map[string]map[string][]*T{},
	}
	for name := range s.options.Indexes {
		w.indexes[name] = map[string][]*T{}
	}
	return w
}

// start runs the watch until ctx ends or stop is called.
func (w *store[O, T]) start(ctx context.Context) {
	ctx, w.stop = context.WithCancel(ctx) //nolint:gosec // drop calls it, or ctx ends
	w.ctx = ctx
	o := &w.set.options
	source := InPages(o.Source(w.key), func(object runtime.Object) (runtime.Object, error) {
		reduced, err := w.reduce(object)
		return &reduced, err
	})
	watched := cache.ToListerWatcherWithContext(source)
	observed := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list, err := watched.ListWithContext(ctx, o)
			if err != nil {
				w.failed(err)
			}
			return list, err
		},
		WatchFuncWithContext: watched.WatchWithContext,
	}, source)
	reflectorOptions := cache.ReflectorOptions{Name: fmt.Sprintf("%T %s", o.Object, w.key)}
	if o.Backoff.Steps > 0 {
		reflectorOptions.Backoff = new(o.Backoff)
	}
	go cache.NewReflectorWithOptions(observed, o.Object, w, reflectorOptions).RunWithContext(ctx)
}

// drop stops the watch.
func (w *store[O, T]) drop() {
	w.stop()
	w.settle()
}

func (w *store[O, T]) settle() {
	select {
	case <-w.settled:
	default:
		close(w.settled)
	}
}

// failed keeps the error of a list.
func (w *store[O, T]) failed(err error) {
	w.set.mu.Lock()
	isNew := fmt.Sprint(w.err) != fmt.Sprint(err)
	w.err = err
	w.set.mu.Unlock()
	if isNew {
		w.notify(nil)
	}
}

func (w *store[O, T]) notify(changes []Change[T]) {
	if w.ctx.Err() == nil {
		w.set.options.Changed(w.ctx, w.key, changes)
	}
}

// isChange reports whether callers are notified of a change.
func (w *store[O, T]) isChange(before, after *T) bool {
	same := w.set.options.Same
	return same == nil || (before == nil) != (after == nil) || before != nil && !same(before, after)
}

// item is an object reduced to the part that a store keeps, nil if it keeps nothing. It is a runtime.Object, so that it
// can be in a list.
type item[T any] struct {
	name types.NamespacedName
	part *T
}

// GetObjectKind implements runtime.Object.
func (*item[T]) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject implements runtime.Object. An item is not modified.
func (i *item[T]) DeepCopyObject() runtime.Object { return new(*i) }

func (w *store[O, T]) reduce(object any) (item[T], error) {
	switch object := object.(type) {
	case *item[T]:
		return *object, nil
	case O:
		name := types.NamespacedName{Name: object.GetName()}
		part := w.set.options.Keep(object)
		name.Namespace = unique.Make(object.GetNamespace()).Value() // one string per namespace, if part holds its handle
		return item[T]{name, part}, nil
	}
	return item[T]{}, fmt.Errorf("unexpected type %T, want %T", object, w.set.options.Object)
}

// Transformer reduces each object while the reflector collects the first list, so that memory never
// holds all complete objects.
func (w *store[O, T]) Transformer() cache.TransformFunc {
	return func(object any) (any, error) {
		o, err := w.reduce(object)
		return &o, err
	}
}

// Add adds or replaces an object.
func (w *store[O, T]) Add(object any) error {
	o, err := w.reduce(object)
	if err != nil {
		return err
	}
	w.put(o.name, o.part)
	return nil
}

// Update does the same as Add.
func (w *store[O, T]) Update(object any) error { return w.Add(object) }

// Delete removes an object.
func (w *store[O, T]) Delete(object any) error {
	o, err := w.reduce(object)
	if err != nil {
		return err
	}
	w.put(o.name, nil)
	return nil
}

func (w *store[O, T]) put(name types.NamespacedName, after *T) {
	w.set.mu.Lock()
	before := w.objects[name]
	w.replace(name, before, after)
	w.set.mu.Unlock()
	if (before != nil || after != nil) && w.isChange(before, after) {
		w.notify([]Change[T]{{before, after}})
	}
}

// Replace replaces all objects by those of a new list.
func (w *store[O, T]) Replace(objects []any, _ string) error {
	next := make(map[types.NamespacedName]*T, len(objects))
	for _, object := range objects {
		o, err := w.reduce(object)
		if err != nil {
			return err
		}
		if o.part != nil {
			next[o.name] = o.part
		}
	}
	var changes []Change[T]
	replace := func(name types.NamespacedName, after *T) {
		before := w.objects[name]
		w.replace(name, before, after)
		if w.isChange(before, after) {
			changes = append(changes, Change[T]{before, after})
		}
	}
	w.set.mu.Lock()
	for name := range w.objects {
		if next[name] == nil {
			replace(name, nil)
		}
	}
	for name, after := range next {
		replace(name, after)
	}
	first, recovered := !w.synced, w.err != nil
	w.synced, w.err = true, nil
	w.settle()
	w.set.mu.Unlock()
	if first || recovered || len(changes) > 0 {
		w.notify(changes)
	}
	return nil
}

// Resync does nothing: there is no queue.
func (w *store[O, T]) Resync() error { return nil }

// replace replaces an object, or removes it if after is nil. The Set is locked.
func (w *store[O, T]) replace(name types.NamespacedName, before, after *T) {
	if before != nil {
		for index, values := range w.set.options.Indexes {
			for _, value := range values(before) {
				unindex(w.indexes[index], value, before)
			}
		}
	}
	if after == nil {
		delete(w.objects, name)
		return
	}
	w.objects[name] = after
	for index, values := range w.set.options.Indexes {
		for _, value := range values(after) {
			w.indexes[index][value] = append(w.indexes[index][value], after)
		}
	}
}

func unindex[T any](index map[string][]*T, value string, object *T) {
	if rest := slices.DeleteFunc(index[value], func(other *T) bool { return other == object }); len(rest) > 0 {
		index[value] = rest
	} else {
		delete(index, value)
	}
}
