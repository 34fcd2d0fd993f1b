// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/approver/review"
	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/internal/certreq"
	"countersign.dev/countersign/internal/fairqueue"
	"countersign.dev/countersign/internal/text"
)

const (
	// conflictDelay is the delay after a conflict, in which the cache receives the other change.
	conflictDelay = 100 * time.Millisecond
	// maxDelay is the maximum delay before a held request is reconciled again.
	maxDelay = 5 * time.Second
	// pendingDelay is the delay before a request that stays pending without a hold is reconciled
	// again. A change of the objects that it awaits usually requeues it earlier.
	pendingDelay = time.Minute
)

// requestReconciler decides CertificateSigningRequests.
type requestReconciler struct {
	client     client.Client
	live       client.Reader
	reviewer   *review.Reviewer
	log        *audit.Log
	events     events.EventRecorder
	holds      *holds
	comparison *comparison
	// compared is called after candidates were compared.
	compared func()
	// forget invalidates cached facts about a namespace.
	forget func(namespace string)
}

// Reconcile reviews one request and carries out the decision.
func (r *requestReconciler) Reconcile(ctx context.Context, item fairqueue.Item) (reconcile.Result, error) {
	csr := &certificatesv1.CertificateSigningRequest{}
	key := client.ObjectKey{Name: item.Name}
	if err := r.client.Get(ctx, key, csr); err != nil {
		r.holds.remove(item.Name)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if certreq.IsDecided(csr) || !r.reviewer.Manages(csr.Spec.SignerName) {
		r.holds.remove(item.Name)
		return reconcile.Result{}, nil
	}
	if facts.IsStripped(csr) {
		if err := r.live.Get(ctx, key, csr); err != nil || certreq.IsDecided(csr) {
			return reconcile.Result{}, client.IgnoreNotFound(err)
		}
	}
	now := r.reviewer.Now()
	since, clocks := r.holds.clocks(csr.Name, csr.UID, now)
	reviewed, err := r.reviewer.Review(ctx, csr, clocks)
	if err != nil {
		decisionErrors.Inc()
		return reconcile.Result{}, err
	}
	switch reviewed.Outcome {
	case review.Approve, review.Deny, review.Refuse:
		return r.decide(ctx, csr, reviewed)
	case review.Hold:
		return reconcile.Result{RequeueAfter: retryAfter(since, now, reviewed.Until)}, r.hold(csr, item, now, reviewed)
	default:
		return r.leavePending(csr, item, now, reviewed)
	}
}

// retryAfter returns the delay before a held request is reconciled again: half of the time that
// it has been held, between 250 ms and [maxDelay], and at most until the end of the hold.
func retryAfter(since, now, until time.Time) time.Duration {
	delay := min(max(now.Sub(since)/2, 250*time.Millisecond), maxDelay)
	return max(min(delay, until.Sub(now)), time.Millisecond)
}

// requeueFor returns the requests to requeue when some objects of a namespace have changed, and
// invalidates cached facts about the namespace.
func (r *requestReconciler) requeueFor(changed []facts.Awaited) []fairqueue.Item {
	items := r.holds.awaiting(changed)
	if len(items) > 0 {
		r.forget(changed[0].Namespace)
	}
	return items
}

// decide records a verdict, writes it, and then emits metrics and an Event.
func (r *requestReconciler) decide(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, reviewed review.Review) (reconcile.Result, error) {
	record := review.Record(csr, reviewed)
	if err := r.log.AppendDecision(record); err != nil {
		return reconcile.Result{}, err
	}
	if reviewed.Outcome == review.Approve && reviewed.Expired() {
		err := fmt.Errorf("decision %s is not written: recording it took so long that its facts are older than %s", record.ID, facts.MaxDecisionAge)
		return reconcile.Result{}, errors.Join(err, r.log.AppendOutcome(audit.Outcome{DecisionID: record.ID, Result: audit.Refused, Error: err.Error()}))
	}
	verdict := reviewed.Outcome.Verdict()
	message := text.Shorten(reviewed.Message, 8<<10) + "; decision " + record.ID
	err := r.write(ctx, csr, reviewed.WriteBy(), certificatesv1.CertificateSigningRequestCondition{
		Type:           certificatesv1.RequestConditionType(verdict),
		Status:         corev1.ConditionTrue,
		Reason:         reviewed.Reason,
		Message:        message,
		LastUpdateTime: metav1.NewTime(r.reviewer.Now()),
	})
	if logErr := r.log.AppendOutcome(audit.OutcomeOf(record.ID, err)); logErr != nil {
		log.FromContext(ctx).Error(logErr, "recording the outcome of a decision failed", "decisionID", record.ID)
	}
	switch {
	case apierrors.IsNotFound(err):
		return reconcile.Result{}, nil
	case apierrors.IsConflict(err):
		return reconcile.Result{RequeueAfter: conflictDelay}, nil
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("writing decision %s: %w", record.ID, err)
	}
	r.holds.remove(csr.Name)
	decisions.WithLabelValues(verdict, reviewed.Reason).Inc()
	decisionSeconds.Observe(r.reviewer.Now().Sub(csr.CreationTimestamp.Time).Seconds())
	countShadow(reviewed)
	if verdict == review.Denied {
		r.events.Eventf(csr, nil, corev1.EventTypeWarning, reviewed.Reason, "Deny", "%s", text.Shorten(message, 1024))
	}
	if r.comparison.compare(ctx, csr.Name, reviewed, r.reviewer.Now()) {
		r.compared()
	}
	return reconcile.Result{}, nil
}

// write adds a condition to a request. It patches: the cached request has no labels and annotations,
// and an update would remove them. A merge patch replaces the list of conditions, which the
// resourceVersion makes safe. After a deadline that is not zero, the write ends with an error, and its outcome is unknown.
func (r *requestReconciler) write(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, deadline time.Time, condition certificatesv1.CertificateSigningRequestCondition) error {
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": csr.UID, "resourceVersion": csr.ResourceVersion},
		"status":   map[string]any{"conditions": append(slices.Clip(csr.Status.Conditions), condition)},
	})
	if err != nil {
		return fmt.Errorf("encoding the patch: %w", err)
	}
	answer := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: csr.Name}}
	return r.client.SubResource("approval").Patch(ctx, answer, client.RawPatch(types.MergePatchType, patch))
}

