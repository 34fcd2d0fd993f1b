// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package review

// Outcome says what to do with a request that was reviewed.
type Outcome string

const (
	// NoOpinion is the outcome if every policy abstains. The request stays pending.
	NoOpinion Outcome = ""
	// Approve is the outcome if at least one policy allows the request and no policy has a violation.
	Approve Outcome = "Approve"
	// Deny is the outcome if a policy has a violation that is not retryable, or has held the
	// request for its holdFor.
	Deny Outcome = "Deny"
	// Refuse is the outcome if no policy can allow the request: see [Refusal]. It is a denial that
	// cannot be overridden.
	Refuse Outcome = "Refuse"
	// Hold is the outcome if all violations are retryable and holdFor has not passed. The request
	// stays pending.
	Hold Outcome = "Hold"
	// NotMatched is the outcome if no policy in mode Enforce matches the request. It must not be touched.
	NotMatched Outcome = "NotMatched"
	// OtherNamespaces is the outcome if policies in mode Enforce match the signer, and none of them
	// selects the namespace of the request. It must not be touched.
	OtherNamespaces Outcome = "OtherNamespaces"
	// NotLoaded is the outcome if a policy in mode Enforce matches the request and has no active
	// revision. The request stays pending.
	NotLoaded Outcome = "NotLoaded"
)

// The verdicts of an [Outcome]. Approved and Denied are also types of the conditions of a
// CertificateSigningRequest.
const (
	Approved = "Approved"
	Denied   = "Denied"
	Held     = "Held"
	// Audited is the verdict on record if only policies in mode Audit were evaluated.
	Audited = "Audited"
)

// Verdict returns the verdict of an outcome, or "" if it is neither approved, denied nor held.
func (o Outcome) Verdict() string {
	switch o {
	case Approve:
		return Approved
	case Deny, Refuse:
		return Denied
	case Hold:
		return Held
	default:
		return ""
	}
}

// Matched reports whether a policy in mode Enforce matches the request and its namespace.
func (o Outcome) Matched() bool { return o != NotMatched && o != OtherNamespaces }
