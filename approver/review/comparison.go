// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package review

import (
	"context"

	"k8s.io/apimachinery/pkg/types"
)

// Comparison is the answer of a policy and that of its candidate, for the same facts.
type Comparison struct {
	Policy    types.UID
	Active    Evaluation
	Candidate Evaluation
}

// CompareCandidates evaluates the candidates of the policies that were evaluated. If the context
// ends, it returns the comparisons that are complete.
func (r *Review) CompareCandidates(ctx context.Context) []Comparison {
	var out []Comparison
	for i := range r.policies {
		p := &r.policies[i]
		if p.Candidate == nil || p.Active == nil {
			continue
		}
		c := Comparison{Policy: p.UID, Candidate: evaluation(ctx, p, p.Candidate, r.input)}
		if ctx.Err() != nil {
			return out
		}
		for _, evaluations := range [][]Evaluation{r.Evaluations, r.Shadow} {
			for _, e := range evaluations {
				if e.Policy == p.Name {
					c.Active = e
				}
			}
		}
		out = append(out, c)
	}
	return out
}
