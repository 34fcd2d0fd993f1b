// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package certreq determines the state of a certificate request, the identity of its requester, and
// whether a signerName matches a pattern. The approver, the signer and the webhook all use it, so that
// their results agree.
//
// It reads API objects and never changes them. Only fields that the API server sets or verifies count:
// names, labels and annotations of a request are chosen by the requester.
package certreq
