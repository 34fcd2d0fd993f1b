// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package signer contains the controllers that issue the certificates of approved
// CertificateSigningRequests.
//
// There are two reconcilers. The reconciler of Signers loads their CAs, sets their status, and publishes
// their trust bundles. The reconciler of requests issues certificates with package issuance, which does
// not trust the approver: it parses and validates each request again. A registry of the Signers that are ready connects
// the two.
//
// Each decision is recorded in the audit log before the certificate is signed or the condition is written:
//
//   - A request that can never be issued gets the condition Failed, which is permanent.
//   - A request that was approved too long ago gets the condition ApprovalTooOld and stays approved.
//   - A request stays approved while the CA cannot issue, such as when it is missing or expired. The
//     status of the Signer says what to do. Such requests are requeued when the Signer becomes ready.
//
// The package must import neither OPA nor the approver: the process that holds the key of the CA does
// not evaluate policies.
package signer
