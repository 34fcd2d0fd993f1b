// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
	"countersign.dev/countersign/signer/trust"
)

const (
	// resync is how often a Signer is gone over although nothing happened, so that what could not be
	// published is tried again.
	resync = 50 * time.Second
	// pendingRetry is how soon a Signer is looked at again whose Secret is not read yet; the
	// Secret itself usually brings it back before.
	pendingRetry = 5 * time.Second

	// actionLoad and actionPublish are actions of Events.
	actionLoad    = "LoadCA"
	actionPublish = "PublishTrust"

	nothingAsked = "spec.trust asks for neither a ConfigMap nor a ClusterTrustBundle"

	maxConditionMessage = 32 << 10 // bytes, which the API server limits
)

// signerReconciler keeps the registry and the status of Signers, and publishes their trust.
type signerReconciler struct {
	cached  client.Reader
	status  client.SubResourceWriter
	signers *registry
	secrets interface {
		Keep(names map[string]bool)
		Load(name string, now time.Time) (*ca.CA, error)
	}
	trust interface {
		Keep(signers []v1alpha1.Signer)
		Publish(ctx context.Context, signer *v1alpha1.Signer, bundle []byte) trust.Result
	}
	pending func(ctx context.Context, signerName string) // has the requests of a signerName reconciled
	events  events.EventRecorder
	metrics *metrics
	now     func() time.Time
}

// Reconcile loads a Signer, lets its requests through if it can issue, publishes its trust, and
// writes its status if that changed.
func (r *signerReconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var list v1alpha1.SignerList
	if err := r.cached.List(ctx, &list); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing signers: %w", err)
	}
	secrets := make(map[string]bool, len(list.Items))
	for _, s := range list.Items {
		if ref := s.Spec.CA.SecretRef; ref != nil {
			secrets[ref.Name] = true
		}
	}
	r.secrets.Keep(secrets)
	r.trust.Keep(list.Items)

	i := slices.IndexFunc(list.Items, func(s v1alpha1.Signer) bool { return s.Name == request.Name })
	if i < 0 {
		r.signers.remove(request.Name)
		r.metrics.forget(request.Name)
		return reconcile.Result{}, nil
	}
	signer := &list.Items[i]

	ready, err := r.load(signer, list.Items)
	news := r.signers.set(signer.Name, signer.Spec.SignerName, ready)
	if errors.Is(err, ca.ErrPending) {
		return reconcile.Result{RequeueAfter: pendingRetry}, nil
	}
	status := signer.Status.DeepCopy()
	again := r.noteReady(signer, status, ready, err)
	if news {
		r.pending(ctx, signer.Spec.SignerName)
	}
	r.noteTrust(ctx, signer, list.Items, status, ready)
	if err := r.write(ctx, signer, status); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: again}, nil
}

// notReady is why a Signer does not issue, where it is not for its CA.
type notReady struct{ reason, message string }

func (n *notReady) Error() string { return n.message }

// load returns what the Signer issues by. The error is a [*notReady], a [*ca.Fault] or [ca.ErrPending].
func (r *signerReconciler) load(signer *v1alpha1.Signer, all []v1alpha1.Signer) (*readySigner, error) {
	first := oldest(all, func(s *v1alpha1.Signer) bool { return s.Spec.SignerName == signer.Spec.SignerName })
	if first.Name != signer.Name {
		return nil, &notReady{
			v1alpha1.ReasonDuplicateSigner,
			fmt.Sprintf("Signer %s has the signerName %s too and is older: this one issues nothing; delete one of them", first.Name, signer.Spec.SignerName),
		}
	}
	profile, err := NewProfile(signer.Spec)
	if err != nil {
		return nil, &notReady{v1alpha1.ReasonInvalidProfile, err.Error()}
	}
	if signer.Spec.CA.SecretRef == nil {
		return nil, &notReady{v1alpha1.ReasonInvalidCA, "spec.ca has no secretRef"}
	}
	authority, err := r.secrets.Load(signer.Spec.CA.SecretRef.Name, r.now())
	if err != nil {
		return nil, err
	}
	if err := profile.Probe(r.now(), authority); err != nil {
		return nil, err
	}
	return &readySigner{signer: signer, profile: profile, ca: authority}, nil
}

// oldest returns, of the Signers that match, of which there is one at least, the one created
// first, and of two created in the same second the one whose name comes first.
func oldest(all []v1alpha1.Signer, matches func(*v1alpha1.Signer) bool) *v1alpha1.Signer {
	var first *v1alpha1.Signer
	for i := range all {
		s := &all[i]
		if !matches(s) {
			continue
		}
		if first == nil || s.CreationTimestamp.Before(&first.CreationTimestamp) ||
			s.CreationTimestamp.Equal(&first.CreationTimestamp) && s.Name < first.Name {
			first = s
		}
	}
	return first
}

