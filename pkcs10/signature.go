// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import (
	"crypto/x509"
	encodingasn1 "encoding/asn1"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// signatureAlgorithms are the allowed algorithms, but for RSASSA-PSS. The parameters must be absent for
// ECDSA (RFC 5758, section 3.2) and Ed25519 (RFC 8410, section 3). For RSA with PKCS#1 v1.5 they are
// NULL, and a reader must accept them if they are absent (RFC 4055, section 5).
var signatureAlgorithms = map[string]x509.SignatureAlgorithm{
	oidRSAPrefix + "11":   x509.SHA256WithRSA,
	oidRSAPrefix + "12":   x509.SHA384WithRSA,
	oidRSAPrefix + "13":   x509.SHA512WithRSA,
	"1.2.840.10045.4.3.2": x509.ECDSAWithSHA256,
	"1.2.840.10045.4.3.3": x509.ECDSAWithSHA384,
	"1.2.840.10045.4.3.4": x509.ECDSAWithSHA512,
	oidEd25519:            x509.PureEd25519,
}

const (
	oidRSAPrefix = "1.2.840.113549.1.1."
	oidPSS       = oidRSAPrefix + "10"
	oidMGF1      = oidRSAPrefix + "8"

	oidSHA1   = "1.3.14.3.2.26"
	oidSHA256 = "2.16.840.1.101.3.4.2.1"
	oidSHA384 = "2.16.840.1.101.3.4.2.2"
	oidSHA512 = "2.16.840.1.101.3.4.2.3"
)

// pssParameters are the parameters of RSASSA-PSS: the hash functions of the message and of the mask, and
// the length of the salt in bytes.
type pssParameters struct {
	hash, maskHash string
	saltLength     int64
}

// pssAlgorithms are the allowed parameters of RSASSA-PSS. crypto/x509 verifies no others.
var pssAlgorithms = map[pssParameters]x509.SignatureAlgorithm{
	{oidSHA256, oidSHA256, 32}: x509.SHA256WithRSAPSS,
	{oidSHA384, oidSHA384, 48}: x509.SHA384WithRSAPSS,
	{oidSHA512, oidSHA512, 64}: x509.SHA512WithRSAPSS,
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
	var parameters cryptobyte.String
	var id encodingasn1.ObjectIdentifier
	if !algorithm.ReadASN1(&parameters, asn1.SEQUENCE) || !parameters.ReadASN1ObjectIdentifier(&id) {
		return malformedDER("signature algorithm")
	}
	oid := id.String()
	known, weakHash := signatureAlgorithm(oid, parameters)
	if weakHash != "" {
		p.refusals.add(ReasonWeakSignature, "the request is signed with %s (%s): sign it with SHA-256 or better", weakHash, oid)
		return nil
	}
	if p.request.PublicKey == nil {
		return nil
	}
	if known == x509.UnknownSignatureAlgorithm {
		p.refusals.add(ReasonBadSignature, "the signature algorithm %s or its parameters are not supported: "+
			"sign with RSA, RSASSA-PSS or ECDSA and SHA-256, SHA-384 or SHA-512, or with Ed25519", describe(oid))
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

// signatureAlgorithm returns the algorithm of an AlgorithmIdentifier, x509.UnknownSignatureAlgorithm if it
// is not allowed, and the name of its hash function if that is weak.
func signatureAlgorithm(oid string, parameters cryptobyte.String) (known x509.SignatureAlgorithm, weakHash string) {
	if oid == oidPSS {
		pss, ok := readPSSParameters(parameters)
		switch {
		case !ok:
			return x509.UnknownSignatureAlgorithm, ""
		case pss.hash == oidSHA1 || pss.maskHash == oidSHA1:
			return x509.UnknownSignatureAlgorithm, "SHA-1"
		default:
			return pssAlgorithms[pss], ""
		}
	}
	if strings.HasPrefix(oid, oidRSAPrefix) {
		readNull(&parameters)
	}
	if !parameters.Empty() {
		return x509.UnknownSignatureAlgorithm, weakHashes[oid]
	}
	return signatureAlgorithms[oid], weakHashes[oid]
}

// readPSSParameters reads the parameters of RSASSA-PSS (RFC 4055, section 3.1). Each has a default:
//
//	SEQUENCE { hashAlgorithm [0] DEFAULT sha1, maskGenAlgorithm [1] DEFAULT mgf1SHA1,
//		saltLength [2] INTEGER DEFAULT 20, trailerField [3] INTEGER DEFAULT 1 }
//
// A reader must accept the only allowed trailerField, 1, if it is absent and if it is present.
func readPSSParameters(parameters cryptobyte.String) (pss pssParameters, ok bool) {
	var sequence, hash, mask cryptobyte.String
	var hasHash, hasMask bool
	var trailer int64
	tag := func(n asn1.Tag) asn1.Tag { return n.ContextSpecific().Constructed() }
	ok = parameters.ReadASN1(&sequence, asn1.SEQUENCE) && parameters.Empty() &&
		sequence.ReadOptionalASN1(&hash, &hasHash, tag(0)) &&
		sequence.ReadOptionalASN1(&mask, &hasMask, tag(1)) &&
		sequence.ReadOptionalASN1Integer(&pss.saltLength, tag(2), int64(20)) &&
		sequence.ReadOptionalASN1Integer(&trailer, tag(3), int64(1)) &&
		sequence.Empty() && trailer == 1
	pss.hash, pss.maskHash = oidSHA1, oidSHA1
	if ok && hasHash {
		ok = readHash(&hash, &pss.hash) && hash.Empty()
	}
	if ok && hasMask {
		ok = readMGF1(&mask, &pss.maskHash) && mask.Empty()
	}
	return pss, ok
}

// readMGF1 reads the AlgorithmIdentifier of MGF1, whose parameters are that of a hash function.
func readMGF1(s *cryptobyte.String, hash *string) bool {
	var sequence cryptobyte.String
	var id encodingasn1.ObjectIdentifier
	return s.ReadASN1(&sequence, asn1.SEQUENCE) && sequence.ReadASN1ObjectIdentifier(&id) && id.String() == oidMGF1 &&
		readHash(&sequence, hash) && sequence.Empty()
}

// readHash reads the AlgorithmIdentifier of a hash function. Its parameters are NULL or absent, which mean
// the same (RFC 4055, section 2.1).
func readHash(s *cryptobyte.String, hash *string) bool {
	var sequence cryptobyte.String
	var id encodingasn1.ObjectIdentifier
	if !s.ReadASN1(&sequence, asn1.SEQUENCE) || !sequence.ReadASN1ObjectIdentifier(&id) {
		return false
	}
	*hash = id.String()
	readNull(&sequence)
	return sequence.Empty()
}

// readNull reads NULL, if it is next.
func readNull(s *cryptobyte.String) {
	rest := *s
	var null cryptobyte.String
	if rest.ReadASN1(&null, asn1.NULL) && null.Empty() {
		*s = rest
	}
}
