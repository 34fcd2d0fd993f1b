// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
)

const (
	actionRotate = "RotateCA"

	// reasonCAMade is the reason of the Event that tells of a managed CA's next one.
	reasonCAMade = "CAMade"
	// reasonCASwitched is the reason of the Event that tells of the CA that signs from now on.
	reasonCASwitched = "CASwitched"
	// reasonCARetired is the reason of the Event that tells of a CA that is not trusted any more.
	reasonCARetired = "CARetired"
	// reasonNotRotated is the reason of the Event on a Signer that was asked to rotate and does not.
	reasonNotRotated = "NotRotated"

	rotateNow = "now"

	// writeRetry is how soon it is tried again to write a Secret that may not be written: nothing tells
	// when RBAC has changed.
	writeRetry = 2 * time.Second
)

// offer is what the source of a Signer's CA has.
type offer struct {
	newest, previous *ca.CA
	stuck            *ca.Fault // why no next CA is made although it is time; newest goes on
	again            time.Time // when the source is to be asked again; zero if it tells by itself
}

// sources are where the CAs of Signers come from. Of managed ones they make the next.
type sources struct {
	secrets *ca.Watcher
	files   *ca.Files
	store   *ca.Store
	signers client.Writer
	events  events.EventRecorder
}

// keep makes those of the Signers what is watched.
func (s *sources) keep(signers []v1alpha1.Signer) {
	secrets, directories := map[string]bool{}, map[string]bool{}
	for i := range signers {
		for _, name := range secretsOf(&signers[i]) {
			secrets[name] = true
		}
		if file := signers[i].Spec.CA.File; file != nil {
			directories[file.Directory] = true
		}
	}
	s.secrets.Keep(secrets)
	s.files.Keep(directories)
}

