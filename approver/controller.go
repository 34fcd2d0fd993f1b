// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"context"
	"errors"
	"fmt"
	"sync"
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
	"countersign.dev/countersign/pkcs10"
)

// conflictDelay is how long to wait for the cache after somebody else has changed a request.
const conflictDelay = 100 * time.Millisecond

// reconciler decides CertificateSigningRequests.
type reconciler struct {
	client   client.Client
	live     client.Reader
	gatherer *facts.Gatherer
	policies *PolicySet
	log      *audit.Log
	events   events.EventRecorder
	now      func() time.Time
	// started is when this approver took up its work: no hold begins earlier.
	started time.Time
	// held remembers, by the name of the request, why it is held, so that it is said once.
	held sync.Map
}

// Reconcile reads one request, decides it and carries the decision out.
func (r *reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	csr := &certificatesv1.CertificateSigningRequest{}
	if err := r.client.Get(ctx, req.NamespacedName, csr); err != nil {
		r.held.Delete(req.Name)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	policies := r.policies.matching(csr.Spec.SignerName)
	if len(policies) == 0 || facts.IsDecided(csr) {
		r.held.Delete(req.Name)
		return reconcile.Result{}, nil
	}
	if facts.IsStripped(csr) {
		if err := r.live.Get(ctx, req.NamespacedName, csr); err != nil || facts.IsDecided(csr) {
			return reconcile.Result{}, client.IgnoreNotFound(err)
		}
	}
	since := csr.CreationTimestamp.Time
	if since.Before(r.started) {
		since = r.started
	}
	decision, record, err := r.decide(ctx, csr, policies, since)
	if err != nil {
		decisionErrors.Inc()
		return reconcile.Result{}, err
	}
	switch decision.Verdict {
	case Approved, Denied:
		return r.carryOut(ctx, csr, decision, record)
	case Held:
		return reconcile.Result{RequeueAfter: retryAfter(since, r.now(), decision.Until)}, r.announceHold(csr, decision, record)
	default:
		return reconcile.Result{}, nil // a policy is not loaded, and its loading takes the request up again; or all abstain
	}
}

// decide decides by recent facts and, if that would deny, once more by live ones.
func (r *reconciler) decide(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, policies []loadedPolicy, since time.Time) (Decision, audit.Decision, error) {
	record := recordOf(csr)
	for _, p := range policies {
		if p.compiled == nil {
			return Decision{}, record, nil
		}
	}
	request, err := pkcs10.Parse(csr.Spec.Request)
	var refused *pkcs10.Error
	if err != nil && !errors.As(err, &refused) {
		return Decision{}, record, fmt.Errorf("parsing request: %w", err)
	}
	if decision := Refuse(&csr.Spec, request, refused); decision.Verdict != NoOpinion {
		return decision, record, nil
	}
	for _, fresh := range []facts.Freshness{facts.Recent, facts.Live} {
		now := r.now()
		f, err := r.gatherer.Gather(ctx, csr, request, fresh, now)
		if err != nil {
			return Decision{}, record, fmt.Errorf("gathering facts: %w", err)
		}
		evaluations := evaluate(ctx, policies, f)
		for _, e := range evaluations {
			if e.Err != nil {
				return Decision{}, record, fmt.Errorf("evaluating policy %s: %w", e.Policy, e.Err)
			}
		}
		decision := Decide(since, now, evaluations)
		if decision.Verdict != Denied || fresh == facts.Live {
			return decision, complete(record, f, evaluations), nil
		}
	}
	panic("unreachable: live facts decide")
}

func evaluate(ctx context.Context, policies []loadedPolicy, f facts.Facts) []Evaluation {
	evaluations := make([]Evaluation, len(policies))
	for i, p := range policies {
		start := time.Now()
		result, err := p.compiled.Evaluate(ctx, f)
		evaluationSeconds.WithLabelValues(p.name).Observe(time.Since(start).Seconds())
		evaluations[i] = Evaluation{Policy: p.name, Revision: p.compiled.Revision(), HoldFor: p.holdFor, Result: result, Err: err}
	}
	return evaluations
}

// carryOut records a verdict, writes it, and then announces it.
func (r *reconciler) carryOut(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, d Decision, record audit.Decision) (reconcile.Result, error) {
	id := string(uuid.NewUUID())
	message := truncate(d.Message, 8<<10) + "; decision " + id
	record.ID, record.Verdict, record.Reason, record.Message = id, string(d.Verdict), d.Reason, d.Message
	if err := r.log.AppendDecision(record); err != nil {
		return reconcile.Result{}, err
	}
	csr = csr.DeepCopy()
	csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type:           certificatesv1.RequestConditionType(d.Verdict),
		Status:         corev1.ConditionTrue,
		Reason:         d.Reason,
		Message:        message,
		LastUpdateTime: metav1.NewTime(r.now()),
	})
	err := r.client.SubResource("approval").Update(ctx, csr)
	if logErr := r.log.AppendOutcome(audit.OutcomeOf(id, err)); logErr != nil {
		log.FromContext(ctx).Error(logErr, "the outcome of a decision is not recorded", "decisionID", id)
	}
	switch {
	case apierrors.IsNotFound(err):
		return reconcile.Result{}, nil
	case apierrors.IsConflict(err):
		return reconcile.Result{RequeueAfter: conflictDelay}, nil
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("writing decision %s: %w", id, err)
	}
	r.held.Delete(csr.Name)
	decisions.WithLabelValues(string(d.Verdict), d.Reason).Inc()
	decisionSeconds.Observe(r.now().Sub(csr.CreationTimestamp.Time).Seconds())
	if d.Verdict == Denied {
		r.events.Eventf(csr, nil, corev1.EventTypeWarning, d.Reason, "Deny", "%s", truncate(message, 1024))
	}
	return reconcile.Result{}, nil
}

// announceHold says why a request is held, once for each reason. Nothing is written to the request.
func (r *reconciler) announceHold(csr *certificatesv1.CertificateSigningRequest, d Decision, record audit.Decision) error {
	if before, ok := r.held.Swap(csr.Name, d.Message); ok && before == d.Message {
		return nil
	}
	record.ID, record.Verdict, record.Reason, record.Message = string(uuid.NewUUID()), string(d.Verdict), d.Reason, d.Message
	if err := r.log.AppendDecision(record); err != nil {
		r.held.Delete(csr.Name)
		return err
	}
	decisions.WithLabelValues(string(d.Verdict), d.Reason).Inc()
	r.events.Eventf(csr, nil, corev1.EventTypeNormal, d.Reason, "Hold", "%s", truncate(d.Message+"; held until "+d.Until.UTC().Format(time.RFC3339), 1024))
	return nil
}