// noteReady sets status and metric by what load returned, and says when to look again.
func (r *signerReconciler) noteReady(signer *v1alpha1.Signer, status *v1alpha1.SignerStatus, ready *readySigner, why error) time.Duration {
	status.ObservedGeneration = signer.Generation
	if ready != nil {
		notAfter := ready.ca.NotAfter()
		r.metrics.caNotAfter.WithLabelValues(signer.Name).Set(float64(notAfter.Unix()))
		described := ready.ca.Status()
		status.CA = &described
		condition(signer, status, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonCALoaded,
			fmt.Sprintf("%s, until %s", described.Subject, notAfter.UTC().Format(time.RFC3339)))
		untilUnfit := notAfter.Add(-ready.profile.minDuration).Sub(r.now()) + time.Second
		return min(resync, max(untilUnfit, time.Second))
	}
	r.metrics.caNotAfter.DeleteLabelValues(signer.Name)
	status.CA = nil
	reason, message := v1alpha1.ReasonInvalidCA, why.Error()
	var fault *ca.Fault
	var other *notReady
	switch {
	case errors.As(why, &fault):
		reason = fault.Reason
	case errors.As(why, &other):
		reason = other.reason
	}
	condition(signer, status, v1alpha1.ConditionReady, metav1.ConditionFalse, reason, message)
	return resync
}

// noteTrust publishes, if that is asked for and possible, and sets the status by what became of it.
func (r *signerReconciler) noteTrust(ctx context.Context, signer *v1alpha1.Signer, all []v1alpha1.Signer, status *v1alpha1.SignerStatus, ready *readySigner) {
	set := func(value metav1.ConditionStatus, reason, message string) {
		condition(signer, status, v1alpha1.ConditionTrustPublished, value, reason, message)
	}
	where := signer.Spec.Trust.ConfigMap
	wanted := where != nil || signer.Spec.Trust.ClusterTrustBundle
	switch {
	case !wanted && (ready == nil || signer.Status.Published == nil):
		set(metav1.ConditionTrue, v1alpha1.ReasonNotRequested, nothingAsked)
		return
	case ready == nil:
		set(metav1.ConditionFalse, v1alpha1.ReasonPublishFailed, "there is nothing to publish until the Signer is Ready; what was published before is left as it is")
		return
	}
	if where != nil {
		first := oldest(all, func(s *v1alpha1.Signer) bool {
			return s.Spec.Trust.ConfigMap != nil && s.Spec.Trust.ConfigMap.Name == where.Name
		})
		if first.Name != signer.Name {
			set(metav1.ConditionFalse, v1alpha1.ReasonPublishFailed, fmt.Sprintf(
				"Signer %s publishes in ConfigMaps named %s too and is older: choose another name in spec.trust.configMap", first.Name, where.Name))
			return
		}
	}
	result := r.trust.Publish(ctx, signer, ready.ca.TrustPEM())
	status.Published = result.Published
	switch {
	case errors.Is(result.Err, trust.ErrPending): // as it was
	case result.Err != nil:
		set(metav1.ConditionFalse, v1alpha1.ReasonPublishFailed, result.Err.Error())
	case !wanted:
		set(metav1.ConditionTrue, v1alpha1.ReasonNotRequested, nothingAsked)
	default:
		set(metav1.ConditionTrue, v1alpha1.ReasonPublished, result.Message)
	}
}

func condition(signer *v1alpha1.Signer, status *v1alpha1.SignerStatus, kind string, value metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type: kind, Status: value, Reason: reason,
		Message: shorten(message, maxConditionMessage), ObservedGeneration: signer.Generation,
	})
}

// write writes a status that changed, and then emits an Event for what became worse.
func (r *signerReconciler) write(ctx context.Context, signer *v1alpha1.Signer, status *v1alpha1.SignerStatus) error {
	if equality.Semantic.DeepEqual(signer.Status, *status) {
		return nil
	}
	updated := signer.DeepCopy()
	updated.Status = *status
	err := r.status.Update(ctx, updated)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("writing the status of the Signer: %w", err)
	}
	ready := meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionReady)
	for kind, action := range map[string]string{
		v1alpha1.ConditionReady:          actionLoad,
		v1alpha1.ConditionTrustPublished: actionPublish,
	} {
		before, after := meta.FindStatusCondition(signer.Status.Conditions, kind), meta.FindStatusCondition(status.Conditions, kind)
		if after == nil || before != nil && before.Status == after.Status && before.Reason == after.Reason {
			continue
		}
		log.FromContext(ctx).Info("Signer changed", "condition", kind, "status", after.Status, "reason", after.Reason, "message", after.Message)
		// That nothing is published while the Signer is not ready needs no Event of its own.
		if after.Status == metav1.ConditionFalse && (kind == v1alpha1.ConditionReady || ready) {
			r.events.Eventf(updated, nil, corev1.EventTypeWarning, after.Reason, action, "%s", shorten(after.Message, maxNote))
		}
	}
	return nil
}
