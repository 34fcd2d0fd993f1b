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

// FactsTooLarge is the key of [Clocks] for requests that are held because their facts are too large. No policy has
// this name.
const FactsTooLarge = ""

// lateHold is the minimum duration of a hold after a late review. The condition can pass in this time.
const lateHold = 5 * time.Second

// Clocks are the durations for which policies have held a request. The zero Clocks are of a request that was
// not held.
type Clocks struct {
	// Held has the duration for each policy, and for [FactsTooLarge].
	Held map[string]time.Duration
	// Late reports that the request could not be reviewed for some time. A late review denies no request because
	// its hold has expired: conditions cannot pass while the API server is unavailable.
	Late bool
}

// left returns the rest of the hold of a policy. It is not positive if the hold has expired.
func (c Clocks) left(policy string, holdFor time.Duration) time.Duration {
	left := holdFor - c.Held[policy]
	if c.Late && c.Held[policy] > 0 {
		return max(left, lateHold)
	}
	return left
}

// Decide combines the answers of all policies that decide a request. clocks say how long they have
// held it.
//
//   - Approve: at least one policy applies, and every policy that applies allows the request.
//   - Deny: every policy was evaluated, and one has a violation that is not retryable, or
//     it has held the request for its holdFor.
//   - Hold: all violations are retryable, and no policy has held the request for its holdFor.
//   - NoOpinion: every policy abstains, or an evaluation failed.
func Decide(clocks Clocks, now time.Time, evaluations []Evaluation) Decision {
	var allowed, blocking []string
	var violations []evaluator.Violation
	var left, holdFor time.Duration // of the hold that ends first
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
			if l := clocks.left(e.Policy, e.HoldFor); len(blocking) == 0 || l < left {
				left, holdFor = l, e.HoldFor
			}
			blocking = append(blocking, label+": "+e.Violations())
			violations = append(violations, e.Result.Violations...)
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
	case !final(violations) && left > 0:
		return Decision{Outcome: Hold, Reason: ReasonHeld, Message: message, Until: now.Add(left)}
	case !final(violations):
		return Decision{Outcome: Deny, Reason: ReasonHoldExpired, Message: message + fmt.Sprintf("; held for %s", holdFor)}
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
