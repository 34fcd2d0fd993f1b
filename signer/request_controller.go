// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
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
	actionSign = "Sign" // action of Events

	// caProblemRetry is when a request is requeued whose CA cannot issue. The reconciler of the Signer is
	// notified, sets the status of the Signer, and requeues the request earlier once the CA can issue.
	caProblemRetry = 30 * time.Second
	// conflictRetry is when a request is requeued after another client changed it. The watch usually
	// requeues it earlier.
	conflictRetry = time.Second
	// staleRetry is when a request is requeued after its Signer changed.
	staleRetry = time.Second

	maxNote             = 1024    // bytes of an Event's note; the API server rejects longer ones
	maxRequestCondition = 8 << 10 // bytes of the message of a request's condition
)

// requestReconciler issues the certificates of requests that are due.
type requestReconciler struct {
	due     func(name string) *certificatesv1.CertificateSigningRequest // returns nil if the request is not due
	cached  client.Reader
	live    client.Reader
	status  client.SubResourceWriter
	signers *registry
	recheck func(ctx context.Context, signer string) // requeues a Signer
	log     *audit.Log
	events  events.EventRecorder
	metrics *metrics
	now     func() time.Time
}

// Reconcile prepares the certificate of a request and writes the certificate, the condition Failed or the
// condition ApprovalTooOld. It writes nothing while the CA cannot issue.
func (r *requestReconciler) Reconcile(ctx context.Context, item fairqueue.Item) (reconcile.Result, error) {
	started := time.Now()
	csr := r.due(item.Name)
	if csr == nil {
		return reconcile.Result{}, nil
	}
	ready := r.signers.get(csr.Spec.SignerName)
	if ready == nil {
		return reconcile.Result{}, nil // the request is requeued when a Signer becomes ready
	}
	// The reconciler of the Signer can be busy with a publication, or unable to read the Signer. Until it has loaded the
	// new spec, which can distrust the CA, nothing is issued.
	if stale, err := isStale(ctx, r.cached, ready); stale || err != nil {
		r.retried(ready, retriedStale)
		return reconcile.Result{RequeueAfter: staleRetry}, err
	}
	ctx = log.IntoContext(ctx, log.FromContext(ctx).WithValues("requestUID", csr.UID,
		"signerName", csr.Spec.SignerName, "signer", ready.signer.Name))

	if size := csr.Annotations[objectSize]; size != "" {
		return r.fail(ctx, csr, ready, ca.Problemf(issuance.ReasonRequestRefused,
			"the request has %s KiB with its metadata: the limit is %d; create a new request with fewer labels and annotations", size, maxObject>>10))
	}
	prepared, err := issuance.Prepare(r.now(), csr, ready.profile, ready.ca)
	if err != nil {
		r.retried(ready, retriedSign)
		return reconcile.Result{}, fmt.Errorf("preparing the certificate: %w", err)
	}
	switch prepared.Outcome {
	case issuance.Ready:
		return r.issue(ctx, csr, ready, prepared.Issuance, started)
	case issuance.ApprovalTooOld:
		return r.leave(ctx, csr, ready, prepared.Problem)
	case issuance.Refused:
		return r.fail(ctx, csr, ready, prepared.Problem)
	case issuance.CAProblem:
		return r.wait(ctx, csr, ready, prepared.Problem)
	default: // issuance.NotDue
		return reconcile.Result{}, nil
	}
}

// issue records the decision, signs, and writes the certificate.
func (r *requestReconciler) issue(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, ready *readySigner, prepared *issuance.Issuance, started time.Time) (reconcile.Result, error) {
	record := recordOf(csr, "Issued")
	record.Certificate = certificateOf(prepared, ready.ca)
	if err := r.log.AppendDecision(record); err != nil {
		r.retried(ready, retriedAudit)
		return reconcile.Result{}, err
	}
	chain, _, err := prepared.Issue(ctx)
	if err != nil {
		r.retried(ready, retriedSign)
		r.appendOutcome(ctx, audit.Outcome{DecisionID: record.ID, Result: audit.Refused, Error: err.Error()})
		return reconcile.Result{}, err
	}
	patch := newStatusPatch(csr)
	patch.removeCondition(csr, v1alpha1.ConditionApprovalTooOld)
	patch.add("/status/certificate", chain)
	err = r.write(ctx, csr, patch)
	r.appendOutcome(ctx, audit.OutcomeOf(record.ID, err))
	if err != nil {
		return r.afterWriteError(ready, err)
	}
	r.count(ready, outcomeIssued, "")
	r.metrics.duration.WithLabelValues(ready.signer.Name).Observe(time.Since(started).Seconds())
	return reconcile.Result{}, nil
}

