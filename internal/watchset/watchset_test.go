// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package watchset

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	cachetesting "k8s.io/client-go/tools/cache/testing"
)

func configMap(namespace, name, color string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"not": "kept"}},
		Data:       map[string]string{"color": color},
	}
}

// recorder records the calls of Changed.
type recorder struct{ calls []string }

func (r *recorder) changed(_ context.Context, key string, changes []Change[string]) {
	describe := func(color *string) string {
		if color == nil {
			return "none"
		}
		return *color
	}
	var lines []string
	for _, c := range changes {
		lines = append(lines, describe(c.Before)+" to "+describe(c.After))
	}
	slices.Sort(lines) // a list has no order
	r.calls = append(r.calls, strings.Join(append([]string{key}, lines...), ", "))
}

// newSet keeps the colors of ConfigMaps, and drops those without one.
func newSet(change ...func(*Options[*corev1.ConfigMap, string])) (*Set[*corev1.ConfigMap, string], *recorder) {
	r := &recorder{}
	o := Options[*corev1.ConfigMap, string]{
		Object: &corev1.ConfigMap{},
		Keep: func(o *corev1.ConfigMap) *string {
			if color := o.Data["color"]; color != "" {
				return &color
			}
			return nil
		},
		Same:    func(a, b *string) bool { return *a == *b },
		Changed: r.changed,
	}
	for _, f := range change {
		f(&o)
	}
	return New(o), r
}

func keys(names ...string) map[string]bool {
	out := map[string]bool{}
	for _, name := range names {
		out[name] = true
	}
	return out
}

