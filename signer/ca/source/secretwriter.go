// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
)

// signerAnnotation, on the Secret of a managed CA, is the name of its Signer.
const signerAnnotation = "countersign.dev/signer"

// fieldOwner is the field manager of the Secrets of managed CAs.
const fieldOwner client.FieldOwner = "countersign-signer"

// SecretWriter writes the Secrets of managed CAs.
//
// It creates an empty Secret by server-side apply, because RBAC can limit the verbs of an apply to names, and
// because applying it again changes nothing. It changes the data only by a patch with the resourceVersion of the
// Secret that the change was computed from. So only one of two replicas creates the next CA, and the other gets a
// conflict.
type SecretWriter struct {
	Client    client.Client
	Namespace string
}

// Check returns the result of a Write, before there is a private key to write. It creates a missing Secret without data.
func (w *SecretWriter) Check(ctx context.Context, signer, name string, secret Secret) (*ca.Problem, error) {
	if !secret.Found {
		_, err := w.create(ctx, signer, name)
		return w.explain(name, err)
	}
	return w.explain(name, w.patch(ctx, signer, name, secret.ResourceVersion, map[string][]byte{"check": {}}, client.DryRunAll))
}

// Write changes keys of a Secret; a nil value removes one. It returns a Problem if a cluster admin has to fix
// something, and a conflict if the Secret has changed.
func (w *SecretWriter) Write(ctx context.Context, signer, name string, secret Secret, change map[string][]byte) (*ca.Problem, error) {
	version := secret.ResourceVersion
	if !secret.Found {
		var err error
		if version, err = w.create(ctx, signer, name); err != nil {
			return w.explain(name, err)
		}
	}
	return w.explain(name, w.patch(ctx, signer, name, version, change))
}

// create creates an empty Secret, if there is none, and returns its resourceVersion.
func (w *SecretWriter) create(ctx context.Context, signer, name string) (string, error) {
	empty := applycorev1.Secret(name, w.Namespace).WithType(v1alpha1.ManagedCASecretType).
		WithLabels(map[string]string{"app.kubernetes.io/managed-by": "countersign"}).
		WithAnnotations(map[string]string{signerAnnotation: signer})
	if err := w.Client.Apply(ctx, empty, fieldOwner); err != nil {
		return "", err
	}
	if len(empty.Data) > 0 {
		return "", apierrors.NewConflict(corev1.Resource("secrets"), name, errors.New("another replica has written to it"))
	}
	return *empty.ResourceVersion, nil
}

func (w *SecretWriter) patch(ctx context.Context, signer, name, version string, change map[string][]byte, options ...client.PatchOption) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": version, "annotations": map[string]string{signerAnnotation: signer}},
		"data":     change,
	})
	if err != nil {
		return fmt.Errorf("encoding the change: %w", err)
	}
	object := &corev1.Secret{}
	object.Namespace, object.Name = w.Namespace, name
	return w.Client.Patch(ctx, object, client.RawPatch(types.MergePatchType, patch), append(options, fieldOwner)...)
}

// explain returns the Problem of an error that only a cluster admin can resolve, and any other error.
func (w *SecretWriter) explain(name string, err error) (*ca.Problem, error) {
	switch {
	case err == nil:
		return nil, nil
	case apierrors.IsForbidden(err):
		return ca.Problemf(v1alpha1.ReasonSecretReadOnly,
			"the signer is not allowed to write Secret %s/%s: add its name to resourceNames in the signer's Role for secrets, with the verbs create and patch", w.Namespace, name), nil
	case apierrors.IsInvalid(err):
		return ca.Problemf(v1alpha1.ReasonSecretReadOnly,
			"Secret %s/%s cannot be changed: if it is immutable, delete it, and Countersign creates a new CA: %v", w.Namespace, name, err), nil
	default:
		return nil, fmt.Errorf("writing Secret %s/%s: %w", w.Namespace, name, err)
	}
}
