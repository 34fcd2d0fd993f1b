// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"countersign.dev/countersign/approver/evaluator"
)

// loadedPolicy is an ApprovalPolicy as requests are decided by it.
type loadedPolicy struct {
	name        string
	signerNames []string
	holdFor     time.Duration
	// compiled is nil if no revision of the policy could be used yet: requests it matches stay pending.
	compiled *evaluator.Policy
}

// PolicySet is the policies that requests are decided by. It is replaced as a whole: no
// request ever sees half of a change. The zero PolicySet has not been loaded.
type PolicySet struct {
	current atomic.Pointer[[]loadedPolicy]
}

func (s *PolicySet) replace(policies []loadedPolicy) { s.current.Store(&policies) }

// Matches says whether some policy matches a signerName.
func (s *PolicySet) Matches(signerName string) bool { return len(s.matching(signerName)) > 0 }

// Ready is nil once policies have been loaded and every one of them can be evaluated.
// The error names those that cannot.
func (s *PolicySet) Ready() error {
	current := s.current.Load()
	if current == nil {
		return errors.New("policies have not been loaded yet")
	}
	var missing []string
	for _, p := range *current {
		if p.compiled == nil {
			missing = append(missing, p.name)
		}
	}
	if missing != nil {
		return fmt.Errorf("not loaded, see the status of each ApprovalPolicy: %s", strings.Join(missing, ", "))
	}
	return nil
}

func (s *PolicySet) matching(signerName string) []loadedPolicy {
	current := s.current.Load()
	if current == nil {
		return nil
	}
	var out []loadedPolicy
	for _, p := range *current {
		for _, pattern := range p.signerNames {
			if matchesSigner(pattern, signerName) {
				out = append(out, p)
				break
			}
		}
	}
	return out
}

// matchesSigner compares a signerName with a name or with "domain/*", in linear time.
func matchesSigner(pattern, signerName string) bool {
	if domain, ok := strings.CutSuffix(pattern, "/*"); ok {
		got, path, ok := strings.Cut(signerName, "/")
		return ok && path != "" && got == domain
	}
	return pattern == signerName
}
