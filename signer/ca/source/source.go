// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package source loads the CAs of Signers from where spec.ca places them: a Secret, mounted files, or a Secret
// in which Countersign manages the CA.
//
// Each place is a [Source]. To add one, such as a KMS, implement Source in a file of its own, and select it in
// [Sources.Load] and, if it watches anything, in [Sources.Keep]. A source of which keys cannot be exported
// returns a [ca.CA] made with [ca.New] from a crypto.Signer; a key that implements [ca.ContextSigner] gets the
// context of the request. A place for the keys of managed CAs is a [KeyStore].
//
// A source returns an error only if the caller must retry. The reason why a CA cannot be used is a
// [ca.Problem] in the [Result].
package source

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
)

// Source loads the CA of a Signer from one kind of place.
type Source interface {
	// Load returns the CA of a Signer at now. fits returns the Problem for which a CA cannot issue certificates
	// of the Signer. The error is [ErrPending], or an error of the request to the place: both are retried.
	Load(ctx context.Context, signer *v1alpha1.Signer, now time.Time, fits Fits) (Result, error)
}

// Fits returns the reason why a CA cannot issue certificates of a Signer, or nil.
type Fits func(*ca.CA) *ca.Problem

// Result is the state of the CA of a Signer.
type Result struct {
	// Newest is the CA that is to sign; nil if there is a Problem.
	Newest *ca.CA
	// Previous is the CA before Newest, of a managed CA whose newest is not allowed to sign yet; nil otherwise.
	Previous *ca.CA
	// Problem is why there is no usable CA; nil if there is one.
	Problem *ca.Problem
	// RotationProblem is why the next CA cannot be created or cannot sign, although it is required; nil otherwise.
	// Newest signs in the meantime.
	RotationProblem *ca.Problem
	// RotationMessage is a further message for the condition Rotating, or "".
	RotationMessage string
	// RequeueAt is when to load again; zero if the source reports every change itself.
	RequeueAt time.Time
}

// ErrPending is the error of a source that has not been read yet. The source reports a change when it has been.
var ErrPending = errors.New("the source of the CA has not been read yet")

// Sources are the sources that spec.ca can name.
type Sources struct {
	// Secrets are the watched Secrets, of the sources Secret and Managed.
	Secrets *Secrets
	File    *Files
	Managed *Managed
	Events  events.EventRecorder
}

// Keep sets the Signers whose Secrets and files are watched.
func (s *Sources) Keep(signers []v1alpha1.Signer) {
	secrets, directories := map[string]bool{}, map[string]bool{}
	for i := range signers {
		for _, name := range SecretsOf(signers[i].Spec.CA) {
			secrets[name] = true
		}
		if file := signers[i].Spec.CA.File; file != nil {
			directories[file.Directory] = true
		}
	}
	s.Secrets.Keep(secrets)
	s.File.Keep(directories)
}

// SecretsOf returns the names of the Secrets that the CA of a Signer depends on.
func SecretsOf(from v1alpha1.SignerCA) []string {
	switch {
	case from.SecretRef != nil:
		return []string{from.SecretRef.Name}
	case from.Managed != nil && from.Managed.RootRef != nil:
		return []string{from.Managed.SecretName, from.Managed.RootRef.Name}
	case from.Managed != nil:
		return []string{from.Managed.SecretName}
	default:
		return nil
	}
}

// Load implements [Source] with the source that spec.ca names.
func (s *Sources) Load(ctx context.Context, signer *v1alpha1.Signer, now time.Time, fits Fits) (Result, error) {
	from := signer.Spec.CA
	if from.Managed == nil && rotationRequested(signer) {
		s.rejectRotation(ctx, signer)
	}
	switch {
	case from.Managed != nil:
		return s.Managed.Load(ctx, signer, now, fits)
	case from.File != nil:
		return s.File.Load(ctx, signer, now, fits)
	case from.SecretRef != nil:
		return s.Secrets.Load(ctx, signer, now, fits)
	default:
		return Result{Problem: ca.Problemf(v1alpha1.ReasonInvalidCA, "spec.ca names no source that this version supports: set secretRef, managed or file")}, nil
	}
}

// rejectRotation emits an Event that the CA is not rotated by annotation, and removes the annotation.
func (s *Sources) rejectRotation(ctx context.Context, signer *v1alpha1.Signer) {
	place := "Secret"
	if signer.Spec.CA.File != nil {
		place = "directory"
	}
	s.Events.Eventf(signer, nil, corev1.EventTypeWarning, reasonNotRotated, actionRotate,
		"the annotation %s rotates managed CAs only: replace the CA in its %s instead", v1alpha1.RotateAnnotation, place)
	if err := s.Managed.removeAnnotation(ctx, signer); err != nil {
		log.FromContext(ctx).Error(err, "Cannot remove the rotate annotation")
	}
}

// loaded returns the Result of a source that has no previous CA and no rotation of its own.
func loaded(c *ca.CA, problem *ca.Problem, fits Fits) Result {
	if problem == nil {
		problem = fits(c)
	}
	if problem != nil {
		return Result{Problem: problem}
	}
	return Result{Newest: c}
}
