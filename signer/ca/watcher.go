// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/internal/watchset"
)

// ErrPending is returned by [Watcher.Load] until the Secret was asked for a first time.
var ErrPending = errors.New("the Secret is not read yet")

// Watcher keeps Secrets of one namespace as they are in the cluster, each by a watch of its own (see
// package watchset): RBAC can limit list and watch to their names, and no other Secret is ever asked for.
//
// It runs as long as Start does.
type Watcher struct {
	namespace string
	secrets   *watchset.Set[*corev1.Secret, Secret]
}

// Secret is what is kept of one.
type Secret struct {
	Found           bool // or else all is empty
	Type            corev1.SecretType
	ResourceVersion string
	// Signer is the name of the Signer whose managed CA is in it; "" if nobody has said.
	Signer string
	Data   map[string][]byte // of the keys that CAs are in
}

// NewWatcher makes a Watcher for the Secrets of a namespace. After each change of what Load
// returns for a Secret, but for the passing of time, changed is called with its name.
func NewWatcher(c client.WithWatch, namespace string, changed func(ctx context.Context, name string)) *Watcher {
	return &Watcher{namespace: namespace, secrets: watchset.New(watchset.Options[*corev1.Secret, Secret]{
		Object: &corev1.Secret{}, Source: watchset.ByName(c, &corev1.SecretList{}, namespace), Backoff: watchset.ByNameBackoff(),
		Changed: func(ctx context.Context, name string, _ []watchset.Change[Secret]) { changed(ctx, name) },
		Keep: func(secret *corev1.Secret) *Secret {
			kept := &Secret{Found: true, Type: secret.Type, ResourceVersion: secret.ResourceVersion, Signer: secret.Annotations[signerAnnotation], Data: map[string][]byte{}}
			for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey, previousCert, previousKey} {
				if value, ok := secret.Data[key]; ok {
					kept.Data[key] = value
				}
			}
			return kept
		},
		Same: func(a, b *Secret) bool {
			return a.Type == b.Type && a.Signer == b.Signer && maps.EqualFunc(a.Data, b.Data, bytes.Equal)
		},
	})}
}

// Start watches until ctx ends.
func (w *Watcher) Start(ctx context.Context) error { return w.secrets.Start(ctx) }

// Keep makes names the Secrets that are watched: others are dropped and forgotten.
func (w *Watcher) Keep(names map[string]bool) { w.secrets.Keep(names) }

// Load loads the CA from a Secret that is kept. The error is [ErrPending] or a [*Problem].
func (w *Watcher) Load(name string, now time.Time) (*CA, error) {
	return loadFound(w.namespace, name, w.secrets.State(name), now)
}

func loadFound(namespace, name string, state watchset.State[Secret], now time.Time) (*CA, error) {
	secret, err := found(namespace, name, state)
	switch {
	case err != nil:
		return nil, err
	case !secret.Found:
		return nil, problemf(v1alpha1.ReasonSecretNotFound,
			"Secret %s/%s does not exist: make it with 'kubectl create secret tls %s --namespace=%s --cert=ca.crt --key=ca.key'",
			namespace, name, name, namespace)
	case secret.Type == v1alpha1.ManagedCASecretType:
		return nil, problemf(v1alpha1.ReasonNotManaged, "Secret %s/%s has a CA that is managed for a Signer, and is for that one alone: use a Secret of type %s",
			namespace, name, corev1.SecretTypeTLS)
	}
	return Load(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey], now)
}

// Get returns a Secret that is kept. The error is [ErrPending] or a [*Problem].
func (w *Watcher) Get(name string) (Secret, error) {
	return found(w.namespace, name, w.secrets.State(name))
}

func found(namespace, name string, state watchset.State[Secret]) (Secret, error) {
	switch {
	case apierrors.IsForbidden(state.Err):
		// Also if it could be read before: whoever withdrew the right meant the CA's key.
		return Secret{}, problemf(v1alpha1.ReasonSecretNotFound,
			"Secret %s/%s may not be read: add its name to resourceNames in the signer's Role for secrets, with the verbs list and watch",
			namespace, name)
	case !state.Synced && state.Err != nil:
		return Secret{}, problemf(v1alpha1.ReasonSecretNotFound, "Secret %s/%s cannot be read: %v", namespace, name, state.Err)
	case !state.Synced:
		return Secret{}, ErrPending
	}
	if secret := state.Objects[types.NamespacedName{Namespace: namespace, Name: name}]; secret != nil {
		return *secret, nil
	}
	return Secret{}, nil
}
