// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package webhook is the admission server of Countersign. It validates three kinds of requests:
//
//   - An ApprovalPolicy that cannot be used is rejected with all problems of its source. An
//     ApprovalPolicy that would decide nothing is admitted with a warning.
//   - The requester of a new CertificateSigningRequest gets its violations as warnings, or as a
//     rejection.
//   - A manual approval of a request that the policies do not allow is rejected, unless the user is
//     allowed the verb override-policy on the signer.
//
// The package approves, denies and signs nothing. Requests are reviewed by the same
// Reviewer (package approver/review) as in the approver. Every replica serves.
//
// An error is not a verdict. An approval that cannot be reviewed is rejected. Any other request
// that cannot be validated gets an HTTP error, and the API server applies the failurePolicy of the
// webhook. An approval is recorded before it is answered.
//
// The audit records of approvals contain what the client sent. With [None], any client that reaches the
// server can send requests; with [Required], clients with a certificate can. In both cases the server
// bounds the connections, the requests that are processed at a time and their sizes: see server.go.
package webhook
