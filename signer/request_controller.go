// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/internal/fairqueue"
	"countersign.dev/countersign/internal/text"
	"countersign.dev/countersign/signer/ca"
	"countersign.dev/countersign/signer/issuance"
)

const (
	// action of Events: what was attempted.
	actionSign = "Sign"

	// caFaultRetry is how soon a request is looked at again whose CA turned out to be unfit at the
	// last moment. The Signer's own reconcile says why, and brings the request back when it is mended.
	caFaultRetry = 30 * time.Second
	// conflictRetry is how soon after someone else changed the request; the change itself usually
	// brings it back before.
	conflictRetry = time.Second
	// staleRetry is how soon after a Signer turned out to have changed.
	staleRetry = time.Second

	maxNote = 1024 // bytes of an Event's note, which the API server limits
)

// requestReconciler issues what is approved.
type requestReconciler struct {
	due     func(name string) *certificatesv1.CertificateSigningRequest // nil if it is not
	live    client.Reader
	status  client.SubResourceWriter
	signers *registry
	recheck func(ctx context.Context, signer string) // has a Signer reconciled
	log     *audit.Log
	events  events.EventRecorder
	metrics *metrics
	now     func() time.Time
}

// Reconcile reads a request, prepares its certificate, and writes one of certificate, Failed,
// ApprovalTooOld, or nothing.
func (r *requestReconciler) Reconcile(ctx context.Context, item fairqueue.Item) (reconcile.Result, error) {
	started := time.Now()
	csr := r.due(item.Name)
	if csr == nil {
		return reconcile.Result{}, nil
	}
	signer := r.signers.get(csr.Spec.SignerName)
	if signer == nil {
		return reconcile.Result{}, nil // a Signer that becomes ready brings its requests back
	}
	ctx = log.IntoContext(ctx, log.FromContext(ctx).WithValues("requestUID", csr.UID,
		"signerName", csr.Spec.SignerName, "signer", signer.signer.Name))

	prepared, err := issuance.Prepare(r.now(), csr, signer.profile, signer.ca)
	var notDue issuance.NotDue
	var tooOld *issuance.TooOld
	var refusal *issuance.Refusal
	var fault *ca.Problem
	switch {
	case errors.As(err, &notDue):
		return reconcile.Result{}, nil
	case errors.As(err, &tooOld):
		return r.leave(ctx, csr, signer, tooOld)
	case errors.As(err, &refusal):
		if stale, err := r.isStale(ctx, signer); stale || err != nil {
			r.retried(signer, retriedStale)
			r.recheck(ctx, signer.signer.Name)
			return reconcile.Result{RequeueAfter: staleRetry}, err
		}
		return r.fail(ctx, csr, signer, refusal)
	case errors.As(err, &fault):
		r.retried(signer, fault.Reason)
		log.FromContext(ctx).Info("CA cannot issue now", "reason", fault.Reason, "message", fault.Message)
		r.events.Eventf(csr, nil, corev1.EventTypeWarning, fault.Reason, actionSign, "%s", text.Shorten(fault.Message, maxNote))
		r.recheck(ctx, signer.signer.Name)
		return reconcile.Result{RequeueAfter: caFaultRetry}, nil
	case err != nil:
		r.retried(signer, retriedSign)
		return reconcile.Result{}, fmt.Errorf("preparing the certificate: %w", err)
	}
	return r.issue(ctx, csr, signer, prepared, started)
}

// isStale reports whether the Signer has changed since it was loaded. Failed cannot be taken back,
// so a request must not be failed by limits that are no longer the Signer's.
func (r *requestReconciler) isStale(ctx context.Context, loaded *readySigner) (bool, error) {
	var now v1alpha1.Signer
	if err := r.live.Get(ctx, client.ObjectKey{Name: loaded.signer.Name}, &now); err != nil {
		return true, client.IgnoreNotFound(err)
	}
	return now.UID != loaded.signer.UID || now.Generation != loaded.signer.Generation, nil
}

// issue records, signs and writes.
func (r *requestReconciler) issue(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, signer *readySigner, prepared *issuance.Issuance, started time.Time) (reconcile.Result, error) {
	record := recordOf(csr, "Issued")
	certificate := prepared.Record()
	record.Certificate = &certificate
	if err := r.log.AppendDecision(record); err != nil {
		r.retried(signer, retriedAudit)
		return reconcile.Result{}, err
	}
	chain, _, err := prepared.Issue(ctx)
	if err != nil {
		r.retried(signer, retriedSign)
		r.outcome(ctx, audit.Outcome{DecisionID: record.ID, Result: audit.Refused, Error: err.Error()})
		return reconcile.Result{}, err
	}
	updated := csr.DeepCopy()
	updated.Status.Certificate = chain
	updated.Status.Conditions = slices.DeleteFunc(updated.Status.Conditions, isTooOld) // it is not, by now
	err = r.status.Update(ctx, updated)
	r.outcome(ctx, audit.OutcomeOf(record.ID, err))
	if err != nil {
		return r.afterWriteFault(signer, err)
	}
	r.count(signer, outcomeIssued, "")
	r.metrics.duration.WithLabelValues(signer.signer.Name).Observe(time.Since(started).Seconds())
	return reconcile.Result{}, nil
}

