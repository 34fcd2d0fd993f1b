// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import "countersign.dev/countersign/pkcs10"

// Reasons of the conditions Approved and Denied of a CertificateSigningRequest, and of the
// Event on a request that is held. A request that is refused for its PKCS#10 alone has the
// reason that package pkcs10 gives, such as WeakKey.
const (
	// ReasonPolicyAllowed: every policy that applies allows the request.
	// Example: "allowed by pod-serving (revision 3f1c0a9d5b7e); decision 6c1f…".
	ReasonPolicyAllowed = "PolicyAllowed"
	// ReasonSubjectDoesNotControlKey: requirement 1 is not met, whatever else is not.
	// Example: "pod-gone: Pod my-namespace/my-pod, which made the request, is gone".
	ReasonSubjectDoesNotControlKey = "SubjectDoesNotControlKey"
	// ReasonSubjectNotAuthorized: requirement 2 is not met.
	// Example: "dns-name-not-owned: Service my-namespace/web selects app=web; Pod my-pod has app=api".
	ReasonSubjectNotAuthorized = "SubjectNotAuthorized"
	// ReasonHoldExpired: what stands in the way might have passed, but did not within holdFor.
	// Example: "ip-address-unknown: nothing has 10.0.34.2; held for 30s".
	ReasonHoldExpired = "HoldExpired"
	// ReasonHeld: what stands in the way may pass; the request is looked at again.
	ReasonHeld = "Held"
	// ReasonTooManyNames: the request asks for more than [MaxNames] names.
	ReasonTooManyNames pkcs10.Reason = "TooManyNames"
	// ReasonUsageMismatch: the PKCS#10 request asks for a usage that spec.usages does not.
	// Example: "the PKCS#10 request asks for \"client auth\", which is not in spec.usages".
	ReasonUsageMismatch pkcs10.Reason = "UsageMismatch"
)
