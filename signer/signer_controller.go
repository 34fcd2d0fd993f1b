// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
	"countersign.dev/countersign/signer/ca/source"
	"countersign.dev/countersign/signer/issuance"
	"countersign.dev/countersign/signer/trust"
)

const (
	// resync is the longest delay until a Signer is reconciled again. A resync retries what could not be published.
	resync = 50 * time.Second
	// publishRetry is the delay after a publication that is incomplete.
	publishRetry = 5 * time.Second
	// pendingRetry is the delay while the source of a CA has not been read. Usually the source reports a change
	// earlier.
	pendingRetry = 5 * time.Second
	// immediateRetry is the delay after a conflict, or if the next step is possible already. It limits the rate of a
	// Signer that never settles.
	immediateRetry = 100 * time.Millisecond
	// timerSlack is added to the delay until a point in time, so that the Signer is reconciled after it.
	timerSlack = 10 * time.Millisecond

	// defaultPropagation exceeds the time in which the kubelet updates a ClusterTrustBundle that is mounted by name. The
	// kubelet caches it for 5 minutes and writes it with the next sync of the Pod, at most 90 s later.
	defaultPropagation = 10 * time.Minute
	// maxPropagation is the limit of the custom resource definition.
	maxPropagation = 100 * 365 * 24 * time.Hour // 876000h
)

// signerReconciler keeps the registry and the status of Signers up to date, and publishes their CAs.
type signerReconciler struct {
	cached  client.Reader
	live    client.Reader
	status  client.SubResourceWriter
	signers *registry
	sources sources
	trust   publisher
	pending func(ctx context.Context, signerName string) // reconciles the pending requests of a signerName
	events  events.EventRecorder
	metrics *metrics
	now     func() time.Time
	clock   *clockGuard
}

// sources loads CAs: [source.Sources].
type sources interface {
	Keep(signers []v1alpha1.Signer)
	source.Source
}

// publisher publishes CAs: [trust.Publisher].
type publisher interface {
	Keep(signers []v1alpha1.Signer)
	Publish(ctx context.Context, signer *v1alpha1.Signer, bundle []byte) trust.Result
}

