// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package pkcs10 reads the PKCS#10 certificate request (RFC 2986) that a
// CertificateSigningRequest carries in spec.request, and refuses what no policy may allow.
//
// [Parse] is a pure function of the bytes. Approver and signer both call it, so that a
// certificate is issued for the same reading of the request that was approved. An error is
// always an [*Error]: a verdict on the bytes, with every reason that was found. The same bytes
// always get the same verdict, so a caller denies the request and never retries.
//
// This package guarantees for a [Request]:
//
//   - The requester held the private key: the signature verifies under the public key.
//   - The key is RSA of 2048 to 8192 bits with exponent 65537, ECDSA on P-256, P-384 or
//     P-521, or Ed25519.
//   - It is complete. A strict reader has read every byte of the DER, and nothing that was
//     requested is left out: a kind of name, an attribute, an extension or a usage that
//     [Request] has no field for is refused, not dropped.
//   - crypto/x509, which creates and verifies certificates later on, reads the same subject,
//     names and key from it. If the two readings differ, the request is refused.
//   - Names have the syntax of their standard: RFC 1123 for DNS names, RFC 5321 for email addresses,
//     RFC 3986 for URIs. So no name prints as two names.
//   - It does not ask for a CA certificate.
//
// The package does not decide whether a name belongs to the requester, or exists in DNS. It returns
// wildcards, trailing dots, upper case, unspecified addresses and long common names unchanged:
// policies decide about them. It does not check keys for small or close
// prime factors, or against lists of known weak keys.
package pkcs10
