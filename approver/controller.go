// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"context"
	"fmt"
	"strings"
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

	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/internal/certreq"
	"countersign.dev/countersign/internal/fairqueue"
	"countersign.dev/countersign/internal/text"
)

const (
	// conflictDelay is how long to wait for the cache after somebody else has changed a request.
	conflictDelay = 100 * time.Millisecond
	// abstainDelay is how soon a request is looked at again of which no policy has an opinion.
	// What it might depend on usually brings it back before.
	abstainDelay = time.Minute
)

// reconciler decides CertificateSigningRequests.
type reconciler struct {
	client  client.Client
	live    client.Reader
	judge   *Judge
	log     *audit.Log
	events  events.EventRecorder
	waiting *waiting
	tally   *tally
	// counted is called when candidates were compared.
	counted func()
}

// Reconcile reads one request, has it judged, and carries the decision out.
func (r *reconciler) Reconcile(ctx context.Context, item fairqueue.Item) (reconcile.Result, error) {
	csr := &certificatesv1.CertificateSigningRequest{}
	key := client.ObjectKey{Name: item.Name}
	if err := r.client.Get(ctx, key, csr); err != nil {
		r.waiting.forget(item.Name)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if certreq.IsDecided(csr) || !r.judge.Manages(csr.Spec.SignerName) {
		r.waiting.forget(item.Name)
		return reconcile.Result{}, nil
	}
	if facts.IsStripped(csr) {
		if err := r.live.Get(ctx, key, csr); err != nil || certreq.IsDecided(csr) {
			return reconcile.Result{}, client.IgnoreNotFound(err)
		}
	}
	now := r.judge.now()
	since := r.waiting.since(csr.Name, csr.UID, now)
	judgement, err := r.judge.Judge(ctx, csr, since)
	if err != nil {
		decisionErrors.Inc()
		return reconcile.Result{}, err
	}
	switch judgement.Decision.Verdict {
	case Approved, Denied:
		return r.carryOut(ctx, csr, judgement)
	case Held:
		return reconcile.Result{RequeueAfter: retryAfter(since, now, judgement.Decision.Until)}, r.hold(csr, item, since, judgement)
	default:
		return r.leave(csr, item, judgement)
	}
}

// waitersFor lists the requests that wait for something that has changed. What was known of its
// namespace is forgotten, so that they see the change.
func (r *reconciler) waitersFor(changed []facts.Awaited) []fairqueue.Item {
	items := r.waiting.awaiting(changed)
	if len(items) > 0 {
		r.judge.gatherer.Forget(changed[0].Namespace)
	}
	return items
}

// carryOut records a verdict, writes it, and then announces it.
func (r *reconciler) carryOut(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, judgement Judgement) (reconcile.Result, error) {
	record := Record(csr, judgement)
	if err := r.log.AppendDecision(record); err != nil {
		return reconcile.Result{}, err
	}
	d := judgement.Decision
	message := text.Shorten(d.Message, 8<<10) + "; decision " + record.ID
	csr = csr.DeepCopy()
	csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type:           certificatesv1.RequestConditionType(d.Verdict),
		Status:         corev1.ConditionTrue,
		Reason:         d.Reason,
		Message:        message,
		LastUpdateTime: metav1.NewTime(r.judge.now()),
	})
	err := r.client.SubResource("approval").Update(ctx, csr) // of all that was read: see facts.CacheByObject
	if logErr := r.log.AppendOutcome(audit.OutcomeOf(record.ID, err)); logErr != nil {
		log.FromContext(ctx).Error(logErr, "the outcome of a decision is not recorded", "decisionID", record.ID)
	}
	switch {
	case apierrors.IsNotFound(err):
		return reconcile.Result{}, nil
	case apierrors.IsConflict(err):
		return reconcile.Result{RequeueAfter: conflictDelay}, nil
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("writing decision %s: %w", record.ID, err)
	}
	r.waiting.forget(csr.Name)
	decisions.WithLabelValues(string(d.Verdict), d.Reason).Inc()
	decisionSeconds.Observe(r.judge.now().Sub(csr.CreationTimestamp.Time).Seconds())
	countAudited(judgement)
	if d.Verdict == Denied {
		r.events.Eventf(csr, nil, corev1.EventTypeWarning, d.Reason, "Deny", "%s", text.Shorten(message, 1024))
	}
	if r.tally.compare(ctx, csr.Name, judgement, r.judge.now()) {
		r.counted()
	}
	return reconcile.Result{}, nil
}

