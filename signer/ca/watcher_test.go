// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"context"
	"crypto/elliptic"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"countersign.dev/countersign/api/v1alpha1"
)

// TestWatcher_Load goes through what a reflector reports of one Secret, in this order.
func TestWatcher_Load(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	good := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "serving-ca"},
		Data:       map[string][]byte{"tls.crt": certPEM(issue(t, "Root", key, nil, nil)), "tls.key": keyPEM(t, key)},
	}
	bad := good.DeepCopy()
	delete(bad.Data, "tls.key")
	relabelled := good.DeepCopy()
	relabelled.Labels = map[string]string{"a": "b"}
	other := good.DeepCopy()
	other.Name = "other"
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "serving-ca", errors.New("no list"))
	const mayNotBeRead = "Secret system/serving-ca may not be read: add its name to resourceNames in the signer's Role for secrets, with the verbs list and watch"

	changes := 0
	w := NewWatcher(nil, "system", nil)
	w.Keep(map[string]bool{"serving-ca": true}) // Start was not called: nothing is asked of the nil client
	s := w.secrets["serving-ca"]
	s.changed = func() { changes++ }

	steps := []struct {
		name    string
		do      func() error
		err     error  // that of do
		message string // of Load; "" if it loads
		changes bool
	}{
		{"refused", func() error { s.failed(forbidden); return nil }, nil, mayNotBeRead, true},
		{"refused again", func() error { s.failed(forbidden); return nil }, nil, mayNotBeRead, false},
		{"missing", func() error { return s.Replace(nil, "1") }, nil, "Secret system/serving-ca does not exist: make it with 'kubectl create secret tls serving-ca --namespace=system --cert=ca.crt --key=ca.key'", true},
		{"incomplete", func() error { return s.Add(bad) }, nil, "the Secret has no tls.key, or it is empty: make it with 'kubectl create secret tls'", true},
		{"good", func() error { return s.Update(good) }, nil, "", true},
		{"relabelled", func() error { return s.Update(relabelled) }, nil, "", false},
		{"another Secret", func() error { return s.Add(other) }, errors.New("watching Secret serving-ca: unexpected object *v1.Secret"), "", false},
		{"API server is away: what was read counts", func() error { s.failed(errors.New("connection refused")); return nil }, nil, "", true},
		{"right to read is withdrawn", func() error { s.failed(forbidden); return nil }, nil, mayNotBeRead, true},
		{"right is given back", func() error { return s.Replace([]any{good}, "2") }, nil, "", true},
		{"deleted", func() error { return s.Delete(good) }, nil, "Secret system/serving-ca does not exist: make it with 'kubectl create secret tls serving-ca --namespace=system --cert=ca.crt --key=ca.key'", true},
	}
	if _, err := w.Load("serving-ca", now); !errors.Is(err, ErrPending) {
		t.Fatalf("before the first answer: got %v, want ErrPending", err)
	}
	for _, step := range steps {
		before := changes
		if err := step.do(); (err == nil) != (step.err == nil) || err != nil && err.Error() != step.err.Error() {
			t.Errorf("%s: got error %v, want %v", step.name, err, step.err)
		}
		if got := changes > before; got != step.changes {
			t.Errorf("%s: reported a change: %v, want %v", step.name, got, step.changes)
		}
		_, err := w.Load("serving-ca", now)
		if got := message(err); got != step.message {
			t.Errorf("%s: got %q, want %q", step.name, got, step.message)
		}
		var fault *Fault
		if err != nil && (!errors.As(err, &fault) || fault.Reason != v1alpha1.ReasonSecretNotFound && fault.Reason != v1alpha1.ReasonInvalidCA) {
			t.Errorf("%s: got %#v, want a *Fault", step.name, err)
		}
	}
}

func TestWatcher_unreachable(t *testing.T) {
	w := NewWatcher(nil, "system", func(context.Context, string) {})
	w.Keep(map[string]bool{"serving-ca": true})
	w.secrets["serving-ca"].changed = func() {}
	w.secrets["serving-ca"].failed(errors.New("connection refused"))
	_, err := w.Load("serving-ca", now)
	if want := "Secret system/serving-ca cannot be read: connection refused"; message(err) != want {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestWatcher_Keep(t *testing.T) {
	w := NewWatcher(nil, "system", nil)
	w.Keep(map[string]bool{"a": true, "b": true})
	kept := w.secrets["b"]
	w.Keep(map[string]bool{"b": true})
	if w.secrets["a"] != nil || w.secrets["b"] != kept {
		t.Errorf("kept %v, want b as it was, and no more", w.secrets)
	}
	if _, err := w.Load("a", now); !errors.Is(err, ErrPending) {
		t.Errorf("a Secret that is not kept: got %v, want ErrPending", err)
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
