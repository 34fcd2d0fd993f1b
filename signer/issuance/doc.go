// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package issuance turns approved CertificateSigningRequests into certificates.
//
// It is pure but for random numbers: it has no client, and the caller passes the time. Each step uses
// only the steps above it:
//
//   - [NewProfile] validates the spec of a Signer.
//   - A request is validated against the Profile, and a draft of the certificate is built from the
//     verified fields of the request. No bytes of the request are copied.
//   - The draft is linted: by RFC 5280, and against the request and the Profile.
//   - The draft is verified as a relying party does it, which covers the CA's constraints.
//   - [Profile.Probe] does all this for a probe request, to find CAs that cannot issue.
//   - [Prepare] returns an [Issuance] or the reason why there is none.
//   - [Issuance.Issue] signs, once.
//
// Prepare is the only way to get an Issuance, and an Issuance is the only way to the key of the CA.
// The key signs exactly the bytes that were linted.
//
// The verdict on a request is the [Outcome] of a [Result]. An error means that the caller should
// retry. Failing a request is permanent, so a request is [Refused] only for its own problems: while the
// CA cannot issue, the Outcome is [CAProblem].
package issuance
