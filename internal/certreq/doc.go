// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package certreq answers questions about certificate requests that the approver, the signer and the
// webhook must answer alike: the state of a request, the identity of its requester, and whether a
// signerName matches a pattern.
//
// It reads API objects and never changes them. Only fields that the API server sets or verifies count:
// names, labels and annotations of a request are chosen by the requester.
package certreq
