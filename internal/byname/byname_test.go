// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package byname

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func configMap(namespace, name, color string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"not": "kept"}},
		Data:       map[string]string{"color": color},
	}
}

func newWatcher() *Watcher[string] {
	return New(Kind[string]{
		Object: &corev1.ConfigMap{}, List: &corev1.ConfigMapList{},
		Strip: func(o client.Object) string { return o.(*corev1.ConfigMap).Data["color"] },
		Same:  func(a, b string) bool { return a == b },
	})
}

// TestStore goes through what a reflector reports of one name, in this order.
func TestStore(t *testing.T) {
	w := newWatcher()
	w.Keep(map[string]bool{"one": true}) // Start was not called: nothing is asked of the nil client
	changes := 0
	s := w.names["one"]
	s.changed = func() { changes++ }
	refused, away := errors.New("forbidden"), errors.New("connection refused")
	failed := func(err error) func() error {
		return func() error { s.failed(err); return nil }
	}
	type objects = map[string]string
	relabelled := configMap("a", "one", "red")
	relabelled.Labels = nil

	for _, step := range []struct {
		name    string
		do      func() error
		want    State[string]
		changes bool
		err     string
	}{
		{"refused", failed(refused), State[string]{Err: refused, Objects: objects{}}, true, ""},
		{"refused again", failed(errors.New("forbidden")), State[string]{Err: refused, Objects: objects{}}, false, ""},
		{"there is none", func() error { return s.Replace(nil, "1") }, State[string]{Read: true, Objects: objects{}}, true, ""},
		{"still none", func() error { return s.Replace(nil, "2") }, State[string]{Read: true, Objects: objects{}}, false, ""},
		{"one", func() error { return s.Add(configMap("a", "one", "red")) }, State[string]{Read: true, Objects: objects{"a": "red"}}, true, ""},
		{"one in another namespace", func() error { return s.Add(configMap("b", "one", "red")) }, State[string]{Read: true, Objects: objects{"a": "red", "b": "red"}}, true, ""},
		{"edited", func() error { return s.Update(configMap("b", "one", "blue")) }, State[string]{Read: true, Objects: objects{"a": "red", "b": "blue"}}, true, ""},
		{"edited where nobody looks", func() error { return s.Update(relabelled) }, State[string]{Read: true, Objects: objects{"a": "red", "b": "blue"}}, false, ""},
		{"of another name", func() error { return s.Add(configMap("a", "two", "red")) }, State[string]{Read: true, Objects: objects{"a": "red", "b": "blue"}}, false, "watching one: unexpected object *v1.ConfigMap"},
		{"the API server is away", failed(away), State[string]{Read: true, Err: away, Objects: objects{"a": "red", "b": "blue"}}, true, ""},
		{"and there again", func() error {
			return s.Replace([]any{configMap("a", "one", "red"), configMap("b", "one", "blue")}, "3")
		}, State[string]{Read: true, Objects: objects{"a": "red", "b": "blue"}}, true, ""},
		{"deleted", func() error { return s.Delete(configMap("a", "one", "red")) }, State[string]{Read: true, Objects: objects{"b": "blue"}}, true, ""},
		{"listed again", func() error { return s.Replace([]any{configMap("b", "one", "blue")}, "4") }, State[string]{Read: true, Objects: objects{"b": "blue"}}, false, ""},
	} {
		before := changes
		text := ""
		if err := step.do(); err != nil {
			text = err.Error()
		}
		if text != step.err {
			t.Errorf("%s: got error %q, want %q", step.name, text, step.err)
		}
		if got := changes > before; got != step.changes {
			t.Errorf("%s: told of a change: %v, want %v", step.name, got, step.changes)
		}
		same := cmp.Comparer(func(a, b error) bool { return fmt.Sprint(a) == fmt.Sprint(b) })
		if diff := cmp.Diff(step.want, w.Get("one"), same); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
}

func TestKeep(t *testing.T) {
	w := newWatcher()
	w.Keep(map[string]bool{"a": true, "b": true})
	stopped := map[string]bool{}
	for name, s := range w.names {
		s.stop = func() { stopped[name] = true }
		s.changed = func() {}
		if err := s.Replace([]any{configMap("x", name, "red")}, "1"); err != nil {
			t.Fatal(err)
		}
	}
	w.Keep(map[string]bool{"b": true, "c": true})
	if diff := cmp.Diff(map[string]bool{"a": true}, stopped); diff != "" {
		t.Errorf("stopped (-want +got):\n%s", diff)
	}
	for name, read := range map[string]bool{"a": false, "b": true, "c": false} {
		if got := w.Get(name).Read; got != read {
			t.Errorf("%s: read %v, want %v", name, got, read)
		}
	}
	// What was handed out is the caller's.
	delete(w.Get("b").Objects, "x")
	if len(w.Get("b").Objects) != 1 {
		t.Error("what is kept can be changed from outside")
	}
}

func TestStart_ends(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newWatcher().Start(ctx); err != nil {
		t.Error(err)
	}
}
