// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package review

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/approver/policy"
	"countersign.dev/countersign/pkcs10"
)

// Gatherer gathers the facts of a request. [facts.Gatherer] implements it.
type Gatherer interface {
	// Recent returns facts that can approve or hold a request.
	Recent(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, request *pkcs10.Request, now time.Time) (facts.Gathered, error)
	// Live returns facts that can deny a request.
	Live(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, request *pkcs10.Request, now time.Time) (facts.Gathered, error)
}

// Reviewer reviews requests. It writes nothing and is safe for concurrent use.
type Reviewer struct {
	Policies *policy.Set
	Gatherer Gatherer
	// Now is the clock, such as [time.Now].
	Now func() time.Time
	// Observe is called after each evaluation of a policy. Nil observes nothing.
	Observe func(policy string, duration time.Duration)
	// TakenOut is called when a policy is not evaluated, because evaluations exceeded their limits before.
	// Can be nil.
	TakenOut func()
}

// Review is the result of reviewing a request.
type Review struct {
	Decision
	// NotLoaded names a policy without an active revision, if that is the Outcome.
	NotLoaded string
	// Facts are nil if the Decision needed none.
	Facts *facts.Facts
	// Evaluations are the answers of the policies that decide.
	Evaluations []Evaluation
	// Shadow are the answers of policies in mode Audit, which do not decide.
	Shadow []Evaluation

	input    *evaluator.Input // the facts as the policies saw them; nil if none was evaluated
	policies []policy.Policy  // that were evaluated
	readAt   time.Time        // of the oldest fact; zero if nothing was read
}

// Expired reports whether a fact is older than [facts.MaxDecisionAge]. Do not approve a request by it.
func (r *Review) Expired() bool {
	return !r.readAt.IsZero() && time.Since(r.readAt) > facts.MaxDecisionAge
}

// writeTime is the time that the write of an approval has, beyond [facts.MaxDecisionAge].
const writeTime = 2 * time.Second

// WriteBy returns the deadline of the write of an approval, or the zero time for other outcomes: no approval may take
// effect long after its facts were read.
func (r *Review) WriteBy() time.Time {
	switch {
	case r.Outcome != Approve:
		return time.Time{}
	case r.readAt.IsZero():
		return time.Now().Add(writeTime)
	default:
		return r.readAt.Add(facts.MaxDecisionAge + writeTime)
	}
}

// HeldBy returns the keys of [Clocks] for what holds the request.
func (r *Review) HeldBy() []string {
	if r.Outcome != Hold {
		return nil
	}
	if r.Reason == ReasonFactsTooLarge {
		return []string{FactsTooLarge}
	}
	var out []string
	for i := range r.Evaluations {
		if e := &r.Evaluations[i]; e.Answer() == "hold" {
			out = append(out, e.Policy)
		}
	}
	return out
}

// maxGatherings is how often the facts of one request are gathered again, if they have expired before the
// policies allow the request.
const maxGatherings = 3

// Loaded reports whether policies have been loaded. Before that, Manages returns false for every
// signer.
func (r *Reviewer) Loaded() bool { return r.Policies.Loaded() }

// Manages reports whether a policy matches a signerName.
func (r *Reviewer) Manages(signerName string) bool { return r.Policies.Matches(signerName) }

// Review reviews a request. It uses recent facts first, and live facts if these do not allow the
// request. clocks say how long the request has been held. An error is not a verdict: retry.
func (r *Reviewer) Review(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, clocks Clocks) (Review, error) {
	policies := r.Policies.Matching(csr.Spec.SignerName)
	if len(policies) == 0 {
		return Review{Decision: Decision{Outcome: NotMatched}}, nil
	}
	request, refusal, err := parse(&csr.Spec)
	if err != nil {
		return Review{}, err
	}
	if refusal.Outcome == Refuse {
		return r.refuse(ctx, csr, request, refusal, policies)
	}
	for range maxGatherings {
		review, err := r.evaluate(ctx, csr, request, clocks, policies)
		if err != nil || review.Outcome != Approve || !review.Expired() {
			return review, err
		}
	}
	return Review{}, fmt.Errorf("gathering facts: they were older than %s when the policies had evaluated them, %d times", facts.MaxDecisionAge, maxGatherings)
}

// evaluate gathers facts and decides by them.
func (r *Reviewer) evaluate(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, request *pkcs10.Request, clocks Clocks, policies []policy.Policy) (Review, error) {
	now := r.Now()
	f, err := r.Gatherer.Recent(ctx, csr, request, now)
	if err != nil {
		return Review{}, fmt.Errorf("gathering facts: %w", err)
	}
	review, err := r.decide(ctx, policies, &f, clocks, now)
	if err != nil || review.Outcome == Approve || review.Outcome == Hold {
		return review, err
	}
	// A denial is final, and a request that no policy matches is not requeued soon: both need live facts.
	now = r.Now()
	if f, err = r.Gatherer.Live(ctx, csr, request, now); err != nil {
		return Review{}, fmt.Errorf("gathering facts: %w", err)
	}
	return r.decide(ctx, policies, &f, clocks, now)
}

