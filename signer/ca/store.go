// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package ca

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
)

// signerAnnotation, on the Secret of a managed CA, is the name of its Signer.
const signerAnnotation = "countersign.dev/signer"

// fieldOwner is the manager of the fields of a managed CA's Secret.
const fieldOwner client.FieldOwner = "countersign-signer"

// Store writes the Secrets of managed CAs.
//
// A Secret is created empty, by server-side apply, for which RBAC can limit the name, and which does
// nothing the second time. What is in it is only ever changed by a patch that carries the
// resourceVersion it was decided by. So of two replicas one makes the next CA, and the other learns of it.
type Store struct {
	Client    client.Client
	Namespace string
}

// Check returns the error that Write would, before there is a key to be written. It creates a Secret that does
// not exist, empty.
func (s *Store) Check(ctx context.Context, signer, name string, secret Secret) error {
	if !secret.Found {
		_, err := s.create(ctx, signer, name)
		return err
	}
	return s.patch(ctx, signer, name, secret.ResourceVersion, map[string][]byte{"check": {}}, client.DryRunAll)
}

// Write changes keys of a Secret; a nil value removes one. The error is a [*Problem] if the cluster
// admin can mend it, and a conflict if the Secret has changed.
func (s *Store) Write(ctx context.Context, signer, name string, secret Secret, change map[string][]byte) error {
	version := secret.ResourceVersion
	if !secret.Found {
		var err error
		if version, err = s.create(ctx, signer, name); err != nil {
			return err
		}
	}
	return s.patch(ctx, signer, name, version, change)
}

// create makes an empty Secret, if there is none, and returns its resourceVersion.
func (s *Store) create(ctx context.Context, signer, name string) (string, error) {
	empty := applycorev1.Secret(name, s.Namespace).WithType(v1alpha1.ManagedCASecretType).
		WithLabels(map[string]string{"app.kubernetes.io/managed-by": "countersign"}).
		WithAnnotations(map[string]string{signerAnnotation: signer})
	if err := s.Client.Apply(ctx, empty, fieldOwner); err != nil {
		return "", s.problem(name, err)
	}
	if len(empty.Data) > 0 {
		return "", apierrors.NewConflict(corev1.Resource("secrets"), name, errors.New("it is not empty any more"))
	}
	return *empty.ResourceVersion, nil
}

func (s *Store) patch(ctx context.Context, signer, name, version string, change map[string][]byte, options ...client.PatchOption) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": version, "annotations": map[string]string{signerAnnotation: signer}},
		"data":     change,
	})
	if err != nil {
		return fmt.Errorf("encoding the change of Secret %s: %w", name, err)
	}
	object := &corev1.Secret{}
	object.Namespace, object.Name = s.Namespace, name
	return s.problem(name, s.Client.Patch(ctx, object, client.RawPatch(types.MergePatchType, patch), append(options, fieldOwner)...))
}

func (s *Store) problem(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsForbidden(err):
		return problemf(v1alpha1.ReasonSecretReadOnly,
			"Secret %s/%s may not be written to: add its name to resourceNames in the signer's Role for secrets, with the verbs create and patch", s.Namespace, name)
	case apierrors.IsInvalid(err):
		return problemf(v1alpha1.ReasonSecretReadOnly,
			"Secret %s/%s cannot be changed: delete it if it is immutable, and Countersign makes another with a new CA: %v", s.Namespace, name, err)
	default:
		return fmt.Errorf("writing Secret %s/%s: %w", s.Namespace, name, err)
	}
}
