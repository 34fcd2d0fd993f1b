// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package review

import (
	"fmt"
	"strings"
	"time"

	"countersign.dev/countersign/approver/evaluator"
)

// Decision is an outcome and its reason. The zero Decision has the outcome NoOpinion.
type Decision struct {
	Outcome Outcome
	// Reason is one of the constants of this package, or a [pkcs10.Reason].
	Reason string
	// Message names every policy and every violation that the outcome is based on.
	Message string
	// Until is the end of a hold.
	Until time.Time
}

// Evaluation is the answer of one policy to a request.
type Evaluation struct {
	Policy   string
	Revision string
	// HoldFor is the holdFor of the policy.
	HoldFor time.Duration
	Result  evaluator.Result
	// Err reports that there is no Result.
	Err error
}

// Answer returns "allow", "deny", "hold", "abstain" or "error".
func (e *Evaluation) Answer() string {
	switch {
	case e.Err != nil:
		return "error"
	case e.Result.Abstains:
		return "abstain"
	case e.Result.Allowed:
		return "allow"
	case final(e.Result.Violations):
		return "deny"
	}
	return "hold"
}

// Violations returns the violations, each as "id: message", separated by "; ".
func (e *Evaluation) Violations() string {
	out := make([]string, len(e.Result.Violations))
	for i, v := range e.Result.Violations {
		out[i] = v.ID + ": " + v.Message
	}
	return strings.Join(out, "; ")
}

// Decide combines the answers of all policies that decide a request. since is the time at which
// the request was first held.
//
//   - Approve: at least one policy applies, and every policy that applies allows the request.
//   - Deny: every policy was evaluated, and one has a violation that is not retryable, or
//     holdFor has passed.
//   - Hold: all violations are retryable, and holdFor has not passed.
//   - NoOpinion: every policy abstains, or an evaluation failed.
func Decide(since, now time.Time, evaluations []Evaluation) Decision {
	var allowed, blocking []string
	var violations []evaluator.Violation
	var until time.Time
	for _, e := range evaluations {
		if e.Err != nil {
			return Decision{}
		}
		label := fmt.Sprintf("%s (revision %.12s)", e.Policy, e.Revision)
		switch {
		case e.Result.Abstains:
		case e.Result.Allowed:
			allowed = append(allowed, label)
		default:
			blocking = append(blocking, label+": "+e.Violations())
			violations = append(violations, e.Result.Violations...)
			if end := since.Add(e.HoldFor); until.IsZero() || end.Before(until) {
				until = end
			}
		}
	}
	switch {
	case len(blocking) == 0 && len(allowed) == 0:
		return Decision{}
	case len(blocking) == 0:
		return Decision{Outcome: Approve, Reason: ReasonPolicyAllowed, Message: "allowed by " + strings.Join(allowed, ", ")}
	}
	message := "not allowed by " + strings.Join(blocking, "; and not by ")
	switch {
	case !final(violations) && now.Before(until):
		return Decision{Outcome: Hold, Reason: ReasonHeld, Message: message, Until: until}
	case !final(violations):
		return Decision{Outcome: Deny, Reason: ReasonHoldExpired, Message: message + fmt.Sprintf("; held for %s", until.Sub(since))}
	case violatesKeyControl(violations):
		return Decision{Outcome: Deny, Reason: ReasonSubjectDoesNotControlKey, Message: message}
	default:
		return Decision{Outcome: Deny, Reason: ReasonSubjectNotAuthorized, Message: message}
	}
}

// final reports whether a violation is not retryable.
func final(violations []evaluator.Violation) bool {
	for _, v := range violations {
		if !v.Retryable {
			return true
		}
	}
	return false
}

// violatesKeyControl reports whether a violation is about requirement 1.
func violatesKeyControl(violations []evaluator.Violation) bool {
	for _, v := range violations {
		if v.Requirement == 1 {
			return true
		}
	}
	return false
}