// hold says why a request is held, once for each reason. Nothing is written to the request.
func (r *reconciler) hold(csr *certificatesv1.CertificateSigningRequest, item fairqueue.Item, since time.Time, judgement Judgement) error {
	d := judgement.Decision
	if !r.waiting.put(item, csr.UID, since, d.Message, judgement.Facts.Awaits()) {
		return nil
	}
	if err := r.log.AppendDecision(Record(csr, judgement)); err != nil {
		r.waiting.forget(csr.Name)
		return err
	}
	decisions.WithLabelValues(string(d.Verdict), d.Reason).Inc()
	r.events.Eventf(csr, nil, corev1.EventTypeNormal, d.Reason, "Hold", "%s", text.Shorten(d.Message+"; held until "+d.Until.UTC().Format(time.RFC3339), 1024))
	return nil
}

// leave leaves a request alone: a policy that is for it is not loaded, and its loading takes the
// request up again; or every policy abstains; or there are only policies that are looked at.
func (r *reconciler) leave(csr *certificatesv1.CertificateSigningRequest, item fairqueue.Item, judgement Judgement) (reconcile.Result, error) {
	if judgement.Facts == nil {
		return reconcile.Result{}, nil
	}
	var said []string
	for _, e := range judgement.Audited {
		said = append(said, e.Policy, e.Revision, answerOf(e.Result, e.Err), texts(e.Result.Violations))
	}
	message := strings.Join(said, "\n")
	if r.waiting.put(item, csr.UID, time.Time{}, message, judgement.Facts.Awaits()) && !judgement.Ours && message != "" {
		if err := r.log.AppendDecision(Record(csr, judgement)); err != nil {
			r.waiting.forget(csr.Name)
			return reconcile.Result{}, err
		}
		countAudited(judgement)
	}
	return reconcile.Result{RequeueAfter: abstainDelay}, nil
}

func countAudited(judgement Judgement) {
	for _, e := range judgement.Audited {
		audited.WithLabelValues(e.Policy, answerOf(e.Result, e.Err)).Inc()
	}
}

// Record is the record of a judgement, under a new decision id.
func Record(csr *certificatesv1.CertificateSigningRequest, judgement Judgement) audit.Decision {
	d := judgement.Decision
	record := audit.Decision{
		ID: string(uuid.NewUUID()), Verdict: string(d.Verdict), Reason: d.Reason, Message: d.Message,
		Request:   audit.Request{Name: csr.Name, UID: csr.UID, SignerName: csr.Spec.SignerName},
		Requester: audit.RequesterOf(&csr.Spec),
	}
	if !judgement.Ours {
		record.Verdict = "Audited"
	}
	if f := judgement.Facts; f != nil {
		record.Request.KeySHA256 = f.PKCS10.Key.SHA256
		record.Request.DNSNames, record.Request.IPs = f.PKCS10.DNSNames, f.PKCS10.IPAddresses
		record.AddFacts(judgement.factsJSON())
	}
	for _, e := range judgement.Evaluations {
		record.Policies = append(record.Policies, audit.Policy{Name: e.Policy, Revision: e.Revision, Answer: answerOf(e.Result, e.Err), Violations: e.Result.Violations})
	}
	for _, e := range judgement.Audited {
		policy := audit.Policy{Name: e.Policy, Revision: e.Revision, Answer: answerOf(e.Result, e.Err), Audit: true, Violations: e.Result.Violations}
		if e.Err != nil {
			policy.Error = e.Err.Error()
		}
		record.Policies = append(record.Policies, policy)
	}
	return record
}