// secretsOf names the Secrets that a Signer's CA depends on.
func secretsOf(signer *v1alpha1.Signer) []string {
	from := signer.Spec.CA
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

// load returns what the source of a Signer has now. The error is a [*ca.Fault], [ca.ErrPending], or
// that of an API call.
func (s *sources) load(ctx context.Context, signer *v1alpha1.Signer, now time.Time) (offer, error) {
	from := signer.Spec.CA
	asked := signer.Annotations[v1alpha1.RotateAnnotation] == rotateNow
	if asked && from.Managed == nil {
		s.events.Eventf(signer, nil, corev1.EventTypeWarning, reasonNotRotated, actionRotate,
			"only a CA that Countersign manages is rotated by annotation: replace the CA in its %s instead", kindOf(from))
		if err := s.answered(ctx, signer); err != nil {
			return offer{}, err
		}
	}
	var o offer
	var err error
	switch {
	case from.Managed != nil:
		return s.managed(ctx, signer, now, asked)
	case from.File != nil:
		o.newest, err = s.files.Load(from.File.Directory, now)
	case from.SecretRef != nil:
		o.newest, err = s.secrets.Load(from.SecretRef.Name, now)
	default:
		err = &ca.Fault{Reason: v1alpha1.ReasonInvalidCA, Message: "spec.ca names no source that this version knows: set secretRef, managed or file"}
	}
	return o, err
}

func kindOf(from v1alpha1.SignerCA) string {
	if from.File != nil {
		return "folder"
	}
	return "Secret"
}

// managed returns the CA that Countersign keeps in a Secret, and makes the next one when it is time. What it
// writes counts when the Secret is seen to have it.
func (s *sources) managed(ctx context.Context, signer *v1alpha1.Signer, now time.Time, asked bool) (offer, error) {
	spec := signer.Spec.CA.Managed
	secret, err := s.secrets.Get(spec.SecretName)
	if err != nil {
		return offer{}, err
	}
	if secret.Found && secret.Type != v1alpha1.ManagedCASecretType {
		return offer{}, &ca.Fault{Reason: v1alpha1.ReasonNotManaged, Message: fmt.Sprintf(
			"Secret %s is of type %s, not %s: choose another spec.ca.managed.secretName, or use the CA in it with spec.ca.secretRef",
			spec.SecretName, secret.Type, v1alpha1.ManagedCASecretType)}
	}
	kept, err := ca.LoadManaged(secret.Data)
	if fault, ok := errors.AsType[*ca.Fault](err); ok {
		return offer{}, &ca.Fault{Reason: fault.Reason, Message: fmt.Sprintf("%s; or delete the Secret %s, and Countersign makes a new CA", fault.Message, spec.SecretName)}
	}
	if err != nil {
		return offer{}, err
	}
	var root *ca.CA
	if spec.RootRef != nil {
		if root, err = s.secrets.Load(spec.RootRef.Name, now); errors.Is(err, ca.ErrPending) {
			return offer{}, err
		}
	}
	rootFault, _ := errors.AsType[*ca.Fault](err)
	situation := ca.Situation{Spec: spec, Root: root, Current: currentAnchor(signer), Distrusted: signer.Spec.Trust.Distrusted, Asked: asked}
	err = s.step(ctx, signer, now, secret, kept, situation, rootFault)
	switch {
	case apierrors.IsConflict(err): // its change brings the Signer back
		log.FromContext(ctx).V(1).Info("the Secret of the CA has changed meanwhile", "secret", spec.SecretName)
	case err != nil:
		return notStepped(now, kept, err)
	}
	if kept.Newest == nil {
		return offer{}, ca.ErrPending
	}
	if err := kept.Newest.ValidAt(now, 0); err != nil {
		return offer{}, err
	}
	o := offer{newest: kept.Newest, previous: kept.Previous}
	if at := kept.RenewAt(spec); at.After(now) { // or else a next one is made, and the Secret's change tells of it
		o.again = at
	}
	return o, nil
}

// notStepped is what a managed CA offers if its next step failed: itself, as long as it is valid.
func notStepped(now time.Time, kept ca.Managed, err error) (offer, error) {
	fault, known := errors.AsType[*ca.Fault](err)
	if !known {
		fault = &ca.Fault{Reason: v1alpha1.ReasonRotationFailed, Message: err.Error()}
	}
	o := offer{newest: kept.Newest, previous: kept.Previous, stuck: fault}
	switch {
	case !known:
		o.again = now.Add(pendingRetry)
	case fault.Reason == v1alpha1.ReasonSecretReadOnly:
		o.again = now.Add(writeRetry)
	}
	if kept.Newest == nil || kept.Newest.ValidAt(now, 0) != nil {
		return offer{again: o.again}, err
	}
	return o, nil
}

// step takes the next step with the Secret of a managed CA.
func (s *sources) step(ctx context.Context, signer *v1alpha1.Signer, now time.Time, secret ca.Secret, kept ca.Managed, in ca.Situation, rootFault *ca.Fault) error {
	next, why, err := kept.Next(now, in)
	if err != nil {
		return err
	}
	switch next {
	case ca.Settle:
		if err := s.store.Write(ctx, in.Spec.SecretName, secret, ca.Settled()); err != nil {
			return err
		}
	case ca.Make:
		if rootFault != nil {
			return &ca.Fault{Reason: v1alpha1.ReasonRotationFailed, Message: fmt.Sprintf("a next CA is to be made, since %s; of its root: %s", why, rootFault.Message)}
		}
		change, err := kept.Replace(now, in)
		if err != nil {
			return err
		}
		if err := s.store.Write(ctx, in.Spec.SecretName, secret, change); err != nil {
			return err
		}
		log.FromContext(ctx).Info("a CA was made", "secret", in.Spec.SecretName, "why", why)
		s.events.Eventf(signer, nil, corev1.EventTypeNormal, reasonCAMade, actionRotate, "%s", shorten("a CA was made, since "+why, maxNote))
	case ca.Keep:
	}
	underWay := next == ca.Keep && kept.Previous != nil
	if in.Asked && (next == ca.Make || underWay) {
		return s.answered(ctx, signer)
	}
	return nil
}

// answered takes away the annotation that asks for a rotation.
func (s *sources) answered(ctx context.Context, signer *v1alpha1.Signer) error {
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:null}}}`, v1alpha1.RotateAnnotation)
	object := &v1alpha1.Signer{}
	object.Name = signer.Name
	if err := s.signers.Patch(ctx, object, client.RawPatch(types.MergePatchType, patch)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("taking the annotation %s away: %w", v1alpha1.RotateAnnotation, err)
	}
	return nil
}

// currentAnchor is the fingerprint of the trust anchor that signs, or "".
func currentAnchor(signer *v1alpha1.Signer) string {
	for _, a := range signer.Status.TrustAnchors {
		if a.Phase == v1alpha1.TrustAnchorCurrent {
			return a.Fingerprint
		}
	}
	return ""
}