// fail records and writes that a request can never be issued, and tells of it.
func (r *requestReconciler) fail(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, signer *readySigner, refusal *issuance.Refusal) (reconcile.Result, error) {
	return r.writeCondition(ctx, csr, signer, certificatesv1.CertificateFailed, outcomeFailed, refusal.Reason, refusal.Message)
}

// leave records and writes, once, that a request is not signed as it was approved too long ago. If
// the limit is raised, the Signer brings the request back.
func (r *requestReconciler) leave(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, signer *readySigner, tooOld *issuance.TooOld) (reconcile.Result, error) {
	message := tooOld.Error()
	if slices.ContainsFunc(csr.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
		return isTooOld(c) && c.Message == message
	}) {
		return reconcile.Result{}, nil
	}
	return r.writeCondition(ctx, csr, signer, v1alpha1.ConditionApprovalTooOld, outcomeLeft, issuance.ReasonApprovalTooOld, message)
}

// writeCondition records a condition, writes it in place of one of its type, and tells of it.
func (r *requestReconciler) writeCondition(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, signer *readySigner,
	kind certificatesv1.RequestConditionType, outcome, reason, message string,
) (reconcile.Result, error) {
	record := recordOf(csr, string(kind))
	record.Reason, record.Message = reason, message
	if err := r.log.AppendDecision(record); err != nil {
		r.retried(signer, retriedAudit)
		return reconcile.Result{}, err
	}
	updated := csr.DeepCopy()
	updated.Status.Conditions = append(slices.DeleteFunc(updated.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
		return c.Type == kind
	}), newCondition(kind, reason, message, metav1.NewTime(r.now())))
	err := r.status.Update(ctx, updated)
	r.outcome(ctx, audit.OutcomeOf(record.ID, err))
	if err != nil {
		return r.afterWriteFault(signer, err)
	}
	r.count(signer, outcome, reason)
	r.events.Eventf(updated, nil, corev1.EventTypeWarning, reason, actionSign, "%s", text.Shorten(message, maxNote))
	return reconcile.Result{}, nil
}

// recordOf begins the record of what is done with a request.
func recordOf(csr *certificatesv1.CertificateSigningRequest, verdict string) audit.Decision {
	return audit.Decision{
		ID: string(uuid.NewUUID()), Verdict: verdict,
		Request:   audit.Request{Name: csr.Name, UID: csr.UID, SignerName: csr.Spec.SignerName},
		Requester: audit.RequesterOf(&csr.Spec),
	}
}

// outcome records what became of a decision. It is carried out by then, so a fault is only told.
func (r *requestReconciler) outcome(ctx context.Context, o audit.Outcome) {
	if err := r.log.AppendOutcome(o); err != nil {
		log.FromContext(ctx).Error(err, "the outcome of a decision is not recorded", "decisionID", o.DecisionID)
	}
}

// afterWriteFault retries whatever the API server did not take, but for a request that is gone.
func (r *requestReconciler) afterWriteFault(signer *readySigner, err error) (reconcile.Result, error) {
	if apierrors.IsNotFound(err) {
		return reconcile.Result{}, nil
	}
	fault := writeFault(err)
	r.retried(signer, fault)
	switch fault {
	case retriedConflict:
		return reconcile.Result{RequeueAfter: conflictRetry}, nil
	case retriedForbidden:
		note := fmt.Sprintf("grant the verb \"sign\" on signers.certificates.k8s.io with resourceNames [%q], and \"update\" on certificatesigningrequests/status: %v",
			signer.signer.Spec.SignerName, err)
		r.events.Eventf(signer.signer, nil, corev1.EventTypeWarning, issuance.ReasonSigningForbidden, actionSign, "%s", text.Shorten(note, maxNote))
	}
	return reconcile.Result{}, fmt.Errorf("writing the request's status: %w", err)
}

func writeFault(err error) string {
	switch {
	case apierrors.IsConflict(err):
		return retriedConflict
	case apierrors.IsForbidden(err):
		return retriedForbidden
	default:
		return retriedWrite
	}
}

func (r *requestReconciler) retried(signer *readySigner, reason string) {
	r.count(signer, outcomeRetried, reason)
}

func (r *requestReconciler) count(signer *readySigner, outcome, reason string) {
	r.metrics.certificates.WithLabelValues(signer.signer.Name, outcome, reason).Inc()
}

// isTooOld matches the condition [v1alpha1.ConditionApprovalTooOld].
func isTooOld(c certificatesv1.CertificateSigningRequestCondition) bool {
	return c.Type == v1alpha1.ConditionApprovalTooOld
}

// newCondition is a condition that is true from now on.
func newCondition(kind certificatesv1.RequestConditionType, reason, message string, now metav1.Time) certificatesv1.CertificateSigningRequestCondition {
	return certificatesv1.CertificateSigningRequestCondition{
		Type:               kind,
		Status:             corev1.ConditionTrue,
		Reason:             reason,
		Message:            text.Shorten(message, 8<<10),
		LastUpdateTime:     now,
		LastTransitionTime: now,
	}
}
