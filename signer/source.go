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
	"countersign.dev/countersign/internal/text"
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
	stuck            *ca.Problem // why no next CA is made although it is time, or cannot sign; newest goes on
	note             string      // what else there is to know of the CA
	again            time.Time   // when the source is to be asked again; zero if it tells by itself
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

// load returns what the source of a Signer has now. fits returns a [*ca.Problem] for a CA that cannot issue what the Signer allows. The
// error is a [*ca.Problem], [ca.ErrPending], or that of an API call.
func (s *sources) load(ctx context.Context, signer *v1alpha1.Signer, now time.Time, fits func(*ca.CA) error) (offer, error) {
	from := signer.Spec.CA
	asked := signer.Annotations[v1alpha1.RotateAnnotation] == rotateNow
	if asked && from.Managed == nil {
		s.events.Eventf(signer, nil, corev1.EventTypeWarning, reasonNotRotated, actionRotate,
			"only a CA that Countersign manages is rotated by annotation: replace the CA in its %s instead", kindOf(from))
		if err := s.answered(ctx, signer); err != nil {
			log.FromContext(ctx).Error(err, "the annotation stays, and so does the CA")
		}
	}
	var o offer
	var err error
	switch {
	case from.Managed != nil:
		return s.managed(ctx, signer, now, asked, fits)
	case from.File != nil:
		o.newest, err = s.files.Load(from.File.Directory, now)
	case from.SecretRef != nil:
		o.newest, err = s.secrets.Load(from.SecretRef.Name, now)
	default:
		err = &ca.Problem{Reason: v1alpha1.ReasonInvalidCA, Message: "spec.ca names no source that this version knows: set secretRef, managed or file"}
	}
	if err == nil {
		err = fits(o.newest)
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
func (s *sources) managed(ctx context.Context, signer *v1alpha1.Signer, now time.Time, asked bool, fits func(*ca.CA) error) (offer, error) {
	spec := signer.Spec.CA.Managed
	secret, err := s.secrets.Get(spec.SecretName)
	if err != nil {
		return offer{}, err
	}
	if secret.Found && secret.Type != v1alpha1.ManagedCASecretType {
		return offer{}, &ca.Problem{Reason: v1alpha1.ReasonNotManaged, Message: fmt.Sprintf(
			"Secret %s is of type %s, not %s: choose another spec.ca.managed.secretName, or use the CA in it with spec.ca.secretRef",
			spec.SecretName, secret.Type, v1alpha1.ManagedCASecretType)}
	}
	if secret.Signer != "" && secret.Signer != signer.Name {
		return offer{}, &ca.Problem{Reason: v1alpha1.ReasonDuplicateSecret, Message: fmt.Sprintf(
			"Secret %s has the CA of Signer %s: choose another spec.ca.managed.secretName", spec.SecretName, secret.Signer)}
	}
	kept, err := ca.LoadManaged(secret.Data)
	if problem, ok := errors.AsType[*ca.Problem](err); ok {
		return offer{}, &ca.Problem{Reason: problem.Reason, Message: fmt.Sprintf("%s; or delete the Secret %s, and Countersign makes a new CA", problem.Message, spec.SecretName)}
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
	rootProblem, _ := errors.AsType[*ca.Problem](err)
	situation := ca.Situation{Spec: spec, Root: root, Current: currentAnchor(signer), Distrusted: signer.Spec.Trust.Distrusted, Asked: asked}
	var unfit error
	if kept.Newest != nil {
		unfit = fits(kept.Newest)
		situation.Unfit = unfit != nil
	}
	made, err := s.step(ctx, signer, now, secret, kept, situation, rootProblem)
	switch {
	case err != nil:
		if apierrors.IsConflict(err) {
			log.FromContext(ctx).V(1).Info("the Secret of the CA has changed meanwhile", "secret", spec.SecretName)
		}
		return notStepped(now, kept, err)
	case made && (unfit != nil || kept.Newest == nil || kept.Newest.Distrusted(signer.Spec.Trust.Distrusted)):
		return offer{}, ca.ErrPending // the one that was made takes its place in a moment
	}
	o := offer{newest: kept.Newest, previous: kept.Previous}
	problem, _ := errors.AsType[*ca.Problem](unfit)
	switch {
	case unfit != nil && problem != nil && kept.Previous != nil && kept.Previous.AnchoredBy(situation.Current) && fits(kept.Previous) == nil:
		return offer{newest: kept.Previous, stuck: problem}, nil // which signs until the next one can
	case unfit != nil:
		return offer{}, unfit
	}
	if at := kept.RenewAt(spec); at.After(now) { // or else a next one is made, and the Secret's change tells of it
		o.again = at
	}
	changed, err := kept.Changed(now, spec)
	if problem, ok := errors.AsType[*ca.Problem](err); ok {
		o.stuck = problem
	} else if changed != "" {
		o.note = fmt.Sprintf("the CA was made before spec.ca.managed was changed (%s): the next one is made by it, at once with 'kubectl annotate signer %s %s=%s'",
			changed, signer.Name, v1alpha1.RotateAnnotation, rotateNow)
	}
	return o, nil
}

// notStepped is what a managed CA offers if its next step failed: itself, as long as it is valid.
func notStepped(now time.Time, kept ca.Managed, err error) (offer, error) {
	problem, known := errors.AsType[*ca.Problem](err)
	if !known {
		problem = &ca.Problem{Reason: v1alpha1.ReasonRotationFailed, Message: err.Error()}
	}
	o := offer{newest: kept.Newest, previous: kept.Previous, stuck: problem}
	switch {
	case apierrors.IsConflict(err):
		o.stuck, o.again = nil, now.Add(time.Second)
		if kept.Newest == nil {
			return offer{}, ca.ErrPending
		}
	case !known:
		o.again = now.Add(pendingRetry)
	case problem.Reason == v1alpha1.ReasonSecretReadOnly:
		o.again = now.Add(writeRetry)
	}
	if kept.Newest == nil || kept.Newest.ValidAt(now, 0) != nil {
		return offer{again: o.again}, err
	}
	return o, nil
}

// step takes the next step with the Secret of a managed CA, and reports whether a CA was made.
func (s *sources) step(ctx context.Context, signer *v1alpha1.Signer, now time.Time, secret ca.Secret, kept ca.Managed, in ca.Situation, rootProblem *ca.Problem) (made bool, _ error) {
	next, why, err := kept.Next(now, in)
	if err != nil {
		return false, err
	}
	switch next {
	case ca.Settle:
		if err := s.store.Write(ctx, signer.Name, in.Spec.SecretName, secret, ca.Settled()); err != nil {
			return false, err
		}
	case ca.Make:
		if rootProblem != nil {
			return false, &ca.Problem{Reason: v1alpha1.ReasonRotationFailed, Message: fmt.Sprintf("a next CA is to be made, since %s; of its root: %s", why, rootProblem.Message)}
		}
		if in.Asked {
			if err := s.answered(ctx, signer, client.DryRunAll); err != nil {
				return false, &ca.Problem{Reason: v1alpha1.ReasonRotationFailed, Message: err.Error() + " (grant the signer patch on signers of countersign.dev)"}
			}
		}
		if err := s.store.Check(ctx, signer.Name, in.Spec.SecretName, secret); err != nil {
			return false, err
		}
		change, err := kept.Replace(now, in)
		if err != nil {
			return false, err
		}
		if err := s.store.Write(ctx, signer.Name, in.Spec.SecretName, secret, change); err != nil {
			return false, err
		}
		log.FromContext(ctx).Info("a CA was made", "secret", in.Spec.SecretName, "why", why)
		s.events.Eventf(signer, nil, corev1.EventTypeNormal, reasonCAMade, actionRotate, "%s", text.Shorten("a CA was made, since "+why, maxNote))
	case ca.Keep:
	}
	if in.Asked && next != ca.Settle { // with Keep, one is under way already
		return next == ca.Make, s.answered(ctx, signer)
	}
	return next == ca.Make, nil
}

// answered takes away the annotation that asks for a rotation.
func (s *sources) answered(ctx context.Context, signer *v1alpha1.Signer, options ...client.PatchOption) error {
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:null}}}`, v1alpha1.RotateAnnotation)
	object := &v1alpha1.Signer{}
	object.Name = signer.Name
	if err := s.signers.Patch(ctx, object, client.RawPatch(types.MergePatchType, patch), options...); client.IgnoreNotFound(err) != nil {
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
