// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"context"
	"crypto/sha256"
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
	"countersign.dev/countersign/internal/text"
	"countersign.dev/countersign/signer/ca"
	"countersign.dev/countersign/signer/issuance"
	"countersign.dev/countersign/signer/trust"
)

const (
	// resync is how often a Signer is gone over although nothing happened, so that what could not be
	// published is tried again.
	resync = 50 * time.Second
	// publishRetry is how soon it is tried again to publish what could not be.
	publishRetry = 5 * time.Second
	// soon is at once, though not so soon that something that never settles takes all there is.
	soon = 100 * time.Millisecond
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
	live    client.Reader
	status  client.SubResourceWriter
	signers *registry
	sources interface {
		keep(signers []v1alpha1.Signer)
		load(ctx context.Context, signer *v1alpha1.Signer, now time.Time, fits func(*ca.CA) error) (offer, error)
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

// Reconcile loads a Signer and takes the rotation of its CA as far as it goes; what it decides is on record in the
// status before anything is signed or published by it.
func (r *signerReconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var list v1alpha1.SignerList
	if err := r.cached.List(ctx, &list); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing signers: %w", err)
	}
	r.sources.keep(list.Items)
	r.trust.Keep(list.Items)

	// Live: the record of the rotation must be the one written last.
	signer := &v1alpha1.Signer{}
	err := r.live.Get(ctx, request.NamespacedName, signer)
	switch {
	case apierrors.IsNotFound(err):
		r.signers.remove(request.Name)
		r.metrics.forget(request.Name)
		return reconcile.Result{}, nil
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("reading the Signer: %w", err)
	}
	if i := slices.IndexFunc(list.Items, func(s v1alpha1.Signer) bool { return s.Name == signer.Name }); i >= 0 {
		list.Items[i] = *signer
	} else {
		list.Items = append(list.Items, *signer)
	}
	loaded, err := r.load(ctx, signer, list.Items, r.now())
	now := r.now()
	if err != nil && !isVerdict(err) {
		if errors.Is(err, ca.ErrPending) {
			r.signers.set(signer.Name, signer.Spec.SignerName, nil)
			return reconcile.Result{RequeueAfter: pendingRetry}, nil
		}
		return reconcile.Result{}, err
	}
	rotation := ca.Rotate(now, signer.Status.TrustAnchors, loaded.newest, loaded.previous, loaded.settings)
	if err == nil && rotation.Waits != nil {
		err = rotation.Waits
	}
	ready, err := loaded.ready(signer, rotation.Signing, err, now)
	if ready == nil {
		r.signers.set(signer.Name, signer.Spec.SignerName, nil)
	}

	status := signer.Status.DeepCopy()
	status.ObservedGeneration = signer.Generation
	status.TrustAnchors = rotation.Anchors
	r.noteReady(signer, status, ready, err)
	noteRotating(signer, status, rotation, loaded.offer)
	if signer, err = r.write(ctx, signer, status); err != nil {
		if !ready.sameAs(r.signers.get(signer.Spec.SignerName)) {
			r.signers.set(signer.Name, signer.Spec.SignerName, nil) // not on record, so not done
		}
		return afterConflict(err)
	}
	if r.signers.set(signer.Name, signer.Spec.SignerName, ready) {
		r.pending(ctx, signer.Spec.SignerName)
	}

	status = signer.Status.DeepCopy()
	retry := r.noteTrust(ctx, signer, list.Items, status)
	r.metrics.setStatus(signer.Name, status)
	if signer, err = r.write(ctx, signer, status); err != nil {
		return afterConflict(err)
	}
	// What was published just now may let the next CA sign: soon, or at once if its time has come meanwhile.
	rotation = ca.Rotate(r.now(), signer.Status.TrustAnchors, loaded.newest, loaded.previous, loaded.settings)
	if !equality.Semantic.DeepEqual(rotation.Anchors, signer.Status.TrustAnchors) {
		return reconcile.Result{RequeueAfter: soon}, nil
	}
	return reconcile.Result{RequeueAfter: r.again(ready, rotation.Again, loaded.again, retry)}, nil
}

// afterConflict is what to do when the status could not be written: at once again if somebody changed the Signer.
func afterConflict(err error) (reconcile.Result, error) {
	if apierrors.IsConflict(err) {
		return reconcile.Result{RequeueAfter: soon}, nil
	}
	return reconcile.Result{}, client.IgnoreNotFound(err)
}

// again is how soon the Signer is to be looked at although nothing happens.
func (r *signerReconciler) again(ready *readySigner, times ...time.Time) time.Duration {
	if ready != nil {
		times = append(times, ready.ca.NotAfter().Add(-ready.profile.MinDuration()))
	}
	wait := resync
	for _, t := range times {
		if !t.IsZero() {
			wait = min(wait, max(t.Sub(r.now()), 0)+10*time.Millisecond)
		}
	}
	return wait
}

// notReady is why a Signer does not issue, where it is not for its CA.
type notReady struct{ reason, message string }

func (n *notReady) Error() string { return n.message }

// isVerdict reports whether an error is a state of the Signer that its status is to tell of.
func isVerdict(err error) bool {
	_, fault := errors.AsType[*ca.Problem](err)
	_, other := errors.AsType[*notReady](err)
	return fault || other
}

// loadedSigner is what a Signer issues by, before it is known which CA signs.
type loadedSigner struct {
	offer
	profile  issuance.Profile
	settings ca.Settings
}

// load returns what the Signer issues by; where that fails, as much as is known. The error is a [*notReady], a [*ca.Problem], [ca.ErrPending], or that of an
// API call.
func (r *signerReconciler) load(ctx context.Context, signer *v1alpha1.Signer, all []v1alpha1.Signer, now time.Time) (loadedSigner, error) {
	l := loadedSigner{settings: ca.Settings{Propagation: propagation(signer), Distrusted: signer.Spec.Trust.Distrusted}}
	first := oldest(all, func(s *v1alpha1.Signer) bool { return s.Spec.SignerName == signer.Spec.SignerName })
	if first.Name != signer.Name {
		return l, &notReady{
			v1alpha1.ReasonDuplicateSigner,
			fmt.Sprintf("Signer %s has the signerName %s too and is older: this one issues nothing; delete one of them", first.Name, signer.Spec.SignerName),
		}
	}
	if managed := signer.Spec.CA.Managed; managed != nil {
		first := oldest(all, func(s *v1alpha1.Signer) bool {
			return s.Spec.CA.Managed != nil && s.Spec.CA.Managed.SecretName == managed.SecretName
		})
		if first.Name != signer.Name {
			return l, &notReady{
				v1alpha1.ReasonDuplicateSecret,
				fmt.Sprintf("Signer %s keeps its CA in the Secret %s too and is older: choose another spec.ca.managed.secretName", first.Name, managed.SecretName),
			}
		}
	}
	var err error
	if l.profile, err = issuance.NewProfile(signer.Spec); err != nil {
		return l, &notReady{v1alpha1.ReasonInvalidProfile, err.Error()}
	}
	least := l.settings.Propagation + l.profile.MinDuration()
	if managed := signer.Spec.CA.Managed; managed != nil && ca.RenewBefore(managed) <= least {
		return l, &notReady{v1alpha1.ReasonInvalidProfile, fmt.Sprintf(
			"spec.ca.managed.renewBefore is %v: it must be longer than spec.trust.propagation and spec.certificate.minDuration together, %v, or a CA cannot issue any more when the next one begins to",
			ca.RenewBefore(managed), least)}
	}
	l.settings.MaxDuration = l.profile.MaxDuration()
	l.offer, err = r.sources.load(ctx, signer, now, func(c *ca.CA) error {
		if problem := l.profile.Probe(now, c); problem != nil {
			return problem
		}
		return nil
	})
	if err != nil {
		if fault, ok := errors.AsType[*ca.Problem](err); ok && (fault.Reason == v1alpha1.ReasonSecretNotFound || fault.Reason == v1alpha1.ReasonFileNotFound) {
			r.signers.forgetCA(signer.Name) // whoever took it away meant its key
		}
		l.newest, l.previous = nil, nil
		return l, err
	}
	if l.previous == nil {
		l.previous = r.signers.lastCA(signer.Name, signer.UID) // its Secret may have another one already
	}
	return l, nil
}

// ready returns what requests are issued by, or why they are not; it passes an error on that is known already.
func (l *loadedSigner) ready(signer *v1alpha1.Signer, signing *ca.CA, err error, now time.Time) (*readySigner, error) {
	switch {
	case err != nil:
		return nil, err
	case signing == nil: // although there is a newest CA
		return nil, &ca.Problem{Reason: v1alpha1.ReasonCADistrusted, Message: fmt.Sprintf(
			"%q, or an issuer of it, is listed in spec.trust.distrusted: use another CA", l.newest.Certificate().Subject)}
	}
	if problem := l.profile.Probe(now, signing); problem != nil {
		return nil, problem
	}
	return &readySigner{signer: signer, profile: l.profile, ca: signing}, nil
}

const defaultPropagation = 5 * time.Minute

func propagation(signer *v1alpha1.Signer) time.Duration {
	if d := signer.Spec.Trust.Propagation; d != nil {
		return d.Duration
	}
	return defaultPropagation
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

// noteReady sets the status by whether the Signer issues, or else why not.
func (r *signerReconciler) noteReady(signer *v1alpha1.Signer, status *v1alpha1.SignerStatus, ready *readySigner, why error) {
	if ready != nil {
		described := ready.ca.Status()
		status.CA = &described
		condition(signer, status, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonCALoaded,
			fmt.Sprintf("%s, until %s", described.Subject, described.NotAfter.UTC().Format(time.RFC3339)))
		return
	}
	status.CA = nil
	reason := v1alpha1.ReasonInvalidCA
	if fault, ok := errors.AsType[*ca.Problem](why); ok {
		reason = fault.Reason
	}
	if other, ok := errors.AsType[*notReady](why); ok {
		reason = other.reason
	}
	condition(signer, status, v1alpha1.ConditionReady, metav1.ConditionFalse, reason, why.Error())
}

// noteRotating sets the status by how far a rotation is.
func noteRotating(signer *v1alpha1.Signer, status *v1alpha1.SignerStatus, rotation ca.Rotation, from offer) {
	value, reason, message := metav1.ConditionFalse, rotation.Reason, rotation.Message
	switch {
	case rotation.Rotating:
		value = metav1.ConditionTrue
	case from.stuck != nil:
		reason, message = from.stuck.Reason, from.stuck.Message
	case from.note != "":
		message += "; " + from.note
	}
	condition(signer, status, v1alpha1.ConditionRotating, value, reason, message)
}

// noteTrust publishes what is on record, and sets the status by what became of it. It returns when to try again, if not
// all could be written.
func (r *signerReconciler) noteTrust(ctx context.Context, signer *v1alpha1.Signer, all []v1alpha1.Signer, status *v1alpha1.SignerStatus) (again time.Time) {
	set := func(value metav1.ConditionStatus, reason, message string) {
		condition(signer, status, v1alpha1.ConditionTrustPublished, value, reason, message)
	}
	bundle := ca.Bundle(status.TrustAnchors)
	nowhere := !signer.Spec.Trust.ClusterTrustBundle && signer.Spec.Trust.ConfigMap == nil
	switch {
	case len(bundle) == 0 && nowhere:
		set(metav1.ConditionTrue, v1alpha1.ReasonNotRequested, nothingAsked)
		return again
	case len(bundle) == 0 && len(signer.Spec.Trust.Distrusted) > 0 && status.Published != nil:
		return r.withdraw(ctx, signer, status)
	case len(bundle) == 0:
		set(metav1.ConditionFalse, v1alpha1.ReasonPublishFailed, "there is nothing to publish until the Signer is Ready; what was published before is left as it is")
		return again
	}
	// Two that publish by the same name would undo each other's work for ever: one of them gives way.
	var givesWay error
	if where := signer.Spec.Trust.ConfigMap; where != nil {
		wants := func(s *v1alpha1.Signer) bool {
			return s.Spec.Trust.ConfigMap != nil && s.Spec.Trust.ConfigMap.Name == where.Name
		}
		has := func(s *v1alpha1.Signer) bool {
			return wants(s) && s.Status.Published != nil && s.Status.Published.ConfigMap == where.Name
		}
		first := oldest(all, has)
		if first == nil {
			first = oldest(all, wants)
		}
		if first.Name != signer.Name {
			givesWay = fmt.Errorf("Signer %s publishes in ConfigMaps named %s too, and comes first: choose another name in spec.trust.configMap", first.Name, where.Name)
			signer = signer.DeepCopy()
			signer.Spec.Trust.ConfigMap = nil
		}
	}
	result := r.trust.Publish(ctx, signer, bundle)
	status.Published = result.Published
	status.BundleSHA256 = fmt.Sprintf("%x", sha256.Sum256(bundle))
	moved := !equality.Semantic.DeepEqual(signer.Status.Published, result.Published)
	if nowhereYet := !result.Complete && result.Published == nil; moved || nowhereYet {
		for i := range status.TrustAnchors { // it is not where it was before: clients have to learn of it anew
			if status.TrustAnchors[i].Phase == v1alpha1.TrustAnchorNext {
				status.TrustAnchors[i].PublishedAt = nil
			}
		}
	}
	if result.Complete {
		ca.Published(status.TrustAnchors, r.now())
	} else {
		again = r.now().Add(publishRetry)
	}
	switch {
	case errors.Is(result.Err, trust.ErrPending): // as it was
	case result.Err != nil || givesWay != nil:
		set(metav1.ConditionFalse, v1alpha1.ReasonPublishFailed, text.JoinErrors(givesWay, result.Err).Error())
	case nowhere:
		set(metav1.ConditionTrue, v1alpha1.ReasonNotRequested, nothingAsked)
	default:
		set(metav1.ConditionTrue, v1alpha1.ReasonPublished, result.Message)
	}
	return again
}

// withdraw removes all that the Signer has published: every CA in it is distrusted, and none is there to take its place.
func (r *signerReconciler) withdraw(ctx context.Context, signer *v1alpha1.Signer, status *v1alpha1.SignerStatus) (again time.Time) {
	unwanted := signer.DeepCopy()
	unwanted.Spec.Trust.ClusterTrustBundle, unwanted.Spec.Trust.ConfigMap = false, nil
	result := r.trust.Publish(ctx, unwanted, nil)
	status.Published, status.BundleSHA256 = result.Published, ""
	message := "nothing is published, since no CA is left that is not listed in spec.trust.distrusted"
	if result.Err != nil {
		message = result.Err.Error()
		again = r.now().Add(publishRetry)
	}
	condition(signer, status, v1alpha1.ConditionTrustPublished, metav1.ConditionFalse, v1alpha1.ReasonWithdrawn, message)
	return again
}

func condition(signer *v1alpha1.Signer, status *v1alpha1.SignerStatus, kind string, value metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type: kind, Status: value, Reason: reason,
		Message: text.Shorten(message, maxConditionMessage), ObservedGeneration: signer.Generation,
	})
}

