// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"bytes"
	"context"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/internal/watchset"
	"countersign.dev/countersign/signer/ca"
)

// Secrets is the [Source] of spec.ca.secretRef. It watches Secrets of one namespace, each with its own watch
// (see package watchset): RBAC can limit list and watch to their names, and no other Secret is ever read. It
// watches while Start runs.
type Secrets struct {
	namespace string
	watched   *watchset.Set[*corev1.Secret, Secret]
}

// Secret is the part of a Secret that is stored in memory.
type Secret struct {
	Found           bool // if false, the other fields are empty
	Type            corev1.SecretType
	ResourceVersion string
	// Signer is the name of the Signer whose managed CA is in the Secret; "" if it is not annotated.
	Signer string
	Data   map[string][]byte // the keys of CAs
}

// NewSecrets returns the Secrets of a namespace. After each change of the result of Load, but for the passing of
// time, it calls changed with the name of the Secret.
func NewSecrets(c client.WithWatch, namespace string, changed func(ctx context.Context, name string)) *Secrets {
	return &Secrets{namespace: namespace, watched: watchset.New(watchset.Options[*corev1.Secret, Secret]{
		Object: &corev1.Secret{}, Source: watchset.ByName(c, &corev1.SecretList{}, namespace), Backoff: watchset.ByNameBackoff(),
		Changed: func(ctx context.Context, name string, _ []watchset.Change[Secret]) { changed(ctx, name) },
		Keep: func(secret *corev1.Secret) *Secret {
			part := &Secret{Found: true, Type: secret.Type, ResourceVersion: secret.ResourceVersion, Signer: secret.Annotations[signerAnnotation], Data: map[string][]byte{}}
			for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey, previousCert, previousKey} {
				if value, ok := secret.Data[key]; ok {
					part.Data[key] = value
				}
			}
			return part
		},
		Same: func(a, b *Secret) bool {
			return a.Type == b.Type && a.Signer == b.Signer && maps.EqualFunc(a.Data, b.Data, bytes.Equal)
		},
	})}
}

// Start watches until ctx ends.
func (s *Secrets) Start(ctx context.Context) error { return s.watched.Start(ctx) }

// Keep sets the names of the watched Secrets. Others are dropped from memory.
func (s *Secrets) Keep(names map[string]bool) { s.watched.Keep(names) }

// Load implements [Source].
func (s *Secrets) Load(_ context.Context, signer *v1alpha1.Signer, now time.Time, fits Fits) (Result, error) {
	c, problem, err := s.load(signer.Spec.CA.SecretRef.Name, now)
	if err != nil {
		return Result{}, err
	}
	return loaded(c, problem, fits), nil
}

// load returns the CA of a watched Secret. The error is [ErrPending].
func (s *Secrets) load(name string, now time.Time) (*ca.CA, *ca.Problem, error) {
	return loadSecret(s.namespace, name, s.watched.State(name), now)
}

func loadSecret(namespace, name string, state watchset.State[Secret], now time.Time) (*ca.CA, *ca.Problem, error) {
	secret, problem, err := readSecret(namespace, name, state)
	switch {
	case problem != nil || err != nil:
		return nil, problem, err
	case !secret.Found:
		return nil, ca.Problemf(v1alpha1.ReasonSecretNotFound,
			"Secret %s/%s does not exist: create it with 'kubectl create secret tls %s --namespace=%s --cert=ca.crt --key=ca.key'",
			namespace, name, name, namespace), nil
	case secret.Type == v1alpha1.ManagedCASecretType:
		return nil, ca.Problemf(v1alpha1.ReasonNotManaged, "Secret %s/%s contains the managed CA of a Signer, which no other Signer can use: use a Secret of type %s",
			namespace, name, corev1.SecretTypeTLS), nil
	}
	c, problem := ca.Load(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey], now)
	return c, problem, nil
}

// get returns a watched Secret. The error is [ErrPending].
func (s *Secrets) get(name string) (Secret, *ca.Problem, error) {
	return readSecret(s.namespace, name, s.watched.State(name))
}

func readSecret(namespace, name string, state watchset.State[Secret]) (Secret, *ca.Problem, error) {
	switch {
	case apierrors.IsForbidden(state.Err):
		// A Secret that was read before is not used either: removing the permission revokes the use of its key.
		return Secret{}, ca.Problemf(v1alpha1.ReasonSecretNotFound,
			"the signer is not allowed to read Secret %s/%s: add its name to resourceNames in the signer's Role for secrets, with the verbs list and watch",
			namespace, name), nil
	case !state.Synced && state.Err != nil:
		problem := ca.Problemf(v1alpha1.ReasonSecretNotFound, "reading Secret %s/%s: %v", namespace, name, state.Err)
		problem.Transient = true      // the watch retries
		return Secret{}, problem, nil //nolint:nilerr // the problem has the error
	case !state.Synced:
		return Secret{}, nil, ErrPending
	}
	if secret := state.Objects[types.NamespacedName{Namespace: namespace, Name: name}]; secret != nil {
		return *secret, nil, nil
	}
	return Secret{}, nil, nil
}
