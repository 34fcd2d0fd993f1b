// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"context"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/internal/text"
)

// maxSamples is how many disagreements the status of a policy shows.
const maxSamples = 8

// answerOf names what a policy answers, for people who compare.
func answerOf(r evaluator.Result, err error) string {
	switch {
	case err != nil:
		return "error"
	case r.Abstains:
		return "abstain"
	case r.Allowed:
		return "allow"
	}
	for _, v := range r.Violations {
		if !v.Retryable {
			return "deny"
		}
	}
	return "hold"
}

// tally counts what candidates answer otherwise than the policies they would replace. Only the
// leader counts; what it counted stands in the status of the policy, where the next one goes on.
type tally struct {
	mu     sync.Mutex
	counts map[types.UID]v1alpha1.CandidateStatus // by policy; of one revision each
}

func newTally() *tally { return &tally{counts: map[types.UID]v1alpha1.CandidateStatus{}} }

// count adds one comparison.
func (t *tally) count(policy types.UID, revision string, disagreement *v1alpha1.Disagreement) {
	t.mu.Lock()
	defer t.mu.Unlock()
	counted := t.counts[policy]
	if counted.Revision != revision {
		counted = v1alpha1.CandidateStatus{Revision: revision}
	}
	counted.Evaluations++
	if disagreement != nil {
		counted.Disagreements++
		samples := append(append([]v1alpha1.Disagreement{}, counted.Samples...), *disagreement)
		counted.Samples = samples[max(0, len(samples)-maxSamples):]
	}
	t.counts[policy] = counted
}

// status is what was counted of a revision, here or, if that is more, by who led before.
func (t *tally) status(policy types.UID, revision string, known *v1alpha1.CandidateStatus) v1alpha1.CandidateStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	counted := t.counts[policy]
	if counted.Revision != revision {
		counted = v1alpha1.CandidateStatus{Revision: revision}
	}
	if known != nil && known.Revision == revision && known.Evaluations > counted.Evaluations {
		counted = *known.DeepCopy()
		counted.Message = ""
	}
	t.counts[policy] = counted
	return *counted.DeepCopy()
}

// compare evaluates the candidates of the policies that a judgement rests on over the same
// facts, and counts what they answer. It returns true if there was one.
func (t *tally) compare(ctx context.Context, request string, judgement Judgement, now time.Time) bool {
	compared := false
	for _, p := range judgement.policies {
		if p.candidate == nil || p.compiled == nil {
			continue
		}
		var active Evaluation
		for _, e := range append(append([]Evaluation{}, judgement.Evaluations...), judgement.Audited...) {
			if e.Policy == p.name {
				active = e
			}
		}
		result, err := p.candidate.Evaluate(ctx, judgement.input)
		if ctx.Err() != nil {
			return compared
		}
		compared = true
		disagreement := &v1alpha1.Disagreement{
			Time: metav1.NewTime(now.Truncate(time.Second)), Request: request,
			Active: answerOf(active.Result, active.Err), Candidate: answerOf(result, err),
		}
		if disagreement.Active == disagreement.Candidate {
			t.count(p.uid, p.candidate.Revision(), nil)
			continue
		}
		switch {
		case err != nil:
			disagreement.Message = err.Error()
		case len(result.Violations) > 0:
			disagreement.Message = texts(result.Violations)
		default:
			disagreement.Message = texts(active.Result.Violations)
		}
		disagreement.Message = text.Shorten(disagreement.Message, 512)
		candidateDisagreements.WithLabelValues(p.name).Inc()
		t.count(p.uid, p.candidate.Revision(), disagreement)
	}
	return compared
}

// texts joins violations, each as "id: message", by "; ".
func texts(violations []evaluator.Violation) string {
	out := make([]string, len(violations))
	for i, v := range violations {
		out[i] = v.ID + ": " + v.Message
	}
	return strings.Join(out, "; ")
}
