// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/pkcs10"
)

// A Judge says what is to become of a request. It reads, and writes nothing. It is safe for
// concurrent use. [SetupJudge] makes one.
type Judge struct {
	policies *PolicySet
	gatherer *facts.Gatherer
	now      func() time.Time
}

// Judgement is what a Judge says, and what it rests on.
type Judgement struct {
	// Decision is the zero one if the request is nobody's here, if a policy that matches it is not
	// loaded, or if every policy abstains.
	Decision Decision
	// Ours is true if a policy in mode Enforce is for the request.
	Ours bool
	// Elsewhere is true if policies in mode Enforce match the signer, and all of them are for
	// namespaces that the request does not speak for.
	Elsewhere bool
	// Refused is true if the request is denied whatever a policy says: see [Refuse].
	Refused bool
	// NotLoaded is a policy in mode Enforce that is for the request and cannot be evaluated: that
	// is why there is no opinion. Empty if they all can.
	NotLoaded string
	// Facts are nil if the decision needed none.
	Facts *facts.Facts
	// Evaluations are those of the policies that decide.
	Evaluations []Evaluation
	// Audited are those of the policies that are only looked at.
	Audited []Evaluation

	input    *evaluator.Input // the facts as policies saw them; nil if none did
	policies []loadedPolicy   // whose candidates are to be compared
}

// factsJSON is the facts as they stand on record. If policies saw them, they are encoded already.
func (j *Judgement) factsJSON() json.RawMessage {
	if j.input == nil {
		j.input = evaluator.NewInput(j.Facts)
	}
	return j.input.JSON()
}

// Loaded says whether policies have been loaded at all: before that the Judge manages nothing,
// and that means nothing.
func (j *Judge) Loaded() bool { return j.policies.Loaded() }

// Manages says whether some policy matches a signerName.
func (j *Judge) Manages(signerName string) bool { return j.policies.Matches(signerName) }

// Judge judges a request by recent facts and, if these do not allow it, once more by live
// ones. since is when it was first found that the request has to wait. An error is a fault
// and no judgement.
func (j *Judge) Judge(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, since time.Time) (Judgement, error) {
	policies := j.policies.matching(csr.Spec.SignerName)
	if len(policies) == 0 {
		return Judgement{}, nil
	}
	request, err := pkcs10.Parse(csr.Spec.Request)
	var refused *pkcs10.Error
	if err != nil && !errors.As(err, &refused) {
		return Judgement{}, fmt.Errorf("parsing request: %w", err)
	}
	refusal := Refuse(&csr.Spec, request, refused)
	if request == nil {
		request = &pkcs10.Request{} // enough to find whose namespace the request of a Pod is for
	}
	request.DNSNames = request.DNSNames[:min(len(request.DNSNames), MaxNames)]
	request.IPAddresses = request.IPAddresses[:min(len(request.IPAddresses), MaxNames)]
	everybodys := !slices.ContainsFunc(policies, func(p loadedPolicy) bool { return p.namespaces != nil })
	if refusal.Verdict != NoOpinion && everybodys {
		return refuse(refusal, policies, nil), nil
	}
	for _, fresh := range []facts.Freshness{facts.Recent, facts.Live} {
		now := j.now()
		f, err := j.gatherer.Gather(ctx, csr, request, fresh, now)
		if err != nil {
			return Judgement{}, fmt.Errorf("gathering facts: %w", err)
		}
		selected := slices.DeleteFunc(slices.Clone(policies), func(p loadedPolicy) bool { return !p.selects(&f.Cluster.Subject) })
		if refusal.Verdict != NoOpinion {
			if f.Cluster.Subject.Namespace == nil { // nobody may have it, whosever it is
				selected = policies
			}
			return refuse(refusal, selected, &f), nil
		}
		judgement := Judgement{Facts: &f, policies: selected}
		judgement.Elsewhere = enforced(policies) && !enforced(selected)
		decision, err := judgement.evaluate(ctx, since, now)
		if err != nil {
			return Judgement{}, err
		}
		judgement.Decision = decision
		// An approval, or a hold, may rest on recent facts; whatever is final, or leaves the request alone, may not.
		if decision.Verdict == Approved || decision.Verdict == Held || fresh == facts.Live {
			return judgement, nil
		}
	}
	panic("unreachable: live facts decide")
}

func enforced(policies []loadedPolicy) bool {
	return slices.ContainsFunc(policies, func(p loadedPolicy) bool { return p.mode != v1alpha1.ModeAudit })
}

// refuse is the judgement on a request that no policy needs to see, if it is a loaded policy's to refuse.
func refuse(refusal Decision, policies []loadedPolicy, f *facts.Facts) Judgement {
	judgement := Judgement{Facts: f}
	for _, p := range policies {
		if p.mode == v1alpha1.ModeAudit {
			continue
		}
		judgement.Ours = true
		if p.compiled == nil {
			judgement.NotLoaded = p.name
		}
	}
	if judgement.Ours && judgement.NotLoaded == "" {
		judgement.Refused, judgement.Decision = true, refusal
	}
	return judgement
}

// evaluate has every policy look at the facts.
func (j *Judgement) evaluate(ctx context.Context, since, now time.Time) (Decision, error) {
	j.input = evaluator.NewInput(j.Facts)
	for _, p := range j.policies {
		enforced := p.mode != v1alpha1.ModeAudit
		j.Ours = j.Ours || enforced
		if p.compiled == nil {
			if enforced {
				j.NotLoaded = p.name
				return Decision{}, nil
			}
			continue
		}
		e := evaluate(ctx, &p, p.compiled, j.input)
		switch {
		case !enforced:
			j.Audited = append(j.Audited, e)
		case e.Err != nil:
			return Decision{}, fmt.Errorf("evaluating policy %s: %w", e.Policy, e.Err)
		default:
			j.Evaluations = append(j.Evaluations, e)
		}
	}
	return Decide(since, now, j.Evaluations), nil
}

func evaluate(ctx context.Context, p *loadedPolicy, compiled *evaluator.Policy, input *evaluator.Input) Evaluation {
	e := Evaluation{Policy: p.name, Revision: compiled.Revision(), HoldFor: p.holdFor}
	start := time.Now()
	e.Result, e.Err = compiled.Evaluate(ctx, input)
	evaluationSeconds.WithLabelValues(p.name).Observe(time.Since(start).Seconds())
	return e
}
