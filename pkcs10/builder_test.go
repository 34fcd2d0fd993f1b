// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	encodingasn1 "encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// template is a request with some parts replaced. Each field is DER, except attributes, which is the
// content of the [0]. The method der fills in nil fields with those of an honest request.
type template struct {
	version    []byte
	subject    []byte
	publicKey  []byte
	attributes []byte
	algorithm  []byte
	signature  []byte // content of the BIT STRING
	trailing   []byte // after the signature, in the outer SEQUENCE
}

// der encodes the request and, unless it has a signature, signs it with testKey.
func (t template) der() []byte {
	info := sequence(
		cmpOr(t.version, integer(0)),
		cmpOr(t.subject, sequence(rdn(oidCommonName, utf8String("web.example")))),
		cmpOr(t.publicKey, publicKey(testKey)),
		element(0xa0, t.attributes),
	)
	signature := t.signature
	if signature == nil {
		digest := sha256.Sum256(info)
		var err error
		if signature, err = testKey.Sign(nil, digest[:], crypto.SHA256); err != nil { // deterministic: RFC 6979
			panic(err)
		}
	}
	algorithm := cmpOr(t.algorithm, sequence(oid("1.2.840.10045.4.3.2")))
	return sequence(info, algorithm, bitString(signature), t.trailing)
}

func (t template) pem() []byte { return encodePEM(t.der()) }

func encodePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// withExtensions returns an honest request with other extensions.
func withExtensions(extensions ...[]byte) template {
	return template{attributes: extensionRequest(extensions...)}
}

func withNames(names ...[]byte) template { return withExtensions(subjectAltName(names...)) }

func withSubject(rdns ...[]byte) template { return template{subject: sequence(rdns...)} }

// testKey is the same in each run, so that requests and the seeds of the fuzz tests are the same too.
var testKey = func() *ecdsa.PrivateKey {
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{7}, 32))
	if err != nil {
		panic(err)
	}
	return key
}()

func publicKey(key crypto.Signer) []byte {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		panic(err)
	}
	return der
}

// hash and mgf1 encode the AlgorithmIdentifiers of a hash function, and of the mask function with it.
func hash(id string) []byte { return sequence(oid(id), null) }
func mgf1(id string) []byte { return sequence(oid(oidMGF1), hash(id)) }

func rsaPublicKey(n *big.Int, e int64) []byte {
	return subjectPublicKey(sequence(oid(oidRSA), null), sequence(integerOf(n), integer(e)))
}

// odd returns an odd number with this number of bits.
func odd(bits int) *big.Int {
	n := new(big.Int).SetBit(new(big.Int), bits-1, 1)
	return n.SetBit(n, 0, 1)
}

func ecPublicKey(curve string, point []byte) []byte {
	return subjectPublicKey(sequence(oid(oidECDSA), oid(curve)), point)
}

func ed25519PublicKey(point []byte) []byte { return subjectPublicKey(sequence(oid(oidEd25519)), point) }

func subjectPublicKey(algorithm, key []byte) []byte { return sequence(algorithm, bitString(key)) }

func rdn(attributeType string, values ...[]byte) []byte {
	var attributes []byte
	for _, value := range values {
		attributes = append(attributes, sequence(oid(attributeType), value)...)
	}
	return element(asn1.SET, attributes)
}

func attribute(attributeType string, values ...[]byte) []byte {
	return sequence(oid(attributeType), element(asn1.SET, values...))
}

func extensionRequest(extensions ...[]byte) []byte {
	return attribute(oidExtensionRequest, sequence(extensions...))
}

func extension(id string, value ...[]byte) []byte {
	return sequence(oid(id), element(asn1.OCTET_STRING, value...))
}

func subjectAltName(names ...[]byte) []byte { return extension(oidSubjectAltName, sequence(names...)) }

func dnsName(name string) []byte { return element(tagDNS, []byte(name)) }
func uri(name string) []byte     { return element(tagURI, []byte(name)) }
func email(name string) []byte   { return element(tagEmail, []byte(name)) }
func ip(octets ...byte) []byte   { return element(tagIP, octets) }

// element encodes one element with the parts, concatenated, as its content.
func element(tag asn1.Tag, parts ...[]byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(bytes.Join(parts, nil)) })
	return b.BytesOrPanic()
}

func sequence(parts ...[]byte) []byte   { return element(asn1.SEQUENCE, parts...) }
func utf8String(s string) []byte        { return element(asn1.UTF8String, []byte(s)) }
func bitString(content []byte) []byte   { return element(asn1.BIT_STRING, []byte{0}, content) }
func octetString(content []byte) []byte { return element(asn1.OCTET_STRING, content) }
func integer(n int64) []byte            { return integerOf(big.NewInt(n)) }

var (
	null      = element(asn1.NULL)
	boolTrue  = element(asn1.BOOLEAN, []byte{0xff})
	boolFalse = element(asn1.BOOLEAN, []byte{0})
)

func integerOf(n *big.Int) []byte {
	var b cryptobyte.Builder
	b.AddASN1BigInt(n)
	return b.BytesOrPanic()
}

func oid(dotted string) []byte {
	var id encodingasn1.ObjectIdentifier
	for arc := range strings.SplitSeq(dotted, ".") {
		n, err := strconv.Atoi(arc)
		if err != nil {
			panic(err)
		}
		id = append(id, n)
	}
	var b cryptobyte.Builder
	b.AddASN1ObjectIdentifier(id)
	return b.BytesOrPanic()
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// mustRead reads a file in testdata.
func mustRead(name string) []byte {
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		panic(err)
	}
	return data
}

// cmpOr is cmp.Or for slices: the first that is not nil.
func cmpOr(a, b []byte) []byte {
	if a != nil {
		return a
	}
	return b
}
