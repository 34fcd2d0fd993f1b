// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/internal/text"
	"countersign.dev/countersign/signer/ca"
	"countersign.dev/countersign/signer/trust"
)

const notRequested = "spec.trust requests neither a ConfigMap nor a ClusterTrustBundle"

// publish publishes the CAs of the status, and sets the status by the result. It returns when to retry an incomplete
// publication.
func (r *signerReconciler) publish(ctx context.Context, signer *v1alpha1.Signer, all []v1alpha1.Signer, status *v1alpha1.SignerStatus) (retryAt time.Time) {
	bundle := ca.Bundle(status.TrustAnchors)
	switch {
	case len(bundle) > 0:
		return r.publishBundle(ctx, signer, all, status, bundle)
	case !requestsPublication(signer):
		setCondition(signer, status, v1alpha1.ConditionTrustPublished, metav1.ConditionTrue, v1alpha1.ReasonNotRequested, notRequested)
	case len(signer.Spec.Trust.Distrusted) > 0 && status.Published != nil:
		return r.withdraw(ctx, signer, status)
	default:
		setCondition(signer, status, v1alpha1.ConditionTrustPublished, metav1.ConditionFalse, v1alpha1.ReasonPublishFailed,
			"there is no CA to publish until the Signer is ready; earlier publications stay unchanged")
	}
	return time.Time{}
}

func requestsPublication(signer *v1alpha1.Signer) bool {
	return signer.Spec.Trust.ClusterTrustBundle || signer.Spec.Trust.ConfigMap != nil
}

// publishBundle publishes a bundle of CA certificates.
func (r *signerReconciler) publishBundle(ctx context.Context, signer *v1alpha1.Signer, all []v1alpha1.Signer, status *v1alpha1.SignerStatus, bundle []byte) (retryAt time.Time) {
	nameTaken := checkConfigMapName(signer, all)
	target := signer
	if nameTaken != nil {
		target = signer.DeepCopy()
		target.Spec.Trust.ConfigMap = nil
	}
	result := r.trust.Publish(ctx, target, bundle)
	status.Published = result.Published
	status.BundleSHA256 = fmt.Sprintf("%x", sha256.Sum256(bundle))
	notYetAnywhere := !result.Complete && result.Published == nil
	if notYetAnywhere || !equality.Semantic.DeepEqual(signer.Status.Published, result.Published) {
		restartPropagation(status.TrustAnchors)
	}
	if result.Complete {
		ca.Published(status.TrustAnchors, r.now())
	} else {
		retryAt = r.now().Add(publishRetry)
	}
	err := text.JoinErrors(nameTaken, result.Err)
	switch {
	case errors.Is(err, trust.ErrPending): // the condition does not change
	case result.Refused && nameTaken == nil:
		setCondition(signer, status, v1alpha1.ConditionTrustPublished, metav1.ConditionFalse, v1alpha1.ReasonPublishRefused, result.Message+"; not in "+err.Error())
	case err != nil:
		setCondition(signer, status, v1alpha1.ConditionTrustPublished, metav1.ConditionFalse, v1alpha1.ReasonPublishFailed, err.Error())
	case !requestsPublication(signer):
		setCondition(signer, status, v1alpha1.ConditionTrustPublished, metav1.ConditionTrue, v1alpha1.ReasonNotRequested, notRequested)
	default:
		setCondition(signer, status, v1alpha1.ConditionTrustPublished, metav1.ConditionTrue, v1alpha1.ReasonPublished, result.Message)
	}
	return retryAt
}

// checkConfigMapName returns an error if another Signer publishes in ConfigMaps of the same name and has precedence. Two
// Signers that write the same ConfigMaps would overwrite each other indefinitely. The Signer that has published them has
// precedence, or else the oldest.
func checkConfigMapName(signer *v1alpha1.Signer, all []v1alpha1.Signer) error {
	if signer.Spec.Trust.ConfigMap == nil {
		return nil
	}
	name := signer.Spec.Trust.ConfigMap.Name
	requests := func(s *v1alpha1.Signer) bool {
		return s.Spec.Trust.ConfigMap != nil && s.Spec.Trust.ConfigMap.Name == name
	}
	first := oldest(all, func(s *v1alpha1.Signer) bool {
		return requests(s) && s.Status.Published != nil && s.Status.Published.ConfigMap == name
	})
	if first == nil {
		first = oldest(all, requests)
	}
	if first.Name == signer.Name {
		return nil
	}
	return fmt.Errorf("name %s is used by Signer %s, which has precedence: choose another name in spec.trust.configMap", name, first.Name)
}

// restartPropagation clears PublishedAt of the next CA: clients do not find it where it was published before.
func restartPropagation(anchors []v1alpha1.TrustAnchor) {
	for i := range anchors {
		if anchors[i].Phase == v1alpha1.TrustAnchorNext {
			anchors[i].PublishedAt = nil
		}
	}
}

// withdraw removes everything that the Signer has published, if all its CAs are distrusted and there is no other.
func (r *signerReconciler) withdraw(ctx context.Context, signer *v1alpha1.Signer, status *v1alpha1.SignerStatus) (retryAt time.Time) {
	target := signer.DeepCopy()
	target.Spec.Trust.ClusterTrustBundle, target.Spec.Trust.ConfigMap = false, nil
	result := r.trust.Publish(ctx, target, nil)
	status.Published, status.BundleSHA256 = result.Published, ""
	message := "no CA is published, because every CA is listed in spec.trust.distrusted"
	if result.Err != nil {
		message = result.Err.Error()
		retryAt = r.now().Add(publishRetry)
	}
	setCondition(signer, status, v1alpha1.ConditionTrustPublished, metav1.ConditionFalse, v1alpha1.ReasonWithdrawn, message)
	return retryAt
}
