// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// MaxSize is the limit for spec.request: 16 KiB. The API server has no limit below 3 MiB. A request with an RSA key of 8192 bits and 100 DNS names of 80
// characters fits.
const MaxSize = 16 << 10

// Parse reads spec.request of a CertificateSigningRequest. It returns either a request with
// every guarantee of the package, or a nil request and an [*Error].
//
// A request that cannot be read is refused for that reason alone. For any other request all
// problems are reported, so that the requester can fix them at once.
func Parse(data []byte) (*Request, error) {
	der, err := decodePEM(data)
	if err != nil {
		return nil, err
	}
	var p parser
	if err := p.certificationRequest(der); err != nil {
		return nil, err
	}
	if err := p.refusals.err(); err != nil {
		return nil, err
	}
	// Last, because crypto/x509 fails on many requests that are refused above, with a less helpful error.
	if err := crossCheck(&p.request, p.subject, der); err != nil {
		return nil, err
	}
	return &p.request, nil
}

const (
	pemBegin  = "-----BEGIN CERTIFICATE REQUEST-----"
	pemEnd    = "-----END CERTIFICATE REQUEST-----"
	pemDashes = "-----"
	pemSpace  = " \t\r\n" // allowed around the block
)

// decodePEM returns the DER in data, which must be one PEM block.
//
// encoding/pem, which the API server uses, searches for a block: it skips text before and after
// it, a BEGIN line without its END, and headers. All of these are refused here, since readers of
// PEM differ in them. Blank lines in the body are accepted, although not every reader of PEM
// accepts them: a reader that does gets the same request.
func decodePEM(data []byte) ([]byte, error) {
	if len(data) > MaxSize {
		return nil, malformed("the request has %d bytes: the limit is %d; ask for fewer names", len(data), MaxSize)
	}
	text := bytes.Trim(data, pemSpace)
	if len(text) == 0 {
		return nil, malformed("the request is empty: put one PEM block of type CERTIFICATE REQUEST in spec.request")
	}
	body, found := bytes.CutPrefix(text, []byte(pemBegin))
	if !found {
		if label, ok := pemLabel(text); ok {
			return nil, malformed("the PEM block is of type %s: make it CERTIFICATE REQUEST", quote(label))
		}
		return nil, malformed("the request does not begin with %s: put nothing before the PEM block", pemBegin)
	}
	if n := bytes.Count(text, []byte("-----BEGIN ")); n > 1 {
		return nil, malformed("the request has %d PEM blocks: keep one", n)
	}
	body, found = bytes.CutSuffix(body, []byte(pemEnd))
	if !found {
		return nil, malformed("the request does not end with %s: put nothing after the PEM block", pemEnd)
	}
	if bytes.IndexByte(body, ':') >= 0 {
		return nil, malformed("the PEM block has headers: leave them out")
	}
	// The decoder skips line ends, and no other character.
	decoding := base64.StdEncoding.Strict()
	der := make([]byte, decoding.DecodedLen(len(body)))
	n, err := decoding.Decode(der, body)
	if err != nil {
		return nil, malformed("the PEM block does not hold base64 text: %v", err)
	}
	der = der[:n]
	// It does not check where lines end: encoding/pem does.
	if block, _ := pem.Decode(data); block == nil || !bytes.Equal(block.Bytes, der) {
		return nil, malformed("the PEM block is not well formed: put the BEGIN line and the END line on separate lines")
	}
	return der, nil
}

// pemLabel returns the type of the PEM block that text begins with.
func pemLabel(text []byte) ([]byte, bool) {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	line, begins := bytes.CutPrefix(bytes.TrimRight(line, pemSpace), []byte("-----BEGIN "))
	label, ends := bytes.CutSuffix(line, []byte(pemDashes))
	return label, begins && ends
}

// parser fills request, and collects refusals. Its methods return an error only for a
// malformed structure. Methods are named after the ASN.1 types they read.
type parser struct {
	request  Request
	subject  []Attribute          // every attribute of the subject, in order
	names    map[generalName]bool // the subject alternative names so far
	refusals refusals
}

// certificationRequest reads a CertificationRequest (RFC 2986, section 4.2):
//
//	SEQUENCE { certificationRequestInfo, signatureAlgorithm, signature BIT STRING }
func (p *parser) certificationRequest(der cryptobyte.String) error {
	var outer, info, algorithm cryptobyte.String
	var signature []byte
	if !der.ReadASN1(&outer, asn1.SEQUENCE) {
		return malformed("the PEM block does not hold a DER SEQUENCE: create a new request")
	}
	if !der.Empty() {
		return malformed("%d bytes follow the request in the PEM block: leave them out", len(der))
	}
	if !outer.ReadASN1Element(&info, asn1.SEQUENCE) ||
		!outer.ReadASN1Element(&algorithm, asn1.SEQUENCE) ||
		!outer.ReadASN1BitStringAsBytes(&signature) ||
		!outer.Empty() {
		return malformedDER("request")
	}
	if err := p.certificationRequestInfo(info); err != nil {
		return err
	}
	return p.signature(info, algorithm, signature)
}

// certificationRequestInfo reads a CertificationRequestInfo (RFC 2986, section 4.1):
//
//	SEQUENCE { version INTEGER, subject Name, subjectPKInfo, attributes [0] IMPLICIT SET OF }
func (p *parser) certificationRequestInfo(info cryptobyte.String) error {
	var body, subject, publicKey, attributes cryptobyte.String
	var version int64
	if !info.ReadASN1(&body, asn1.SEQUENCE) || !body.ReadASN1Integer(&version) {
		return malformedDER("request")
	}
	if version != 0 {
		return malformed("the request is of version %d: only version 0 (PKCS#10 v1) is supported", version)
	}
	if !body.ReadASN1(&subject, asn1.SEQUENCE) ||
		!body.ReadASN1Element(&publicKey, asn1.SEQUENCE) ||
		!body.ReadASN1(&attributes, asn1.Tag(0).ContextSpecific().Constructed()) ||
		!body.Empty() {
		return malformedDER("request")
	}
	if err := p.name(subject); err != nil {
		return err
	}
	if err := p.subjectPublicKeyInfo(publicKey); err != nil {
		return err
	}
	return p.attributes(attributes)
}

// malformedDER returns the error for a part that is not DER, or not of the structure in its standard.
func malformedDER(part string) error {
	return malformed("the %s is not well-formed DER: create a new request", part)
}