// fail writes the condition Failed. The condition is permanent, so fail first checks that the Signer has
// not changed since it was loaded.
func (r *requestReconciler) fail(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, ready *readySigner, problem *ca.Problem) (reconcile.Result, error) {
	if stale, err := isStale(ctx, r.live, ready); stale || err != nil {
		r.retried(ready, retriedStale)
		r.recheck(ctx, ready.signer.Name)
		return reconcile.Result{RequeueAfter: staleRetry}, err
	}
	return r.writeCondition(ctx, csr, ready, certificatesv1.CertificateFailed, outcomeFailed, problem)
}

// isStale reports whether the Signer was changed or deleted after it was loaded. A cache that is behind the loaded Signer
// does not count as a change.
func isStale(ctx context.Context, signers client.Reader, loaded *readySigner) (bool, error) {
	var now v1alpha1.Signer
	if err := signers.Get(ctx, client.ObjectKey{Name: loaded.signer.Name}, &now); err != nil {
		return true, client.IgnoreNotFound(err)
	}
	return now.UID != loaded.signer.UID || now.Generation > loaded.signer.Generation, nil
}

// leave writes the condition ApprovalTooOld once. The request is requeued when the Signer changes.
func (r *requestReconciler) leave(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, ready *readySigner, problem *ca.Problem) (reconcile.Result, error) {
	for _, c := range csr.Status.Conditions {
		if c.Type == v1alpha1.ConditionApprovalTooOld && c.Message == problem.Message {
			return reconcile.Result{}, nil
		}
	}
	return r.writeCondition(ctx, csr, ready, v1alpha1.ConditionApprovalTooOld, outcomeLeft, problem)
}

// wait emits an Event and requeues the request and its Signer.
func (r *requestReconciler) wait(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, ready *readySigner, problem *ca.Problem) (reconcile.Result, error) {
	r.retried(ready, problem.Reason)
	log.FromContext(ctx).Info("CA cannot issue", "reason", problem.Reason, "message", problem.Message)
	r.events.Eventf(csr, nil, corev1.EventTypeWarning, problem.Reason, actionSign, "%s", text.Shorten(problem.Message, maxNote))
	r.recheck(ctx, ready.signer.Name)
	return reconcile.Result{RequeueAfter: caProblemRetry}, nil
}

// writeCondition records the decision, writes a condition in place of one of the same type, and emits an
// Event.
func (r *requestReconciler) writeCondition(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, ready *readySigner,
	kind certificatesv1.RequestConditionType, outcome string, problem *ca.Problem,
) (reconcile.Result, error) {
	record := recordOf(csr, string(kind))
	record.Reason, record.Message = problem.Reason, problem.Message
	if err := r.log.AppendDecision(record); err != nil {
		r.retried(ready, retriedAudit)
		return reconcile.Result{}, err
	}
	patch := newStatusPatch(csr)
	patch.removeCondition(csr, kind)
	now := metav1.NewTime(r.now())
	patch.add("/status/conditions/-", certificatesv1.CertificateSigningRequestCondition{
		Type:               kind,
		Status:             corev1.ConditionTrue,
		Reason:             problem.Reason,
		Message:            text.Shorten(problem.Message, maxRequestCondition),
		LastUpdateTime:     now,
		LastTransitionTime: now,
	})
	err := r.write(ctx, csr, patch)
	r.appendOutcome(ctx, audit.OutcomeOf(record.ID, err))
	if err != nil {
		return r.afterWriteError(ready, err)
	}
	r.count(ready, outcome, problem.Reason)
	r.events.Eventf(csr, nil, corev1.EventTypeWarning, problem.Reason, actionSign, "%s", text.Shorten(problem.Message, maxNote))
	return reconcile.Result{}, nil
}

