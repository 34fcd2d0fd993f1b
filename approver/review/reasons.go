// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package review

import "countersign.dev/countersign/pkcs10"

// Reasons of a [Decision]. The approver writes them to the conditions Approved and Denied of a
// CertificateSigningRequest, and to the Event of a request that is held. The message of a
// condition ends with "; decision " and the ID of the audit record.
//
// If the PKCS#10 is rejected, the reason is the one of package pkcs10, such as WeakKey.
const (
	// ReasonPolicyAllowed means that every policy that applies allows the request.
	// Example: "allowed by pod-serving (revision 3f1c0a9d5b7e)"
	ReasonPolicyAllowed = "PolicyAllowed"
	// ReasonSubjectDoesNotControlKey means that requirement 1 is violated, whatever else is.
	// Example: "not allowed by pod-serving (revision 3f1c0a9d5b7e): pod-gone: Pod my-pod, which made the request, does not exist any more: make a new request from the Pod that runs now"
	ReasonSubjectDoesNotControlKey = "SubjectDoesNotControlKey"
	// ReasonSubjectNotAuthorized means that requirement 2 is violated, and requirement 1 is not.
	// Example: "not allowed by pod-serving (revision 3f1c0a9d5b7e): dns-name-not-owned: DNS name \"web.my-namespace.svc\" does not belong to Pod my-namespace/my-pod (Service my-namespace/web selects app=web; Pod my-pod has app=api): ask for names of the Pod, or of Services that select it"
	ReasonSubjectNotAuthorized = "SubjectNotAuthorized"
	// ReasonHoldExpired means that the violations are retryable, and a policy has held the request for its holdFor.
	// Example: "not allowed by pod-serving (revision 3f1c0a9d5b7e): ip-address-unknown: address 10.0.34.2 does not belong to Pod my-namespace/my-pod yet: the Pod has no address so far; held for 30s"
	ReasonHoldExpired = "HoldExpired"
	// ReasonHeld means that the violations are retryable. The request is requeued until a policy has held it for its holdFor.
	// Example: "not allowed by pod-serving (revision 3f1c0a9d5b7e): ip-address-unknown: address 10.0.34.2 does not belong to Pod my-namespace/my-pod yet: the Pod has no address so far"
	ReasonHeld = "Held"
	// ReasonFactsTooLarge means that the facts about the request are above the bounds of package facts. No
	// policy evaluates them. The request is held until the shortest holdFor of the policies has passed,
	// and then denied.
	// Example: "the facts about the request have 140944 bytes, the maximum is 131072; input.cluster.subject.pod has 140210: remove labels and owner references from the Pod; held for 30s"
	ReasonFactsTooLarge = "FactsTooLarge"
	// ReasonTooManyNames means that the request has more than [MaxNames] names and addresses.
	// Example: "TooManyNames: the request has 65 names and addresses; the maximum is 64"
	ReasonTooManyNames pkcs10.Reason = "TooManyNames"
	// ReasonUsageMismatch means that the PKCS#10 request asks for a usage that spec.usages does not contain.
	// Example: "UsageMismatch: the PKCS#10 request asks for usage \"client auth\", which spec.usages does not contain"
	ReasonUsageMismatch pkcs10.Reason = "UsageMismatch"
)