// hold records a hold and emits an Event if its message has changed, and not more often than [recordDelay] says. It does
// not write to the request.
func (r *requestReconciler) hold(csr *certificatesv1.CertificateSigningRequest, item fairqueue.Item, now time.Time, reviewed review.Review) error {
	if !r.holds.put(item, csr.UID, now, reviewed.HeldBy(), reviewed.Message, reviewed.Facts.Awaits()) {
		return nil
	}
	if err := r.log.AppendDecision(review.Record(csr, reviewed)); err != nil {
		r.holds.remove(csr.Name)
		return err
	}
	decisions.WithLabelValues(review.Held, reviewed.Reason).Inc()
	r.events.Eventf(csr, nil, corev1.EventTypeNormal, reviewed.Reason, "Hold", "%s", text.Shorten(reviewed.Message+"; held until "+reviewed.Until.UTC().Format(time.RFC3339), 1024))
	return nil
}

// leavePending writes nothing to a request without a decision: a policy is not loaded, every policy
// abstains, or only shadow policies match. Loading a policy requeues the request. The answers of
// shadow policies are recorded if no other policy matches.
func (r *requestReconciler) leavePending(csr *certificatesv1.CertificateSigningRequest, item fairqueue.Item, now time.Time, reviewed review.Review) (reconcile.Result, error) {
	if reviewed.Facts == nil {
		return reconcile.Result{}, nil
	}
	var answers []string
	if !reviewed.Outcome.Matched() {
		for _, e := range reviewed.Shadow {
			answers = append(answers, e.Policy, e.Revision, e.Answer(), e.Violations())
		}
	}
	if r.holds.put(item, csr.UID, now, nil, strings.Join(answers, "\n"), reviewed.Facts.Awaits()) {
		if err := r.log.AppendDecision(review.Record(csr, reviewed)); err != nil {
			r.holds.remove(csr.Name)
			return reconcile.Result{}, err
		}
		countShadow(reviewed)
	}
	return reconcile.Result{RequeueAfter: pendingDelay}, nil
}

func countShadow(reviewed review.Review) {
	for _, e := range reviewed.Shadow {
		shadowAnswers.WithLabelValues(e.Policy, e.Answer()).Inc()
	}
}