// statusPatch is a JSON patch (RFC 6902) of /status. Only the version of the request that it was made for is changed:
// the API server returns a conflict for any other.
type statusPatch []patchOperation

type patchOperation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

func newStatusPatch(csr *certificatesv1.CertificateSigningRequest) *statusPatch {
	return &statusPatch{{Op: "add", Path: "/metadata/resourceVersion", Value: csr.ResourceVersion}}
}

func (p *statusPatch) add(path string, value any) {
	*p = append(*p, patchOperation{Op: "add", Path: path, Value: value})
}

// removeCondition removes the condition of a type, if the request has one.
func (p *statusPatch) removeCondition(csr *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType) {
	i := slices.IndexFunc(csr.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == kind })
	if i >= 0 {
		*p = append(*p, patchOperation{Op: "remove", Path: fmt.Sprintf("/status/conditions/%d", i)})
	}
}

func (r *requestReconciler) write(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, patch *statusPatch) error {
	encoded, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("encoding the status: %w", err)
	}
	target := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: csr.Name}}
	return r.status.Patch(ctx, target, client.RawPatch(types.JSONPatchType, encoded))
}

// afterWriteError returns the result of a reconcile whose write failed: a retry, unless the request is
// deleted.
func (r *requestReconciler) afterWriteError(ready *readySigner, err error) (reconcile.Result, error) {
	switch {
	case apierrors.IsNotFound(err):
		return reconcile.Result{}, nil
	case apierrors.IsConflict(err):
		r.retried(ready, retriedConflict)
		return reconcile.Result{RequeueAfter: conflictRetry}, nil
	case apierrors.IsForbidden(err):
		r.retried(ready, retriedForbidden)
		advice := fmt.Sprintf("grant the verb \"sign\" on signers.certificates.k8s.io with resourceNames [%q], and \"patch\" on certificatesigningrequests/status: %v",
			ready.signer.Spec.SignerName, err)
		r.events.Eventf(ready.signer, nil, corev1.EventTypeWarning, issuance.ReasonSigningForbidden, actionSign, "%s", text.Shorten(advice, maxNote))
	default:
		r.retried(ready, retriedWrite)
	}
	return reconcile.Result{}, fmt.Errorf("updating the status of the request: %w", err)
}

func (r *requestReconciler) retried(ready *readySigner, reason string) {
	r.count(ready, outcomeRetried, reason)
}

func (r *requestReconciler) count(ready *readySigner, outcome, reason string) {
	r.metrics.certificates.WithLabelValues(ready.signer.Name, outcome, reason).Inc()
}

// recordOf returns the audit record of a decision on a request.
func recordOf(csr *certificatesv1.CertificateSigningRequest, verdict string) audit.Decision {
	return audit.Decision{
		ID: string(uuid.NewUUID()), Verdict: verdict,
		Request:   audit.Request{Name: csr.Name, UID: csr.UID, SignerName: csr.Spec.SignerName},
		Requester: audit.RequesterOf(&csr.Spec),
	}
}

// certificateOf returns the audit record of the certificate that a CA is about to sign.
func certificateOf(prepared *issuance.Issuance, authority *ca.CA) *audit.Certificate {
	request, template := prepared.Request(), prepared.Template()
	c := &audit.Certificate{
		Serial:         fmt.Sprintf("%032x", template.SerialNumber),
		Subject:        template.Subject.String(),
		DNSNames:       request.DNSNames,
		URIs:           request.URIs,
		EmailAddresses: request.EmailAddresses,
		KeySHA256:      request.Key.SHA256,
		CAFingerprint:  authority.Fingerprint(),
		NotBefore:      template.NotBefore,
		NotAfter:       template.NotAfter,
	}
	for _, ip := range request.IPAddresses {
		c.IPAddresses = append(c.IPAddresses, ip.String())
	}
	return c
}

// appendOutcome records the outcome of a decision. The decision is already carried out, so an error is
// only logged.
func (r *requestReconciler) appendOutcome(ctx context.Context, o audit.Outcome) {
	if err := r.log.AppendOutcome(o); err != nil {
		log.FromContext(ctx).Error(err, "recording the outcome of a decision failed", "decisionID", o.DecisionID)
	}
}
