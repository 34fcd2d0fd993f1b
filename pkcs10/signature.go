// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import (
	"crypto/x509"
	encodingasn1 "encoding/asn1"
	"encoding/hex"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// signatureAlgorithms are the allowed algorithms by the DER of the whole AlgorithmIdentifier, in
// hex, so that the parameters must be those of the standard: NULL for RSA with PKCS#1 v1.5
// (RFC 4055, section 5), none for ECDSA (RFC 5758, section 3.2) and Ed25519 (RFC 8410, section 3).
// For RSASSA-PSS, hash, mask and salt must use one hash function, and the identifiers of hash
// functions must have NULL parameters, as openssl and crypto/x509 write them.
var signatureAlgorithms = map[string]x509.SignatureAlgorithm{
	"300d06092a864886f70d01010b0500": x509.SHA256WithRSA,
	"300d06092a864886f70d01010c0500": x509.SHA384WithRSA,
	"300d06092a864886f70d01010d0500": x509.SHA512WithRSA,
	"300a06082a8648ce3d040302":       x509.ECDSAWithSHA256,
	"300a06082a8648ce3d040303":       x509.ECDSAWithSHA384,
	"300a06082a8648ce3d040304":       x509.ECDSAWithSHA512,
	"300506032b6570":                 x509.PureEd25519,

	pssWith("01", "20"): x509.SHA256WithRSAPSS,
	pssWith("02", "30"): x509.SHA384WithRSAPSS,
	pssWith("03", "40"): x509.SHA512WithRSAPSS,
}

// pssWith returns the AlgorithmIdentifier of RSASSA-PSS (RFC 4055, section 3.1) in hex. The
// hash function is the last arc of an OID below 2.16.840.1.101.3.4.2, the salt's length is in bytes.
func pssWith(hashArc, saltLength string) string {
	const oidPSS, oidMGF1, oidHashes = "06092a864886f70d01010a", "06092a864886f70d010108", "06096086480165030402"
	hash := "300d" + oidHashes + hashArc + "0500"
	mgf1 := "301a" + oidMGF1 + hash
	return "3041" + oidPSS + "3034" + "a00f" + hash + "a11c" + mgf1 + "a203" + "0201" + saltLength
}

// weakHashes names the hash function of signature algorithms whose collisions are, or soon will be,
// cheap to compute.
var weakHashes = map[string]string{
	"1.2.840.113549.1.1.2": "MD2",
	"1.2.840.113549.1.1.4": "MD5",
	"1.2.840.113549.1.1.5": "SHA-1",
	"1.3.14.3.2.29":        "SHA-1",
	"1.2.840.10045.4.1":    "SHA-1",
	"1.2.840.10040.4.3":    "SHA-1",
}

// signature verifies the proof of possession (RFC 2986, section 4.2): that info, the DER of the
// CertificationRequestInfo, is signed with the private key of the public key in it. If the key was
// refused, the signature is not verified, and an unknown algorithm is not refused, since it can be
// the right one for that key. A weak hash is still refused.
func (p *parser) signature(info, algorithm cryptobyte.String, signature []byte) error {
	known, ok := signatureAlgorithms[hex.EncodeToString(algorithm)]
	if !ok {
		var sequence cryptobyte.String
		var oid encodingasn1.ObjectIdentifier
		if !algorithm.ReadASN1(&sequence, asn1.SEQUENCE) || !sequence.ReadASN1ObjectIdentifier(&oid) {
			return malformedDER("signature algorithm")
		}
		if hash, ok := weakHashes[oid.String()]; ok {
			p.refusals.add(ReasonWeakSignature, "the request is signed with %s (%s): sign it with SHA-256 or better", hash, oid)
			return nil
		}
		if p.request.PublicKey == nil {
			return nil
		}
		p.refusals.add(ReasonBadSignature, "the signature algorithm %s or its parameters are not supported: "+
			"sign with RSA, RSASSA-PSS or ECDSA and SHA-256, SHA-384 or SHA-512, or with Ed25519", short(oid.String()))
		return nil
	}
	if p.request.PublicKey == nil {
		return nil
	}
	// CheckSignature uses only the public key of the certificate.
	verifier := x509.Certificate{PublicKey: p.request.PublicKey}
	if err := verifier.CheckSignature(known, info, signature); err != nil {
		p.refusals.add(ReasonBadSignature, "the signature does not verify under the public key of the request: "+
			"sign the request with the private key that belongs to it")
	}
	return nil
}