// refuse returns the review of a request that no policy can allow. It is refused if a policy in
// mode Enforce selects its namespace, or if it has no namespace.
func (r *Reviewer) refuse(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, request *pkcs10.Request, refusal Decision, policies []policy.Policy) (Review, error) {
	var review Review
	if slices.ContainsFunc(policies, func(p policy.Policy) bool { return p.Namespaces != nil }) {
		f, err := r.Gatherer.Recent(ctx, csr, request, r.Now())
		if err != nil {
			return Review{}, fmt.Errorf("gathering facts: %w", err)
		}
		if review.Facts = &f.Facts; f.Cluster.Subject.Namespace != nil {
			policies = selecting(policies, &f.Cluster.Subject)
		}
	}
	review.Outcome = NotMatched
	for _, p := range policies {
		switch {
		case p.Shadow():
		case p.Active == nil:
			review.Decision, review.NotLoaded = Decision{Outcome: NotLoaded}, p.Name
		case review.Outcome == NotMatched:
			review.Decision = refusal
		}
	}
	return review, nil
}

// decide evaluates the policies that select the subject of the facts, and combines their answers.
func (r *Reviewer) decide(ctx context.Context, matching []policy.Policy, f *facts.Gathered, clocks Clocks, now time.Time) (Review, error) {
	review := Review{Facts: &f.Facts, readAt: f.ReadAt, input: evaluator.NewInput(&f.Facts), policies: selecting(matching, &f.Cluster.Subject)}
	enforcing := slices.DeleteFunc(slices.Clone(review.policies), func(p policy.Policy) bool { return p.Shadow() })
	for _, p := range enforcing {
		if p.Active == nil {
			review.Decision, review.NotLoaded = Decision{Outcome: NotLoaded}, p.Name
			return review, nil
		}
	}
	tooLarge := f.TooLarge(len(review.input.JSON()))
	if tooLarge == "" {
		if err := r.evaluatePolicies(ctx, &review); err != nil {
			return Review{}, err
		}
	}
	switch {
	case len(enforcing) > 0 && tooLarge != "":
		review.Decision = decideTooLarge(clocks, now, enforcing, tooLarge)
	case len(enforcing) > 0:
		review.Decision = Decide(clocks, now, review.Evaluations)
	case slices.ContainsFunc(matching, func(p policy.Policy) bool { return !p.Shadow() }):
		review.Outcome = OtherNamespaces
	default:
		review.Outcome = NotMatched
	}
	return review, nil
}

// evaluatePolicies adds the answers of the policies of a review. Shadow policies come last: they share
// the CPU time of the request, and an error of one of them is one of its answers.
func (r *Reviewer) evaluatePolicies(ctx context.Context, review *Review) error {
	for i := range review.policies {
		p := &review.policies[i]
		if p.Shadow() || p.Active == nil {
			continue
		}
		e := r.evaluatePolicy(ctx, p, review.input)
		if e.Err != nil {
			return fmt.Errorf("evaluating policy %s: %w", e.Policy, e.Err)
		}
		review.Evaluations = append(review.Evaluations, e)
	}
	for i := range review.policies {
		if p := &review.policies[i]; p.Shadow() && p.Active != nil {
			review.Shadow = append(review.Shadow, r.evaluatePolicy(ctx, p, review.input))
		}
	}
	return nil
}

// decideTooLarge holds a request whose facts are too large until the shortest holdFor of the policies has
// passed, and then denies it.
func decideTooLarge(clocks Clocks, now time.Time, policies []policy.Policy, message string) Decision {
	holdFor := policies[0].HoldFor
	for _, p := range policies {
		holdFor = min(holdFor, p.HoldFor)
	}
	if left := clocks.left(FactsTooLarge, holdFor); left > 0 {
		return Decision{Outcome: Hold, Reason: ReasonFactsTooLarge, Message: message, Until: now.Add(left)}
	}
	return Decision{Outcome: Deny, Reason: ReasonFactsTooLarge, Message: fmt.Sprintf("%s; held for %s", message, holdFor)}
}

// selecting returns the policies that select a subject.
func selecting(policies []policy.Policy, subject *facts.ClusterSubject) []policy.Policy {
	return slices.DeleteFunc(slices.Clone(policies), func(p policy.Policy) bool { return !p.Selects(subject) })
}

func (r *Reviewer) evaluatePolicy(ctx context.Context, p *policy.Policy, input *evaluator.Input) Evaluation {
	start := time.Now()
	e := evaluation(ctx, p, p.Active, input)
	if r.Observe != nil {
		r.Observe(p.Name, time.Since(start))
	}
	if r.TakenOut != nil && errors.Is(e.Err, evaluator.ErrTooExpensive) {
		r.TakenOut()
	}
	return e
}

func evaluation(ctx context.Context, p *policy.Policy, revision *evaluator.Policy, input *evaluator.Input) Evaluation {
	e := Evaluation{Policy: p.Name, Revision: revision.Revision(), HoldFor: p.HoldFor}
	e.Result, e.Err = revision.Evaluate(ctx, input)
	return e
}
