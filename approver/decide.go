// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/pkcs10"
)

// Verdict is what is to become of a request.
type Verdict string

// The verdicts. Approved and Denied are the types of the condition to write.
const (
	NoOpinion Verdict = ""
	Approved  Verdict = "Approved"
	Denied    Verdict = "Denied"
	Held      Verdict = "Held"
)

// Decision is a verdict and why. The zero Decision is no opinion.
type Decision struct {
	Verdict Verdict
	// Reason is one of the constants of this package or a [pkcs10.Reason].
	Reason string
	// Message names every policy and violation the verdict rests on.
	Message string
	// Until is when a hold ends.
	Until time.Time
}

// Evaluation is what one policy made of a request.
type Evaluation struct {
	Policy   string
	Revision string
	// HoldFor is how long the policy lets a request wait.
	HoldFor time.Duration
	Result  evaluator.Result
	// Err means that there is no result.
	Err error
}

// MaxNames is how many DNS names and addresses a request may ask for. It bounds what one
// request can make the approver ask of the API server.
const MaxNames = 64

// Refuse makes the decision on a request that no policy needs to see: its PKCS#10 was refused
// by [pkcs10.Parse], or it contradicts the request that carries it. The zero Decision means
// that policies are to decide.
func Refuse(spec *certificatesv1.CertificateSigningRequestSpec, request *pkcs10.Request, refused *pkcs10.Error) Decision {
	var refusals []pkcs10.Refusal
	switch {
	case refused != nil:
		refusals = refused.Refusals
	case request != nil:
		if n := len(request.DNSNames) + len(request.IPAddresses); n > MaxNames {
			refusals = append(refusals, pkcs10.Refusal{Reason: ReasonTooManyNames, Message: fmt.Sprintf("%d names and addresses: ask for at most %d", n, MaxNames)})
		}
		for _, usage := range request.Usages {
			if !slices.Contains(spec.Usages, usage) {
				refusals = append(refusals, pkcs10.Refusal{Reason: ReasonUsageMismatch, Message: fmt.Sprintf("the PKCS#10 request asks for %q, which is not in spec.usages", usage)})
			}
		}
	}
	if len(refusals) == 0 {
		return Decision{}
	}
	return Decision{Verdict: Denied, Reason: string(refusals[0].Reason), Message: (&pkcs10.Error{Refusals: refusals}).Error()}
}

// Decide makes one decision of what every matching policy made of a request. since is when it
// was first found that the request has to wait.
//
// Approved: at least one policy applies, and every one that does allows. Denied: every
// policy was evaluated and one does not allow for good. Held: what stands in the way is
// retryable, and the hold has not ended. No opinion: none applies, or one failed.
func Decide(since, now time.Time, evaluations []Evaluation) Decision {
	var allowed, blocking []string
	var requirement1, final bool
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
			end := since.Add(e.HoldFor)
			if until.IsZero() || end.Before(until) {
				until = end
			}
			for _, v := range e.Result.Violations {
				requirement1 = requirement1 || v.Requirement == 1
				final = final || !v.Retryable
			}
			blocking = append(blocking, label+": "+texts(e.Result.Violations))
		}
	}
	switch {
	case len(blocking) == 0 && len(allowed) == 0:
		return Decision{}
	case len(blocking) == 0:
		return Decision{Verdict: Approved, Reason: ReasonPolicyAllowed, Message: "allowed by " + strings.Join(allowed, ", ")}
	}
	message := "not allowed by " + strings.Join(blocking, "; and not by ")
	switch {
	case !final && now.Before(until):
		return Decision{Verdict: Held, Reason: ReasonHeld, Message: message, Until: until}
	case !final:
		return Decision{Verdict: Denied, Reason: ReasonHoldExpired, Message: message + fmt.Sprintf("; held for %s", until.Sub(since))}
	case requirement1:
		return Decision{Verdict: Denied, Reason: ReasonSubjectDoesNotControlKey, Message: message}
	default:
		return Decision{Verdict: Denied, Reason: ReasonSubjectNotAuthorized, Message: message}
	}
}

// retryAfter is how long to wait before a held request is looked at again: half as long
// as it has waited, between 250 ms and 5 s, and no longer than to the end of the hold.
func retryAfter(since, now, until time.Time) time.Duration {
	wait := min(max(now.Sub(since)/2, 250*time.Millisecond), 5*time.Second)
	return max(min(wait, until.Sub(now)), time.Millisecond)
}
