// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"crypto/x509"
	"maps"
	"slices"
	"strconv"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/pkcs10"
	"countersign.dev/countersign/signer/ca"
)

// The usages that can be issued, by the extension that holds them.
var (
	keyUsages = map[certificatesv1.KeyUsage]x509.KeyUsage{
		certificatesv1.UsageDigitalSignature:  x509.KeyUsageDigitalSignature,
		certificatesv1.UsageContentCommitment: x509.KeyUsageContentCommitment,
		certificatesv1.UsageKeyEncipherment:   x509.KeyUsageKeyEncipherment,
		certificatesv1.UsageDataEncipherment:  x509.KeyUsageDataEncipherment,
		certificatesv1.UsageKeyAgreement:      x509.KeyUsageKeyAgreement,
	}
	extKeyUsages = map[certificatesv1.KeyUsage]x509.ExtKeyUsage{
		certificatesv1.UsageServerAuth:      x509.ExtKeyUsageServerAuth,
		certificatesv1.UsageClientAuth:      x509.ExtKeyUsageClientAuth,
		certificatesv1.UsageCodeSigning:     x509.ExtKeyUsageCodeSigning,
		certificatesv1.UsageEmailProtection: x509.ExtKeyUsageEmailProtection,
	}
	allUsages = slices.Sorted(slices.Values(slices.AppendSeq(slices.Collect(maps.Keys(keyUsages)), maps.Keys(extKeyUsages))))
)

// usagesOfKey are the key usages that fit a key, by its algorithm: RFC 3279 (section 2.3.1) for RSA,
// RFC 5480 (section 3) for ECDSA, and RFC 8410 (section 5), clarified by RFC 9295, for Ed25519.
var usagesOfKey = map[string]x509.KeyUsage{
	"RSA":     x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment,
	"ECDSA":   x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyAgreement,
	"Ed25519": x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
}

// consistent are the key usages that are consistent with an extended key usage (RFC 5280, section
// 4.2.1.12).
var consistent = map[certificatesv1.KeyUsage]x509.KeyUsage{
	certificatesv1.UsageServerAuth:      x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement,
	certificatesv1.UsageClientAuth:      x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement,
	certificatesv1.UsageCodeSigning:     x509.KeyUsageDigitalSignature,
	certificatesv1.UsageEmailProtection: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement,
}

// grantUsages returns the usages to issue: those of spec.usages that fit the key.
func grantUsages(requested []certificatesv1.KeyUsage, request *pkcs10.Request, profile *Profile) ([]certificatesv1.KeyUsage, *ca.Problem) {
	for _, usage := range requested {
		if !slices.Contains(profile.usages, usage) {
			return nil, ca.Problemf(ReasonUsageNotAllowed, "usage %q is not allowed: the Signer allows %s", usage, quoteAll(profile.usages))
		}
	}
	for _, usage := range request.Usages {
		if !slices.Contains(requested, usage) {
			return nil, ca.Problemf(ReasonUsageNotAllowed, "the PKCS#10 request asks for usage %q, which spec.usages does not list: both must agree", usage)
		}
	}
	return fitUsages(requested, request.Key.Algorithm)
}

// fitUsages returns the usages that fit a key of the algorithm. It drops the others instead of refusing
// the request: most requests list "key encipherment" for any key, as the examples of the Kubernetes
// documentation do.
func fitUsages(requested []certificatesv1.KeyUsage, algorithm string) ([]certificatesv1.KeyUsage, *ca.Problem) {
	granted := slices.DeleteFunc(slices.Clone(requested), func(usage certificatesv1.KeyUsage) bool {
		bit, ok := keyUsages[usage]
		return ok && usagesOfKey[algorithm]&bit == 0
	})
	// Without one of the two extensions a certificate is valid for every usage of that extension (RFC
	// 5280, sections 4.2.1.3 and 4.2.1.12), which is more than the request asks for.
	bits, extended := splitUsages(granted)
	if bits == 0 {
		return nil, ca.Problemf(ReasonUsageNotAllowed,
			`usages %s leave no key usage for a key of algorithm %s, which would allow every key usage: add "digital signature"`,
			quoteAll(requested), algorithm)
	}
	if len(extended) == 0 {
		return nil, ca.Problemf(ReasonUsageNotAllowed,
			`usages %s have no extended key usage, which would allow every extended key usage: add one such as "server auth" or "client auth"`,
			quoteAll(requested))
	}
	if !slices.ContainsFunc(granted, func(usage certificatesv1.KeyUsage) bool { return consistent[usage]&bits != 0 }) {
		return nil, ca.Problemf(ReasonUsageNotAllowed,
			`usages %s have no key usage for a key of algorithm %s that is consistent with an extended key usage (RFC 5280, section 4.2.1.12): add "digital signature"`,
			quoteAll(requested), algorithm)
	}
	return granted, nil
}

// splitUsages returns the values of the two extensions.
func splitUsages(usages []certificatesv1.KeyUsage) (bits x509.KeyUsage, extended []x509.ExtKeyUsage) {
	for _, usage := range usages {
		bits |= keyUsages[usage]
		if id, ok := extKeyUsages[usage]; ok {
			extended = append(extended, id)
		}
	}
	return bits, extended
}

// quoteAll joins values for a message.
func quoteAll[S ~string](list []S) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = strconv.Quote(string(s))
	}
	return strings.Join(quoted, ", ")
}