// Reconcile loads a Signer and advances the rotation of its CA as far as possible. It writes each decision to the status
// before it signs or publishes by it.
func (r *signerReconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	if wait := r.clock.wait(time.Now()); wait > 0 {
		log.FromContext(ctx).Info("The clock jumped: the Signer is reconciled once the clock has settled", "wait", wait)
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	signer, all, err := r.read(ctx, request.NamespacedName)
	if signer == nil || err != nil {
		return reconcile.Result{}, err
	}
	in, err := r.load(ctx, signer, all)
	switch {
	case errors.Is(err, source.ErrPending):
		r.signers.set(signer.Name, signer.Spec.SignerName, nil)
		return reconcile.Result{RequeueAfter: pendingRetry}, nil
	case err != nil:
		return reconcile.Result{}, err
	}
	decided := decide(signer, in, r.now())
	if signer, err = r.record(ctx, signer, decided, in.source); err != nil {
		return afterWriteError(err)
	}
	status := signer.Status.DeepCopy()
	retryAt := r.publish(ctx, signer, all, status)
	r.metrics.setStatus(signer.Name, status)
	if signer, err = r.write(ctx, signer, status); err != nil {
		return afterWriteError(err)
	}
	// The publication can allow the next CA to sign, immediately if the propagation period is over already.
	next := decide(signer, in, r.now()).rotation
	if !equality.Semantic.DeepEqual(next.Anchors, signer.Status.TrustAnchors) {
		return reconcile.Result{RequeueAfter: immediateRetry}, nil
	}
	return reconcile.Result{RequeueAfter: r.requeueAfter(decided.ready, next.RequeueAt, in.source.RequeueAt, retryAt)}, nil
}

// read reads the Signer, and all Signers. The Signer is nil if it does not exist.
func (r *signerReconciler) read(ctx context.Context, name types.NamespacedName) (*v1alpha1.Signer, []v1alpha1.Signer, error) {
	var list v1alpha1.SignerList
	if err := r.cached.List(ctx, &list); err != nil {
		return nil, nil, fmt.Errorf("listing signers: %w", err)
	}
	r.sources.Keep(list.Items)
	r.trust.Keep(list.Items)

	// A live read: the record of the rotation must be the one written last.
	signer := &v1alpha1.Signer{}
	err := r.live.Get(ctx, name, signer)
	switch {
	case apierrors.IsNotFound(err):
		r.signers.remove(name.Name)
		r.metrics.forget(name.Name)
		return nil, nil, nil
	case err != nil:
		return nil, nil, fmt.Errorf("reading the Signer: %w", err)
	}
	if i := slices.IndexFunc(list.Items, func(s v1alpha1.Signer) bool { return s.Name == signer.Name }); i >= 0 {
		list.Items[i] = *signer
	} else {
		list.Items = append(list.Items, *signer)
	}
	return signer, list.Items, nil
}

// inputs are the profile and the CAs of a Signer, before the CA that signs is chosen.
type inputs struct {
	profile  issuance.Profile
	settings ca.Settings
	source   source.Result // with a Problem also if the spec is invalid
	fits     source.Fits
}

// load loads the profile and the CAs of a Signer. The error is [source.ErrPending] or an error to be retried.
func (r *signerReconciler) load(ctx context.Context, signer *v1alpha1.Signer, all []v1alpha1.Signer) (inputs, error) {
	in := inputs{settings: ca.Settings{Propagation: propagation(signer), Distrusted: signer.Spec.Trust.Distrusted}}
	var problem *ca.Problem
	if in.profile, problem = validate(signer, all); problem != nil {
		in.source.Problem = problem
		return in, nil
	}
	now := r.now()
	in.settings.MinDuration, in.settings.MaxDuration = in.profile.MinDuration(), in.profile.MaxDuration()
	in.fits = onceEach(func(c *ca.CA) *ca.Problem { return in.profile.Probe(now, c) })
	var err error
	if in.source, err = r.sources.Load(ctx, signer, now, in.fits); err != nil {
		return in, err
	}
	switch problem := in.source.Problem; {
	case problem == nil && in.source.Previous == nil:
		in.source.Previous = r.signers.lastCA(signer) // its Secret can contain the next CA already
	case problem != nil && !problem.Transient && (problem.Reason == v1alpha1.ReasonSecretNotFound || problem.Reason == v1alpha1.ReasonFileNotFound):
		r.signers.forgetCA(signer.Name) // removing the CA revokes the use of its key
	}
	return in, nil
}

// onceEach returns fits with a cache of its results.
func onceEach(fits source.Fits) source.Fits {
	results := map[*ca.CA]*ca.Problem{}
	return func(c *ca.CA) *ca.Problem {
		problem, cached := results[c]
		if !cached {
			problem = fits(c)
			results[c] = problem
		}
		return problem
	}
}

// decision is the outcome of reconciling a Signer: its rotation, and whether it issues.
type decision struct {
	rotation ca.Rotation
	ready    *readySigner // nil if no requests are issued
	problem  *ca.Problem  // why no requests are issued
}

// decide chooses the CA that signs.
func decide(signer *v1alpha1.Signer, in inputs, now time.Time) decision {
	d := decision{rotation: ca.Rotate(now, signer.Status.TrustAnchors, in.source.Newest, in.source.Previous, in.settings)}
	signing := d.rotation.Signing
	switch {
	case in.source.Problem != nil:
		d.problem = in.source.Problem
	case d.rotation.Problem != nil:
		d.problem = d.rotation.Problem
	case signing == nil:
		d.problem = ca.Problemf(v1alpha1.ReasonCADistrusted,
			"%q, or one of its issuers, is listed in spec.trust.distrusted: use another CA", in.source.Newest.Certificate().Subject)
	default:
		d.problem = in.fits(signing)
	}
	if d.problem == nil {
		d.ready = &readySigner{signer: signer, profile: in.profile, ca: signing}
	}
	return d
}

// record writes a decision to the status, and to the registry once it is in the status. It returns the Signer with its
// new status.
func (r *signerReconciler) record(ctx context.Context, signer *v1alpha1.Signer, d decision, from source.Result) (*v1alpha1.Signer, error) {
	signerName := signer.Spec.SignerName
	if d.ready == nil {
		r.signers.set(signer.Name, signerName, nil)
	}
	updated, err := r.write(ctx, signer, newStatus(signer, d, from))
	if err != nil {
		if !d.ready.sameAs(r.signers.get(signerName)) {
			r.signers.set(signer.Name, signerName, nil)
		}
		return signer, err
	}
	if r.signers.set(signer.Name, signerName, d.ready) {
		r.pending(ctx, signerName)
	}
	return updated, nil
}

// afterWriteError returns the result after the status could not be written: a conflict is retried immediately.
func afterWriteError(err error) (reconcile.Result, error) {
	if apierrors.IsConflict(err) {
		return reconcile.Result{RequeueAfter: immediateRetry}, nil
	}
	return reconcile.Result{}, client.IgnoreNotFound(err)
}

// requeueAfter returns the delay until the first of some points in time, at most resync.
func (r *signerReconciler) requeueAfter(ready *readySigner, times ...time.Time) time.Duration {
	if ready != nil {
		times = append(times, ready.ca.NotAfter().Add(-ready.profile.MinDuration()))
	}
	delay := resync
	for _, t := range times {
		if !t.IsZero() {
			until := min(max(t.Sub(r.now()), 0), resync) // Sub saturates: a CA without an end has the year 9999
			delay = min(delay, until+timerSlack)
		}
	}
	return delay
}

// validate returns the profile of a Signer, or the reason why the spec is invalid or conflicts with an older Signer.
func validate(signer *v1alpha1.Signer, all []v1alpha1.Signer) (issuance.Profile, *ca.Problem) {
	first := oldest(all, func(s *v1alpha1.Signer) bool { return s.Spec.SignerName == signer.Spec.SignerName })
	if first.Name != signer.Name {
		return issuance.Profile{}, ca.Problemf(v1alpha1.ReasonDuplicateSigner,
			"the older Signer %s has the same signerName %s: this one issues no certificates; delete one of them", first.Name, signer.Spec.SignerName)
	}
	managed := signer.Spec.CA.Managed
	if managed != nil {
		first := oldest(all, func(s *v1alpha1.Signer) bool {
			return s.Spec.CA.Managed != nil && s.Spec.CA.Managed.SecretName == managed.SecretName
		})
		if first.Name != signer.Name {
			return issuance.Profile{}, ca.Problemf(v1alpha1.ReasonDuplicateSecret,
				"the older Signer %s keeps its CA in the same Secret %s: set spec.ca.managed.secretName to another name", first.Name, managed.SecretName)
		}
	}
	profile, err := issuance.NewProfile(signer.Spec)
	if err != nil {
		return issuance.Profile{}, &ca.Problem{Reason: v1alpha1.ReasonInvalidProfile, Message: err.Error()}
	}
	least := profile.MinDuration()
	if p := signer.Spec.Trust.Propagation; p != nil { // without spec.trust nothing is published, and the default does not count
		if p.Duration < 0 || p.Duration > maxPropagation {
			return issuance.Profile{}, ca.Problemf(v1alpha1.ReasonInvalidProfile, "spec.trust.propagation %v is invalid: must be between 0s and %v", p.Duration, maxPropagation)
		}
		least += p.Duration
	}
	if managed != nil && ca.RenewBefore(managed) <= least {
		return issuance.Profile{}, ca.Problemf(v1alpha1.ReasonInvalidProfile,
			"spec.ca.managed.renewBefore is %v: it must be longer than the sum of spec.trust.propagation and spec.certificate.minDuration, %v, because the next CA must sign before the current one expires",
			ca.RenewBefore(managed), least)
	}
	return profile, nil
}

// propagation returns the time from the publication of a CA until it signs in place of another.
func propagation(signer *v1alpha1.Signer) time.Duration {
	if d := signer.Spec.Trust.Propagation; d != nil {
		return d.Duration
	}
	return defaultPropagation
}

// oldest returns the oldest matching Signer, and of two created in the same second the first by name. It returns nil if
// none matches.
func oldest(all []v1alpha1.Signer, matches func(*v1alpha1.Signer) bool) *v1alpha1.Signer {
	var first *v1alpha1.Signer
	for i := range all {
		if s := &all[i]; matches(s) && (first == nil || older(s, first)) {
			first = s
		}
	}
	return first
}

func older(a, b *v1alpha1.Signer) bool {
	if a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.Name < b.Name
	}
	return a.CreationTimestamp.Before(&b.CreationTimestamp)
}