// conditionActions are the conditions of a Signer, with what was attempted when one is false.
var conditionActions = map[string]string{
	v1alpha1.ConditionReady:          actionLoad,
	v1alpha1.ConditionTrustPublished: actionPublish,
	v1alpha1.ConditionRotating:       actionRotate,
}

// write writes a status that changed, tells of what changed in it, and returns the Signer as it is then.
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
		return signer, errors.New("the API server does not keep status.trustAnchors: apply the custom resource definitions of this version, deploy/base/crds")
	}
	ready := meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionReady)
	for kind, action := range conditionActions {
		before, after := meta.FindStatusCondition(signer.Status.Conditions, kind), meta.FindStatusCondition(status.Conditions, kind)
		if after == nil || before != nil && before.Status == after.Status && before.Reason == after.Reason {
			continue
		}
		log.FromContext(ctx).Info("Signer changed", "condition", kind, "status", after.Status, "reason", after.Reason, "message", after.Message)
		isFault := after.Status == metav1.ConditionFalse
		if kind == v1alpha1.ConditionRotating {
			isFault = isFault && after.Reason != v1alpha1.ReasonSettled && after.Reason != v1alpha1.ReasonOverlapping
		}
		// That nothing is published while the Signer is not ready needs no Event of its own.
		if isFault && (kind == v1alpha1.ConditionReady || ready) {
			r.events.Eventf(updated, nil, corev1.EventTypeWarning, after.Reason, action, "%s", text.Shorten(after.Message, maxNote))
		}
	}
	r.tellOfCAs(updated, signer.Status.TrustAnchors, status.TrustAnchors)
	return updated, nil
}

// tellOfCAs emits an Event for each CA that signs from now on, and each that is not trusted any more.
func (r *signerReconciler) tellOfCAs(signer *v1alpha1.Signer, before, after []v1alpha1.TrustAnchor) {
	phase := func(anchors []v1alpha1.TrustAnchor, id string) v1alpha1.TrustAnchorPhase {
		for _, a := range anchors {
			if a.Fingerprint == id {
				return a.Phase
			}
		}
		return ""
	}
	for _, a := range after {
		if a.Phase == v1alpha1.TrustAnchorCurrent && len(before) > 0 && phase(before, a.Fingerprint) != v1alpha1.TrustAnchorCurrent {
			r.events.Eventf(signer, nil, corev1.EventTypeNormal, reasonCASwitched, actionRotate, "%q (%.8s) signs from now on", a.Subject, a.Fingerprint)
		}
	}
	for _, a := range before {
		if a.Phase != v1alpha1.TrustAnchorNext && phase(after, a.Fingerprint) == "" {
			r.events.Eventf(signer, nil, corev1.EventTypeNormal, reasonCARetired, actionRotate, "%q (%.8s) is not trusted any more", a.Subject, a.Fingerprint)
		}
	}
}
