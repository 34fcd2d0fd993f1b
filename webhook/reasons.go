// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

// Verdicts on manual approvals, in the audit record.
const (
	ApprovalAllowed    = "ApprovalAllowed"
	ApprovalRefused    = "ApprovalRefused"
	ApprovalOverridden = "ApprovalOverridden"
)

// Reasons for a verdict on a manual approval, in the audit record, where the reason is not the one
// of the review.
const (
	// ReasonNoPolicyApplies means that no policy in mode Enforce matches the request, or that all of
	// them abstain. The approval is allowed.
	// Example: "no policy in mode Enforce applies to the request"
	ReasonNoPolicyApplies = "NoPolicyApplies"
	// ReasonOtherNamespaces means that policies in mode Enforce match the signer, and none of them
	// selects the namespace of the request.
	// Example: "no policy for this signer selects the namespace of the request"
	ReasonOtherNamespaces = "OtherNamespaces"
	// ReasonNotReviewed means that an error prevented the review.
	// Example: "the request could not be reviewed: gathering facts: connection refused"
	ReasonNotReviewed = "NotJudged"
	// ReasonPolicyNotLoaded means that a policy in mode Enforce has no active revision.
	// Example: "policy pod-serving is not loaded: see its status"
	ReasonPolicyNotLoaded = "PolicyNotLoaded"
)
