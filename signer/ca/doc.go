// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package ca loads the certificate authorities that Signers name.
//
// [Load] is pure: it turns the two PEM files of a Secret into a [CA], or says in a [*Fault]
// what is wrong and how to mend it. A [Watcher] keeps the Secrets it is told to, and no other,
// as they are in the cluster now.
//
// A CA signs whatever template it is given. Only the issuing code of package signer, which
// lints first, may call [CA.Sign].
package ca
