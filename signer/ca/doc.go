// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package ca defines certificate authorities, and the rules by which they are created and rotated. It does no I/O:
// package source loads and stores CAs.
//
// [Load] and [New] turn certificates and a private key into a [CA], or return a [Problem] that states what is wrong and
// how to fix it.
//
// Two pure functions control the lifecycle of a CA. [Managed.Next] decides when Countersign creates the next CA.
// [Rotate] decides which CA signs and which CAs are trusted, whether the next one was created by Countersign or put into a
// Secret by a user. The next CA is published first and signs after the propagation period; the former CA stays
// trusted until its last certificate has expired. Both functions depend only on the Secret and on the status of the
// Signer, so that a rotation continues after a restart.
//
// A CA signs any template. Only package issuance, which lints first, is allowed to call [CA.Sign].
package ca