// colors are those of some objects, by namespace and name.
func colors(objects map[types.NamespacedName]*string) string {
	var out []string
	for name, color := range objects {
		out = append(out, name.String()+"="+*color)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestStore runs the calls of a reflector for one key, in this order.
func TestStore(t *testing.T) {
	set, changed := newSet()
	set.Keep(keys("one")) // Start is not called: nothing is read from the nil source
	s := set.watches["one"]
	forbidden, away := errors.New("forbidden"), errors.New("connection refused")
	failed := func(err error) func() error {
		return func() error { s.failed(err); return nil }
	}
	add := func(o *corev1.ConfigMap) func() error { return func() error { return s.Add(o) } }
	replace := func(objects ...any) func() error { return func() error { return s.Replace(objects, "1") } }
	relabelled := configMap("a", "one", "red")
	relabelled.Labels = nil

	for _, step := range []struct {
		name    string
		do      func() error
		synced  bool
		readErr error
		objects string
		changes []string // calls of Changed
		err     string
	}{
		{"forbidden", failed(forbidden), false, forbidden, "", []string{"one"}, ""},
		{"forbidden again", failed(errors.New("forbidden")), false, forbidden, "", nil, ""},
		{"listed, no objects", replace(), true, nil, "", []string{"one"}, ""},
		{"listed, still no objects", replace(), true, nil, "", nil, ""},
		{"added", add(configMap("a", "one", "red")), true, nil, "a/one=red", []string{"one, none to red"}, ""},
		{"added in another namespace", add(configMap("b", "one", "red")), true, nil, "a/one=red b/one=red", []string{"one, none to red"}, ""},
		{"not kept", add(configMap("c", "one", "")), true, nil, "a/one=red b/one=red", nil, ""},
		{"updated", func() error { return s.Update(configMap("b", "one", "blue")) }, true, nil, "a/one=red b/one=blue", []string{"one, red to blue"}, ""},
		{"updated, the same is kept", func() error { return s.Update(relabelled) }, true, nil, "a/one=red b/one=blue", nil, ""},
		{"of another type", func() error { return s.Add(&corev1.Secret{}) }, true, nil, "a/one=red b/one=blue", nil, "unexpected type *v1.Secret, want *v1.ConfigMap"},
		{"deleted, of another type", func() error { return s.Delete(&corev1.Secret{}) }, true, nil, "a/one=red b/one=blue", nil, "unexpected type *v1.Secret, want *v1.ConfigMap"},
		{"listed, one of another type", replace(configMap("c", "one", "red"), &corev1.Secret{}), true, nil, "a/one=red b/one=blue", nil, "unexpected type *v1.Secret, want *v1.ConfigMap"},
		{"API server is down", failed(away), true, away, "a/one=red b/one=blue", []string{"one"}, ""},
		{"API server is up", replace(configMap("a", "one", "red"), configMap("b", "one", "blue")), true, nil, "a/one=red b/one=blue", []string{"one"}, ""},
		{"deleted", func() error { return s.Delete(configMap("a", "one", "red")) }, true, nil, "b/one=blue", []string{"one, red to none"}, ""},
		{"deleted, not known", func() error { return s.Delete(configMap("a", "one", "red")) }, true, nil, "b/one=blue", nil, ""},
		{"updated, not kept", add(configMap("b", "one", "")), true, nil, "", []string{"one, blue to none"}, ""},
		{"added again", add(configMap("b", "one", "blue")), true, nil, "b/one=blue", []string{"one, none to blue"}, ""},
		{"listed, the same", replace(configMap("b", "one", "blue")), true, nil, "b/one=blue", nil, ""},
		{"listed, changed", replace(configMap("c", "one", "red"), configMap("d", "one", "")), true, nil, "c/one=red", []string{"one, blue to none, none to red"}, ""},
	} {
		changed.calls = nil
		text := ""
		if err := step.do(); err != nil {
			text = err.Error()
		}
		if text != step.err {
			t.Errorf("%s: error %q, want %q", step.name, text, step.err)
		}
		if diff := cmp.Diff(step.changes, changed.calls); diff != "" {
			t.Errorf("%s: changes (-want +got):\n%s", step.name, diff)
		}
		got := set.State("one")
		if got.Synced != step.synced || set.Synced() != step.synced || fmt.Sprint(got.Err) != fmt.Sprint(step.readErr) || colors(got.Objects) != step.objects {
			t.Errorf("%s: synced %v, error %v, objects %q; want %v, %v, %q",
				step.name, got.Synced, got.Err, colors(got.Objects), step.synced, step.readErr, step.objects)
		}
	}
}

// TestStore_everyEvent: without Same, callers are notified of every event of what is kept.
func TestStore_everyEvent(t *testing.T) {
	set, changed := newSet(func(o *Options[*corev1.ConfigMap, string]) { o.Same = nil })
	set.Keep(keys("one"))
	s := set.Store("one")
	if err := errors.Join(s.Add(configMap("a", "one", "red")), s.Add(configMap("a", "one", "red")), s.Add(configMap("a", "two", "")),
		s.Replace([]any{configMap("a", "one", "red"), configMap("a", "three", "blue")}, "1")); err != nil {
		t.Fatal(err)
	}
	want := []string{"one, none to red", "one, red to red", "one, none to blue, red to red"}
	if diff := cmp.Diff(want, changed.calls); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

// TestTransformer: the first list is collected without the parts of the objects that are not kept.
func TestTransformer(t *testing.T) {
	set, _ := newSet()
	set.Keep(keys("one"))
	s := set.Store("one")
	list := cache.NewStore(cache.DeletionHandlingMetaNamespaceKeyFunc, cache.WithTransformer(s.Transformer()))
	for _, object := range []*corev1.ConfigMap{configMap("a", "one", "red"), configMap("b", "one", "")} {
		if err := list.Add(object); err != nil {
			t.Fatal(err)
		}
	}
	for _, object := range list.List() {
		if _, reduced := object.(*item[string]); !reduced {
			t.Errorf("the list holds a %T", object)
		}
		twice, err := s.Transformer()(object)
		if diff := cmp.Diff(object, twice, cmp.AllowUnexported(item[string]{})); diff != "" || err != nil {
			t.Errorf("transforming twice: error %v (-want +got):\n%s", err, diff)
		}
	}
	if err := s.Replace(list.List(), "1"); err != nil {
		t.Fatal(err)
	}
	if got := colors(set.State("one").Objects); got != "a/one=red" {
		t.Errorf("got %q, want a/one=red", got)
	}
	if _, err := s.Transformer()(&corev1.Secret{}); err == nil {
		t.Error("transforming an object of another type: no error")
	}
}

func TestKeep(t *testing.T) {
	set, _ := newSet()
	set.Keep(keys("a", "b"))
	var stopped []string
	for key, s := range set.watches {
		s.stop = func() { stopped = append(stopped, key) }
		if err := s.Replace([]any{configMap("x", key, "red")}, "1"); err != nil {
			t.Fatal(err)
		}
	}
	set.Keep(keys("b", "c"))
	if want := []string{"a"}; !slices.Equal(stopped, want) {
		t.Errorf("stopped %q, want %q", stopped, want)
	}
	for _, tc := range []struct {
		key    string
		synced bool
	}{{"a", false}, {"b", true}, {"c", false}} {
		if got := set.State(tc.key).Synced; got != tc.synced {
			t.Errorf("%s: synced %v, want %v", tc.key, got, tc.synced)
		}
	}
	if set.Store("a") != nil {
		t.Error("the store of a key that was dropped")
	}
	delete(set.State("b").Objects, types.NamespacedName{Namespace: "x", Name: "b"})
	if got := len(set.State("b").Objects); got != 1 {
		t.Errorf("%d objects after the caller has modified a State, want 1", got)
	}
}

// TestSet_find: objects are found by name, key and index, in all watches.
func TestSet_find(t *testing.T) {
	set, _ := newSet(func(o *Options[*corev1.ConfigMap, string]) {
		o.Indexes = map[string]func(*string) []string{
			"letter": func(color *string) []string { return strings.Split(*color, "") },
		}
	})
	set.Keep(keys("one", "two"))
	check := func(when, byName, byKey, all string, byLetter map[string]string) {
		t.Helper()
		text := func(objects []*string) string {
			var out []string
			for _, color := range objects {
				out = append(out, *color)
			}
			slices.Sort(out)
			return strings.Join(out, " ")
		}
		if got := text(set.Get(types.NamespacedName{Namespace: "a", Name: "x"})); got != byName {
			t.Errorf("%s: by name %q, want %q", when, got, byName)
		}
		if got := text(set.List("one")); got != byKey {
			t.Errorf("%s: by key %q, want %q", when, got, byKey)
		}
		if got := text(set.List()); got != all {
			t.Errorf("%s: all %q, want %q", when, got, all)
		}
		for letter, want := range byLetter {
			if got := text(slices.Collect(set.ByIndex("letter", letter))); got != want {
				t.Errorf("%s: by letter %s %q, want %q", when, letter, got, want)
			}
		}
	}
	one, two := set.Store("one"), set.Store("two")
	if err := errors.Join(one.Add(configMap("a", "x", "red")), one.Add(configMap("a", "y", "grey")), two.Add(configMap("a", "x", "blue"))); err != nil {
		t.Fatal(err)
	}
	check("added", "blue red", "grey red", "blue grey red", map[string]string{"r": "grey red", "e": "blue grey red", "b": "blue", "q": ""})
	for range set.ByIndex("letter", "e") {
		break // the lock is released, or else the next call blocks
	}
	if err := errors.Join(one.Add(configMap("a", "x", "pink")), two.Delete(configMap("a", "x", ""))); err != nil {
		t.Fatal(err)
	}
	check("changed", "pink", "grey pink", "grey pink", map[string]string{"r": "grey", "e": "grey", "b": "", "p": "pink"})
	if err := one.Replace(nil, "1"); err != nil {
		t.Fatal(err)
	}
	check("removed", "", "", "", map[string]string{"r": "", "p": ""})
	if left := set.watches["one"].indexes["letter"]; len(left) != 0 {
		t.Errorf("left in the index: %v", left)
	}
}

func TestWaitForSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set, _ := newSet()
		if err := set.WaitForSync(t.Context()); err != nil {
			t.Errorf("without keys: %v", err)
		}
		set.Keep(keys("one", "two"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := set.WaitForSync(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("before the first list: got %v, want %v", err, context.DeadlineExceeded)
		}
		waited := make(chan error)
		go func() { waited <- set.WaitForSync(t.Context()) }()
		one := set.Store("one")
		if err := errors.Join(one.Replace(nil, "1"), one.Replace(nil, "2")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case err := <-waited:
			t.Fatalf("one of two keys is synced: got %v", err)
		default:
		}
		set.Keep(keys("one"))
		if err := <-waited; err != nil {
			t.Errorf("the other key is dropped: %v", err)
		}
	})
}

// source lists and watches. It cannot stream a list.
type source struct {
	*cachetesting.FakeControllerSource
}

func (source) IsWatchListSemanticsUnSupported() bool { return true }

// TestStart: keys are watched whether they are added before Start or after, and not after it has ended.
func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sources := map[string]source{"one": {cachetesting.NewFakeControllerSource()}, "two": {cachetesting.NewFakeControllerSource()}}
		set, changed := newSet(func(o *Options[*corev1.ConfigMap, string]) {
			o.Source = func(key string) cache.ListerWatcher { return sources[key] }
			o.Backoff = ByNameBackoff()
		})
		if set.NeedLeaderElection() {
			t.Error("needs leader election")
		}
		sources["one"].Add(configMap("a", "x", "red"))
		set.Keep(keys("one"))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- set.Start(ctx) }()
		synctest.Wait()
		set.Keep(keys("one", "two"))
		synctest.Wait()
		sources["two"].Add(configMap("a", "y", "blue"))
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		sources["two"].Add(configMap("a", "z", "blue"))
		want := []string{"one, none to red", "two", "two, none to blue"}
		if diff := cmp.Diff(want, changed.calls); diff != "" {
			t.Errorf("changes (-want +got):\n%s", diff)
		}
		for _, s := range sources {
			s.Shutdown()
		}
	})
}
