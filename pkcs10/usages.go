// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import (
	"bytes"
	encodingasn1 "encoding/asn1"
	"encoding/hex"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	certificatesv1 "k8s.io/api/certificates/v1"
)

// Bits of a key usage that only CAs have (RFC 5280, section 4.2.1.3).
const (
	bitKeyCertSign = 5
	bitCRLSign     = 6
)

// keyUsages are the Kubernetes names of the bits of a key usage.
var keyUsages = []certificatesv1.KeyUsage{
	0:              certificatesv1.UsageDigitalSignature,
	1:              certificatesv1.UsageContentCommitment,
	2:              certificatesv1.UsageKeyEncipherment,
	3:              certificatesv1.UsageDataEncipherment,
	4:              certificatesv1.UsageKeyAgreement,
	bitKeyCertSign: certificatesv1.UsageCertSign,
	bitCRLSign:     certificatesv1.UsageCRLSign,
	7:              certificatesv1.UsageEncipherOnly,
	8:              certificatesv1.UsageDecipherOnly,
}

// extendedKeyUsages are the Kubernetes names of extended key usages (RFC 5280, section 4.2.1.12).
// If Kubernetes has two names for a usage, it is the older one: "email protection", not "s/mime".
var extendedKeyUsages = map[string]certificatesv1.KeyUsage{
	"2.5.29.37.0":            certificatesv1.UsageAny,
	"1.3.6.1.5.5.7.3.1":      certificatesv1.UsageServerAuth,
	"1.3.6.1.5.5.7.3.2":      certificatesv1.UsageClientAuth,
	"1.3.6.1.5.5.7.3.3":      certificatesv1.UsageCodeSigning,
	"1.3.6.1.5.5.7.3.4":      certificatesv1.UsageEmailProtection,
	"1.3.6.1.5.5.7.3.5":      certificatesv1.UsageIPsecEndSystem,
	"1.3.6.1.5.5.7.3.6":      certificatesv1.UsageIPsecTunnel,
	"1.3.6.1.5.5.7.3.7":      certificatesv1.UsageIPsecUser,
	"1.3.6.1.5.5.7.3.8":      certificatesv1.UsageTimestamping,
	"1.3.6.1.5.5.7.3.9":      certificatesv1.UsageOCSPSigning,
	"1.3.6.1.4.1.311.10.3.3": certificatesv1.UsageMicrosoftSGC,
	"2.16.840.1.113730.4.1":  certificatesv1.UsageNetscapeSGC,
}

// keyUsage reads a BIT STRING with at least one bit set. DER forbids trailing zero bits in a named
// bit list (X.690, section 11.2.2).
func (p *parser) keyUsage(value cryptobyte.String) error {
	encoded := value
	var bits encodingasn1.BitString
	if !value.ReadASN1BitString(&bits) || !value.Empty() {
		return malformedDER(describe(oidKeyUsage))
	}
	if bytes.Count(bits.Bytes, []byte{0}) == len(bits.Bytes) {
		return malformed("the key usage has no bit set: set a usage, or leave out the extension")
	}
	if bits.At(bits.BitLength-1) == 0 {
		return malformed("the key usage %s has zero bits at its end, which DER forbids: use a tool or a version that leaves them out", short(hex.EncodeToString(encoded)))
	}
	for bit := range bits.BitLength {
		switch {
		case bits.At(bit) == 0:
		case bit >= len(keyUsages):
			p.refusals.add(ReasonUnsupportedUsage, "key usage bit %d has no Kubernetes name: leave it out", bit)
		case bit == bitKeyCertSign || bit == bitCRLSign:
			p.refusals.add(ReasonCertificateAuthority, "key usage %q is for CA certificates: leave it out", keyUsages[bit])
		default:
			p.request.Usages = append(p.request.Usages, keyUsages[bit])
		}
	}
	return nil
}

// extendedKeyUsage reads a SEQUENCE of at least one OBJECT IDENTIFIER.
func (p *parser) extendedKeyUsage(value cryptobyte.String) error {
	var sequence cryptobyte.String
	if !value.ReadASN1(&sequence, asn1.SEQUENCE) || !value.Empty() || sequence.Empty() {
		return malformedDER(describe(oidExtendedKeyUsage))
	}
	for !sequence.Empty() {
		var oid encodingasn1.ObjectIdentifier
		if !sequence.ReadASN1ObjectIdentifier(&oid) {
			return malformedDER(describe(oidExtendedKeyUsage))
		}
		usage, ok := extendedKeyUsages[oid.String()]
		if !ok {
			p.refusals.add(ReasonUnsupportedUsage, "extended key usage %s has no Kubernetes name: leave it out", describe(oid.String()))
			continue
		}
		p.request.Usages = append(p.request.Usages, usage)
	}
	return nil
}
