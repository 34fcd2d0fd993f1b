// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package signer issues the certificates of approved CertificateSigningRequests.
//
// It trusts nobody's reading of a request but its own: whoever approved it, the request is
// parsed again, the certificate is built from the fields so verified and never by copying
// from the request, and what is issued is a subset of what was asked and of what the
// [Profile] of the Signer allows.
//
// [Prepare] and [Issuance.Issue] are the core, and pure but for random numbers: a template is
// made and linted, by what was asked and by RFC 5280, and only an Issuance, which nothing else can
// make, reaches the key of the CA. What is linted is, byte for byte, what that key then signs.
// Around them are two reconcilers. One keeps the Signers: their CA, what their status says, and
// the ConfigMaps their CA is published in. The other issues.
//
// A request that can never be issued is marked Failed, for good. Whatever a cluster admin can
// mend (a CA that is missing, expired or does not fit) leaves the request as it is, until it
// is mended; the status of the Signer says what to do. Lints that any certificate of the CA would
// fail are among these: [Profile.Probe] finds them before a request does. And a request that was
// approved too long ago is left with the condition ApprovalTooOld, which says how to go on.
//
// The package must import neither OPA nor the approver: the process that holds the CA's key
// runs no policy.
package signer
