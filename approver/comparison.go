// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"context"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/review"
	"countersign.dev/countersign/internal/text"
)

// maxSamples is the maximum number of disagreements in the status of a policy.
const maxSamples = 8

// comparison counts how often the candidate of a policy disagrees with its active revision. Only
// the leader counts. The status of the policy keeps the counts; the next leader continues from them.
type comparison struct {
	mu     sync.Mutex
	counts map[types.UID]v1alpha1.CandidateStatus // by policy, each of one revision
}

func newComparison() *comparison {
	return &comparison{counts: map[types.UID]v1alpha1.CandidateStatus{}}
}

// count adds one evaluation of a candidate. disagreement is nil if it agrees with the active revision.
func (c *comparison) count(policy types.UID, revision string, disagreement *v1alpha1.Disagreement) {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := c.counts[policy]
	if counts.Revision != revision {
		counts = v1alpha1.CandidateStatus{Revision: revision}
	}
	counts.Evaluations++
	if disagreement != nil {
		counts.Disagreements++
		samples := append(append([]v1alpha1.Disagreement{}, counts.Samples...), *disagreement)
		counts.Samples = samples[max(0, len(samples)-maxSamples):]
	}
	c.counts[policy] = counts
}

// status returns the counts of a revision. It continues from stored, the counts in the status of
// the policy, if these are higher: another replica has led before.
func (c *comparison) status(policy types.UID, revision string, stored *v1alpha1.CandidateStatus) v1alpha1.CandidateStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := c.counts[policy]
	if counts.Revision != revision {
		counts = v1alpha1.CandidateStatus{Revision: revision}
	}
	if stored != nil && stored.Revision == revision && stored.Evaluations > counts.Evaluations {
		counts = *stored.DeepCopy()
		counts.Message = ""
	}
	c.counts[policy] = counts
	return *counts.DeepCopy()
}

// compare evaluates the candidates for a request that was reviewed, and counts their answers. It
// reports whether there was a candidate.
func (c *comparison) compare(ctx context.Context, request string, r review.Review, now time.Time) bool {
	comparisons := r.CompareCandidates(ctx)
	for _, each := range comparisons {
		disagreement := disagreementOf(each, request, now)
		if disagreement != nil {
			candidateDisagreements.WithLabelValues(each.Candidate.Policy).Inc()
		}
		c.count(each.Policy, each.Candidate.Revision, disagreement)
	}
	return len(comparisons) > 0
}

// disagreementOf returns the disagreement of a candidate with the active revision, or nil.
func disagreementOf(c review.Comparison, request string, now time.Time) *v1alpha1.Disagreement {
	if c.Active.Answer() == c.Candidate.Answer() {
		return nil
	}
	message := ""
	switch {
	case c.Candidate.Err != nil:
		message = c.Candidate.Err.Error()
	case len(c.Candidate.Result.Violations) > 0:
		message = c.Candidate.Violations()
	default:
		message = c.Active.Violations()
	}
	return &v1alpha1.Disagreement{
		Time: metav1.NewTime(now.Truncate(time.Second)), Request: request,
		Active: c.Active.Answer(), Candidate: c.Candidate.Answer(), Message: text.Shorten(message, 512),
	}
}
