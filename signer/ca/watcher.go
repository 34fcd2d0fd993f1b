// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/api/v1alpha1"
)

// ErrPending is returned by [Watcher.Load] until the Secret was asked for a first time.
var ErrPending = errors.New("the Secret is not read yet")

// retry paces the attempts to read a Secret that may not be read, or an API server that does
// not answer: a mended RBAC rule is noticed within 2 s.
var retry = wait.Backoff{Duration: 250 * time.Millisecond, Factor: 2, Steps: 8, Cap: 2 * time.Second}

// Watcher keeps Secrets of one namespace as they are in the cluster. Each is listed and watched
// by a field selector on its name, which is what lets RBAC limit the verbs list and watch by
// resourceNames (RBAC takes the name from the selector). No other Secret is ever asked for.
//
// It runs as long as Start does.
type Watcher struct {
	client    client.WithWatch
	namespace string
	changed   func(ctx context.Context, name string)

	mu      sync.Mutex
	ctx     context.Context // of Start; nil before
	secrets map[string]*secret
}

// NewWatcher makes a Watcher for the Secrets of a namespace. After each change of what Load
// returns for a Secret, but for the passing of time, changed is called with its name.
func NewWatcher(c client.WithWatch, namespace string, changed func(ctx context.Context, name string)) *Watcher {
	return &Watcher{client: c, namespace: namespace, changed: changed, secrets: map[string]*secret{}}
}

// Start watches until ctx ends.
func (w *Watcher) Start(ctx context.Context) error {
	w.mu.Lock()
	w.ctx = ctx
	for _, s := range w.secrets {
		w.run(s) //nolint:contextcheck // it takes w.ctx, which is this one
	}
	w.mu.Unlock()
	<-ctx.Done()
	return nil
}

// Keep makes names the Secrets that are watched: others are dropped and forgotten.
func (w *Watcher) Keep(names map[string]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.secrets, func(name string, s *secret) bool {
		if !names[name] && s.stop != nil {
			s.stop()
		}
		return !names[name]
	})
	for name := range names {
		if w.secrets[name] != nil {
			continue
		}
		s := &secret{name: name}
		w.secrets[name] = s
		if w.ctx != nil {
			w.run(s)
		}
	}
}

// Load loads the CA from a Secret that is kept. The error is [ErrPending] or a [*Fault].
func (w *Watcher) Load(name string, now time.Time) (*CA, error) {
	secret, err := w.Get(name)
	switch {
	case err != nil:
		return nil, err
	case !secret.Found:
		return nil, faultf(v1alpha1.ReasonSecretNotFound,
			"Secret %s/%s does not exist: make it with 'kubectl create secret tls %s --namespace=%s --cert=ca.crt --key=ca.key'",
			w.namespace, name, name, w.namespace)
	}
	return Load(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey], now)
}

// Get returns a Secret that is kept. The error is [ErrPending] or a [*Fault].
func (w *Watcher) Get(name string) (Secret, error) {
	w.mu.Lock()
	s := w.secrets[name]
	w.mu.Unlock()
	if s == nil {
		return Secret{}, ErrPending
	}
	state := s.current()
	switch {
	case apierrors.IsForbidden(state.err):
		// Also if it could be read before: whoever withdrew the right meant the CA's key.
		return Secret{}, faultf(v1alpha1.ReasonSecretNotFound,
			"Secret %s/%s may not be read: add its name to resourceNames in the signer's Role for secrets, with the verbs list and watch",
			w.namespace, name)
	case !state.read && state.err != nil:
		return Secret{}, faultf(v1alpha1.ReasonSecretNotFound, "Secret %s/%s cannot be read: %v", w.namespace, name, state.err)
	case !state.read:
		return Secret{}, ErrPending
	}
	return state.secret, nil
}

// run starts to watch a Secret. w.mu is held.
func (w *Watcher) run(s *secret) {
	ctx, stop := context.WithCancel(w.ctx)
	s.stop = stop
	s.changed = func() {
		if ctx.Err() == nil {
			w.changed(ctx, s.name)
		}
	}
	selection := func(o metav1.ListOptions) *client.ListOptions {
		return &client.ListOptions{
			Namespace:     w.namespace,
			FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, s.name),
			Raw:           &o,
		}
	}
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			var list corev1.SecretList
			if err := w.client.List(ctx, &list, selection(o)); err != nil {
				s.failed(err)
				return nil, err
			}
			return &list, nil
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return w.client.Watch(ctx, &corev1.SecretList{}, selection(o))
		},
	}
	backoff := retry
	reflector := cache.NewReflectorWithOptions(source, &corev1.Secret{}, s, cache.ReflectorOptions{
		Name:    fmt.Sprintf("Secret %s/%s", w.namespace, s.name),
		Backoff: &backoff,
	})
	go reflector.RunWithContext(ctx)
}

// secret is one Secret as last seen. It is the store of a reflector that sees only that Secret.
type secret struct {
	name    string
	stop    context.CancelFunc
	changed func()

	mu    sync.Mutex
	state state
}

// Secret is what is kept of one.
type Secret struct {
	Found           bool // or else all is empty
	Type            corev1.SecretType
	ResourceVersion string
	Data            map[string][]byte // of the keys that CAs are in
}

// state is what is known of a Secret.
type state struct {
	read   bool // at least once
	secret Secret
	err    error // of the last attempt to read it
}

func (s *secret) current() state {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

func (s *secret) set(next state) {
	s.mu.Lock()
	last := s.state
	s.state = next
	s.mu.Unlock()
	same := last.read == next.read && last.secret.Found == next.secret.Found && last.secret.Type == next.secret.Type &&
		maps.EqualFunc(last.secret.Data, next.secret.Data, bytes.Equal) &&
		fmt.Sprint(last.err) == fmt.Sprint(next.err)
	if !same {
		s.changed()
	}
}

// failed notes that the Secret could not be read. What was read before is kept.
func (s *secret) failed(err error) {
	next := s.current()
	next.err = err
	s.set(next)
}

// Add implements cache.ReflectorStore.
func (s *secret) Add(object any) error {
	o, ok := object.(*corev1.Secret)
	if !ok || o.Name != s.name {
		return fmt.Errorf("watching Secret %s: unexpected object %T", s.name, object)
	}
	kept := Secret{Found: true, Type: o.Type, ResourceVersion: o.ResourceVersion, Data: map[string][]byte{}}
	for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey, previousCert, previousKey} {
		if value, ok := o.Data[key]; ok {
			kept.Data[key] = value
		}
	}
	s.set(state{read: true, secret: kept})
	return nil
}

// Update implements cache.ReflectorStore.
func (s *secret) Update(object any) error { return s.Add(object) }

// Delete implements cache.ReflectorStore.
func (s *secret) Delete(any) error {
	s.set(state{read: true})
	return nil
}

// Replace implements cache.ReflectorStore.
func (s *secret) Replace(objects []any, _ string) error {
	if len(objects) == 0 {
		return s.Delete(nil)
	}
	return s.Add(objects[0])
}

// Resync implements cache.ReflectorStore.
func (s *secret) Resync() error { return nil }
