// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package ca loads, makes and rotates the certificate authorities of Signers.
//
// [Load] is pure: it turns the two PEM files of a Secret into a [CA], or says in a [*Problem]
// what is wrong and how to mend it. A [Watcher] keeps the Secrets it is told to, and no other,
// as they are in the cluster now; [Files] does so for mounted files.
//
// Two pure functions carry a CA through the years. [Managed.Next] says when Countersign is to make
// another one, which a [Store] writes so that two replicas cannot both do it. [Rotate] says which CA
// signs and which are trusted, whether the next one was made here or put into a Secret by
// somebody: published first, then waited for, then signing, and the old one trusted until its last
// certificate has expired. All that they depend on is in the Secret and in the status of the Signer,
// so that a rotation goes on wherever it was when the process ended.
//
// A CA signs whatever template it is given. Only the issuing code of package signer, which
// lints first, may call [CA.Sign].
package ca
