// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/internal/certreq"
)

// loadedPolicy is an ApprovalPolicy as requests are decided by it. It is immutable.
type loadedPolicy struct {
	name        string
	uid         types.UID
	mode        v1alpha1.PolicyMode
	signerNames []string
	// namespaces selects the namespaces of subjects; nil if the policy is for every request.
	namespaces labels.Selector
	holdFor    time.Duration
	// compiled is nil if no revision of the policy could be used yet: requests it matches stay pending.
	compiled *evaluator.Policy
	// candidate is compared with compiled, and decides nothing; nil if there is none.
	candidate *evaluator.Policy
}

// selects says whether the policy is for requests with such a subject.
func (p *loadedPolicy) selects(subject *facts.ClusterSubject) bool {
	return p.namespaces == nil || subject.Namespace != nil && p.namespaces.Matches(labels.Set(subject.Namespace.Labels))
}

var errNotLoaded = errors.New("policies have not been loaded yet")

// digest tells a policy from one by which a request may be decided otherwise.
func (p *loadedPolicy) digest() string {
	revision, namespaces := "", ""
	if p.compiled != nil {
		revision = p.compiled.Revision()
	}
	if p.namespaces != nil {
		namespaces = p.namespaces.String()
	}
	return fmt.Sprintf("%s %s %s %q %q %s %s\n", p.name, p.uid, p.mode, p.signerNames, namespaces, p.holdFor, revision)
}

// PolicySet is the policies that requests are decided by. It is replaced as a whole: no
// request ever sees half of a change. The zero PolicySet has not been loaded.
type PolicySet struct {
	current atomic.Pointer[policyIndex]
}

// policyIndex finds policies by signerName, at a cost that does not grow with their number.
type policyIndex struct {
	byPattern map[string][]loadedPolicy // by "example.com/serving" or "example.com/*"
	missing   []string                  // names of policies that ought to decide and cannot be evaluated
	digest    string                    // of everything that a decision can depend on
}

// replace sets the policies. One with the mode Disabled is left out. It returns true if requests
// may be decided otherwise than before.
func (s *PolicySet) replace(policies []loadedPolicy) bool {
	index := &policyIndex{byPattern: map[string][]loadedPolicy{}}
	for _, p := range policies {
		if p.mode == v1alpha1.ModeDisabled {
			continue
		}
		index.digest += p.digest()
		for _, pattern := range p.signerNames {
			index.byPattern[pattern] = append(index.byPattern[pattern], p)
		}
		if p.compiled == nil && p.mode != v1alpha1.ModeAudit && !slices.Contains(index.missing, p.name) {
			index.missing = append(index.missing, p.name)
		}
	}
	before := s.current.Swap(index)
	return before == nil || before.digest != index.digest
}

// Matches says whether some policy matches a signerName.
func (s *PolicySet) Matches(signerName string) bool { return len(s.matching(signerName)) > 0 }

// Loaded says whether policies have been loaded, whatever became of each.
func (s *PolicySet) Loaded() bool { return s.current.Load() != nil }

// Ready is nil once policies have been loaded and every one that enforces can be evaluated.
// The error names those that cannot.
func (s *PolicySet) Ready() error {
	current := s.current.Load()
	switch {
	case current == nil:
		return errNotLoaded
	case current.missing != nil:
		return fmt.Errorf("not loaded, see the status of each ApprovalPolicy: %s", strings.Join(current.missing, ", "))
	}
	return nil
}

// matching returns, in the order of their names, the policies that match a signerName.
func (s *PolicySet) matching(signerName string) []loadedPolicy {
	current := s.current.Load()
	if current == nil {
		return nil
	}
	exact, all := current.byPattern[signerName], current.byPattern[certreq.Wildcard(signerName)]
	if len(all) == 0 {
		return exact
	}
	out := slices.Clone(exact)
	for _, p := range all {
		// One that matches in both ways counts once; one that is half loaded, each half.
		if !slices.ContainsFunc(exact, func(e loadedPolicy) bool { return e.uid == p.uid && (e.compiled == nil) == (p.compiled == nil) }) {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(a, b loadedPolicy) int { return cmp.Compare(a.name, b.name) })
	return out
}
