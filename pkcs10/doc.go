// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package pkcs10 reads the PKCS#10 certificate request (RFC 2986) that a
// CertificateSigningRequest carries in spec.request, and refuses what no policy may allow.
//
// [Parse] is a pure function of the bytes. Approver and signer both call it, so that
// what is issued rests on the same reading as what was approved. An error is always an
// [*Error]: a verdict on the bytes, with every reason that was found. The same bytes get
// the same verdict for ever, so a caller denies the request and never retries.
//
// What this package promises of a [Request]:
//
//   - The requester held the private key: the signature verifies under the public key.
//   - The key is RSA of 2048 to 8192 bits with exponent 65537, ECDSA on P-256, P-384 or
//     P-521, or Ed25519.
//   - It is all there is. Every byte of the DER was read by a strict reader, and nothing
//     that was asked for is left out: a kind of name, an attribute, an extension or a usage
//     that [Request] has no place for is a refusal, not a silent loss.
//   - crypto/x509, by which certificates are made and checked further on, reads the same
//     subject, names and key from it. Where the two readings differ the request is refused.
//   - It does not ask for a CA certificate.
//
// What it does not do: decide whether a name belongs to the requester, or whether it is a
// sensible name. Wildcards, trailing dots, upper case, unspecified addresses and long common
// names are handed on as they were asked for: they are for policies.
// Nor are keys checked for small or close prime factors, or against lists of known weak keys.
package pkcs10
