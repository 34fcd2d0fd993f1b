// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package webhook answers the API server's admission questions about what Countersign decides.
//
//   - An ApprovalPolicy that cannot be used is refused, with every fault of its source; one that
//     would decide nothing is admitted with a warning.
//   - Who makes a CertificateSigningRequest is told at once what stands in its way.
//   - A person's approval of a request that policy does not allow is refused, unless they may
//     override policy.
//
// What holds always: the package approves, denies and signs nothing, and every replica answers by
// itself. Facts are gathered and policies evaluated by the same [approver.Judge] that the approver
// has. A fault is no verdict: it never makes an answer that only a verdict may make. An approval
// that could not be judged is refused; a question about anything else gets an HTTP error, so that
// the API server does as the failurePolicy of the webhook says. An answer about an approval is on
// record before it is given.
//
// The package does not know who calls it. Whoever reaches it can ask, and what is on record of
// approvals is what was asked; demand a client certificate ([Options.ClientCAFile]) where that
// matters.
package webhook
