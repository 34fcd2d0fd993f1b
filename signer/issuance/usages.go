// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"crypto/x509"
	"maps"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/pkcs10"
)

// The usages that can be issued, by where in a certificate they stand.
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

// usagesOfKey are the key usages that a certificate of a key may have, by the algorithm of the key:
// RFC 3279 (section 2.3.1) for RSA, RFC 5480 (section 3) for ECDSA, and RFC 8410 (section 5), as
// RFC 9295 made it plain, for Ed25519.
var usagesOfKey = map[string]x509.KeyUsage{
	"RSA":     x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment,
	"ECDSA":   x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyAgreement,
	"Ed25519": x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
}

// consistent are the key usages that go with an extended one (RFC 5280, section 4.2.1.12).
var consistent = map[certificatesv1.KeyUsage]x509.KeyUsage{
	certificatesv1.UsageServerAuth:      x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement,
	certificatesv1.UsageClientAuth:      x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement,
	certificatesv1.UsageCodeSigning:     x509.KeyUsageDigitalSignature,
	certificatesv1.UsageEmailProtection: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement,
}

// grantUsages returns the usages to issue: those of spec.usages that make sense for the key.
func grantUsages(asked []certificatesv1.KeyUsage, request *pkcs10.Request, profile *Profile) ([]certificatesv1.KeyUsage, error) {
	for _, usage := range asked {
		if !slices.Contains(profile.usages, usage) {
			return nil, refusef(ReasonUsageNotAllowed, "usage %q is not among those of the Signer: %s", usage, quoteAll(profile.usages))
		}
	}
	for _, usage := range request.Usages {
		if !slices.Contains(asked, usage) {
			return nil, refusef(ReasonUsageNotAllowed, "the PKCS#10 asks for usage %q, which is not in spec.usages: let the two agree", usage)
		}
	}
	return fitUsages(asked, request.Key.Algorithm)
}

// fitUsages returns those usages that a certificate for a key of that algorithm may have. Others
// are dropped, not refused: most requests name "key encipherment" whatever their key, those of the
// Kubernetes documentation among them. The error is a [*Refusal].
func fitUsages(asked []certificatesv1.KeyUsage, algorithm string) ([]certificatesv1.KeyUsage, error) {
	granted := slices.DeleteFunc(slices.Clone(asked), func(usage certificatesv1.KeyUsage) bool {
		bit, ok := keyUsages[usage]
		return ok && usagesOfKey[algorithm]&bit == 0
	})
	// A certificate without one of the two extensions is good for every usage that the extension
	// could name (RFC 5280, sections 4.2.1.3 and 4.2.1.12), which is more than was asked.
	bits, extended := splitUsages(granted)
	if bits == 0 {
		return nil, refusef(ReasonUsageNotAllowed,
			`for a key of type %s the usages %s leave the certificate without a key usage, which would allow every one: ask for "digital signature"`,
			algorithm, quoteAll(asked))
	}
	if len(extended) == 0 {
		return nil, refusef(ReasonUsageNotAllowed,
			`the usages %s leave the certificate without an extended key usage, which would allow every one: ask for one such as "server auth" or "client auth"`,
			quoteAll(asked))
	}
	if !slices.ContainsFunc(granted, func(usage certificatesv1.KeyUsage) bool { return consistent[usage]&bits != 0 }) {
		return nil, refusef(ReasonUsageNotAllowed,
			`for a key of type %s the usages %s leave the certificate good for nothing, as its key usages go with none of its extended ones (RFC 5280, section 4.2.1.12): ask for "digital signature"`,
			algorithm, quoteAll(asked))
	}
	return granted, nil
}

// splitUsages returns usages as they stand in a certificate.
func splitUsages(usages []certificatesv1.KeyUsage) (bits x509.KeyUsage, extended []x509.ExtKeyUsage) {
	for _, usage := range usages {
		bits |= keyUsages[usage]
		if id, ok := extKeyUsages[usage]; ok {
			extended = append(extended, id)
		}
	}
	return bits, extended
}
