// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/internal/text"
	"countersign.dev/countersign/signer/ca/source"
)

const (
	actionLoad    = "LoadCA"
	actionPublish = "PublishTrust"
	actionRotate  = "RotateCA"

	// reasonSwitched is the reason of the Event on a Signer when another of its CAs starts to sign.
	reasonSwitched = "CASwitched"
	// reasonRetired is the reason of the Event on a Signer when one of its CAs is no longer trusted.
	reasonRetired = "CARetired"

	maxConditionMessage = 32 << 10 // bytes, the API server's limit
)

// conditionActions are the conditions of a Signer, and the action of the Event when one becomes false.
var conditionActions = []struct{ condition, action string }{
	{v1alpha1.ConditionReady, actionLoad},
	{v1alpha1.ConditionTrustPublished, actionPublish},
	{v1alpha1.ConditionRotating, actionRotate},
}

// newStatus returns the status of a Signer by a decision.
func newStatus(signer *v1alpha1.Signer, d decision, from source.Result) *v1alpha1.SignerStatus {
	status := signer.Status.DeepCopy()
	status.ObservedGeneration = signer.Generation
	status.TrustAnchors = d.rotation.Anchors
	setReady(signer, status, d)
	setRotating(signer, status, d, from)
	return status
}

func setReady(signer *v1alpha1.Signer, status *v1alpha1.SignerStatus, d decision) {
	if d.ready == nil {
		status.CA = nil
		setCondition(signer, status, v1alpha1.ConditionReady, metav1.ConditionFalse, d.problem.Reason, d.problem.Message)
		return
	}
	described := d.ready.ca.Status()
	status.CA = &described
	setCondition(signer, status, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonCALoaded,
		fmt.Sprintf("%s, valid until %s", described.Subject, described.NotAfter.UTC().Format(time.RFC3339)))
}

func setRotating(signer *v1alpha1.Signer, status *v1alpha1.SignerStatus, d decision, from source.Result) {
	value, reason, message := metav1.ConditionFalse, d.rotation.Reason, d.rotation.Message
	switch {
	case d.rotation.Rotating:
		value = metav1.ConditionTrue
	case from.RotationProblem != nil:
		reason, message = from.RotationProblem.Reason, from.RotationProblem.Message
	case from.RotationMessage != "":
		message += "; " + from.RotationMessage
	}
	setCondition(signer, status, v1alpha1.ConditionRotating, value, reason, message)
}

func setCondition(signer *v1alpha1.Signer, status *v1alpha1.SignerStatus, kind string, value metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type: kind, Status: value, Reason: reason,
		Message: text.Shorten(message, maxConditionMessage), ObservedGeneration: signer.Generation,
	})
}

// write writes a status that changed, emits Events of the changes, and returns the Signer with the new status.
func (r *signerReconciler) write(ctx context.Context, signer *v1alpha1.Signer, status *v1alpha1.SignerStatus) (*v1alpha1.Signer, error) {
	if equality.Semantic.DeepEqual(signer.Status, *status) {
		return signer, nil
	}
	updated := signer.DeepCopy()
	updated.Status = *status
	if err := r.status.Update(ctx, updated); err != nil {
		return signer, fmt.Errorf("writing the status of the Signer: %w", err)
	}
	if len(updated.Status.TrustAnchors) != len(status.TrustAnchors) {
		return signer, errors.New("the API server drops status.trustAnchors: apply the custom resource definitions of this version, deploy/base/crds")
	}
	for _, c := range conditionActions {
		before, after := meta.FindStatusCondition(signer.Status.Conditions, c.condition), meta.FindStatusCondition(status.Conditions, c.condition)
		if after == nil || before != nil && before.Status == after.Status && before.Reason == after.Reason {
			continue
		}
		log.FromContext(ctx).Info("Signer changed", "condition", c.condition, "status", after.Status, "reason", after.Reason, "message", after.Message)
		if needsEvent(status, after) {
			r.events.Eventf(updated, nil, corev1.EventTypeWarning, after.Reason, c.action, "%s", text.Shorten(after.Message, maxNote))
		}
	}
	r.emitSwitches(updated, signer.Status.TrustAnchors, status.TrustAnchors)
	return updated, nil
}

// needsEvent reports whether a user has to act on a condition. While a Signer is not ready, only the condition Ready
// needs an Event.
func needsEvent(status *v1alpha1.SignerStatus, c *metav1.Condition) bool {
	switch {
	case c.Status != metav1.ConditionFalse:
		return false
	case c.Type == v1alpha1.ConditionReady:
		return true
	case !meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionReady):
		return false
	default:
		return c.Type != v1alpha1.ConditionRotating || c.Reason != v1alpha1.ReasonSettled && c.Reason != v1alpha1.ReasonOverlapping
	}
}

// emitSwitches emits an Event for each CA that starts to sign, and for each that is no longer trusted.
func (r *signerReconciler) emitSwitches(signer *v1alpha1.Signer, before, after []v1alpha1.TrustAnchor) {
	for _, a := range after {
		if a.Phase == v1alpha1.TrustAnchorCurrent && len(before) > 0 && phaseOf(before, a.Fingerprint) != v1alpha1.TrustAnchorCurrent {
			r.events.Eventf(signer, nil, corev1.EventTypeNormal, reasonSwitched, actionRotate, "%q (%.8s) signs from now on", a.Subject, a.Fingerprint)
		}
	}
	for _, a := range before {
		if a.Phase != v1alpha1.TrustAnchorNext && phaseOf(after, a.Fingerprint) == "" {
			r.events.Eventf(signer, nil, corev1.EventTypeNormal, reasonRetired, actionRotate, "%q (%.8s) is no longer trusted", a.Subject, a.Fingerprint)
		}
	}
}

func phaseOf(anchors []v1alpha1.TrustAnchor, fingerprint string) v1alpha1.TrustAnchorPhase {
	for _, a := range anchors {
		if a.Fingerprint == fingerprint {
			return a.Phase
		}
	}
	return ""
}
