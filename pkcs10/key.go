// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	encodingasn1 "encoding/asn1"
	"encoding/hex"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

const (
	minRSABits = 2048
	maxRSABits = 8192

	// rsaExponent is the only exponent that is allowed. All common key generators use it. FIPS 186-5
	// (section 5.4) forbids smaller exponents, which make errors in padding exploitable. Larger
	// exponents make every verification of the certificate slower.
	rsaExponent = 65537
)

// Algorithms of a public key: RFC 3279 section 2.3.1, RFC 5480 section 2.1.1, RFC 8410 section 3.
const (
	oidRSA     = "1.2.840.113549.1.1.1"
	oidECDSA   = "1.2.840.10045.2.1"
	oidEd25519 = "1.3.101.112"
)

// curves are the allowed curves by OID: RFC 5480, section 2.1.1.1.
var curves = map[string]elliptic.Curve{
	"1.2.840.10045.3.1.7": elliptic.P256(),
	"1.3.132.0.34":        elliptic.P384(),
	"1.3.132.0.35":        elliptic.P521(),
}

// subjectPublicKeyInfo reads SEQUENCE { algorithm AlgorithmIdentifier, subjectPublicKey BIT STRING }.
// It leaves request.PublicKey nil if it refuses the key.
func (p *parser) subjectPublicKeyInfo(element cryptobyte.String) error {
	digest := sha256.Sum256(element)
	p.request.Key.SHA256 = hex.EncodeToString(digest[:])
	p.request.RawSubjectPublicKeyInfo = bytes.Clone(element)

	var sequence, parameters cryptobyte.String
	var key []byte
	var oid encodingasn1.ObjectIdentifier
	if !element.ReadASN1(&sequence, asn1.SEQUENCE) ||
		!sequence.ReadASN1(&parameters, asn1.SEQUENCE) ||
		!parameters.ReadASN1ObjectIdentifier(&oid) ||
		!sequence.ReadASN1BitStringAsBytes(&key) ||
		!sequence.Empty() {
		return malformedDER("public key")
	}
	switch algorithm := oid.String(); algorithm {
	case oidRSA:
		return p.rsaPublicKey(parameters, key)
	case oidECDSA:
		return p.ecPublicKey(parameters, key)
	case oidEd25519:
		return p.ed25519PublicKey(parameters, key)
	default:
		p.refusals.add(ReasonWeakKey, "the public key is of algorithm %s: use an RSA, ECDSA or Ed25519 key", describe(algorithm))
		return nil
	}
}

// rsaPublicKey reads SEQUENCE { modulus INTEGER, publicExponent INTEGER } (RFC 8017, appendix A.1.1).
func (p *parser) rsaPublicKey(parameters, key cryptobyte.String) error {
	var null, sequence cryptobyte.String
	var modulus, exponent []byte // unsigned, without leading zeros
	if !parameters.ReadASN1(&null, asn1.NULL) || !null.Empty() || !parameters.Empty() ||
		!key.ReadASN1(&sequence, asn1.SEQUENCE) || !key.Empty() ||
		!sequence.ReadASN1Integer(&modulus) ||
		!sequence.ReadASN1Integer(&exponent) ||
		!sequence.Empty() {
		return malformedDER("RSA public key")
	}
	n, e := new(big.Int).SetBytes(modulus), new(big.Int).SetBytes(exponent)
	bits := n.BitLen()
	weak := true
	switch {
	case bits < minRSABits || bits > maxRSABits:
		p.refusals.add(ReasonWeakKey, "the RSA key has %d bits: use %d to %d", bits, minRSABits, maxRSABits)
	case bits%8 != 0:
		p.refusals.add(ReasonWeakKey, "the RSA key has %d bits, which is not a multiple of 8: use 2048, 3072 or 4096", bits)
	case n.Bit(0) == 0:
		p.refusals.add(ReasonWeakKey, "the RSA modulus is even: generate a new key")
	default:
		weak = false
	}
	if !e.IsInt64() {
		p.refusals.add(ReasonWeakKey, "the RSA exponent has %d bits: use %d", e.BitLen(), rsaExponent)
		weak = true
	} else if e.Int64() != rsaExponent {
		p.refusals.add(ReasonWeakKey, "the RSA exponent is %d: use %d", e, rsaExponent)
		weak = true
	}
	if weak {
		return nil
	}
	p.request.PublicKey = &rsa.PublicKey{N: n, E: rsaExponent}
	p.request.Key.Algorithm, p.request.Key.Bits = "RSA", bits
	return nil
}

// ecPublicKey reads a point on a named curve (RFC 5480, section 2.2).
func (p *parser) ecPublicKey(parameters, key cryptobyte.String) error {
	var oid encodingasn1.ObjectIdentifier
	if parameters.PeekASN1Tag(asn1.SEQUENCE) {
		p.refusals.add(ReasonWeakKey, "the ECDSA key has explicit curve parameters: use the named curve P-256, P-384 or P-521")
		return nil
	}
	if !parameters.ReadASN1ObjectIdentifier(&oid) || !parameters.Empty() {
		return malformedDER("ECDSA public key")
	}
	curve, ok := curves[oid.String()]
	if !ok {
		p.refusals.add(ReasonWeakKey, "the ECDSA key is on curve %s: use P-256, P-384 or P-521", describe(oid.String()))
		return nil
	}
	public, err := ecdsa.ParseUncompressedPublicKey(curve, key)
	if err != nil {
		p.refusals.add(ReasonWeakKey, "the ECDSA key is not an uncompressed point on %s: generate a new key", curve.Params().Name)
		return nil //nolint:nilerr // it is added as a refusal
	}
	p.request.PublicKey = public
	p.request.Key.Algorithm, p.request.Key.Bits = "ECDSA", curve.Params().BitSize
	return nil
}

// ed25519PublicKey reads the 32 bytes of a point (RFC 8410, section 4).
func (p *parser) ed25519PublicKey(parameters, key cryptobyte.String) error {
	if !parameters.Empty() {
		return malformedDER("Ed25519 public key")
	}
	if len(key) != ed25519.PublicKeySize {
		p.refusals.add(ReasonWeakKey, "the Ed25519 key has %d bytes: it must have %d", len(key), ed25519.PublicKeySize)
		return nil
	}
	if smallOrder([ed25519.PublicKeySize]byte(key)) {
		p.refusals.add(ReasonWeakKey, "the Ed25519 key is a point of small order, for which anyone can sign: generate a new key")
		return nil
	}
	p.request.PublicKey = ed25519.PublicKey(bytes.Clone(key))
	p.request.Key.Algorithm, p.request.Key.Bits = "Ed25519", 256
	return nil
}

// smallOrder reports whether an Ed25519 public key is one of the points whose order divides 8.
// crypto/ed25519 verifies signatures under them that anyone can create without a private key. The
// list has every y that encodes such a point without the bit for the sign of x. It includes p and
// p+1, which are 0 and 1 not reduced.
func smallOrder(key [ed25519.PublicKeySize]byte) bool {
	key[len(key)-1] &= 0x7f
	return smallOrderPoints[hex.EncodeToString(key[:])]
}

var smallOrderPoints = map[string]bool{
	"0000000000000000000000000000000000000000000000000000000000000000": true, // order 4
	"0100000000000000000000000000000000000000000000000000000000000000": true, // order 1
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05": true, // order 8
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a": true, // order 8
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f": true, // order 2
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f": true, // order 4
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f": true, // order 1
}
