// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// MaxSize is the limit for spec.request: 16 KiB. The API server has no limit below 3 MiB. A request with an RSA key of 8192 bits and 100 DNS names of 80
// characters fits.
const MaxSize = 16 << 10

// Parse reads spec.request of a CertificateSigningRequest. It returns either a request with
// every guarantee of the package, or a nil request and an [*Error].
//
// All problems of the PEM block are reported together, and so are all problems of what a request with
// a valid PEM block asks for. DER that is malformed ends the parse: it is the only problem reported.
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
	pemType   = "CERTIFICATE REQUEST"
	pemBegin  = "-----BEGIN "
	pemEnd    = "-----END "
	pemDashes = "-----"
	pemSpace  = " \t\r\n" // allowed around the block
)

// decodePEM returns the DER in data, which must be one PEM block.
//
// encoding/pem, which the API server uses, searches for a block: it skips text before and after
// it, a BEGIN line without its END, and headers. All of these are refused here, since readers of
// PEM differ in them. Line ends can be anywhere in the body. Not every reader of PEM accepts blank
// lines there, but one that does gets the same request.
func decodePEM(data []byte) ([]byte, error) {
	if len(data) > MaxSize {
		return nil, malformed("the request has %d bytes: the limit is %d; ask for fewer names", len(data), MaxSize)
	}
	text := bytes.Trim(data, pemSpace)
	if len(text) == 0 {
		return nil, malformed("the request is empty: put one PEM block of type CERTIFICATE REQUEST in spec.request")
	}
	begin := bytes.Index(text, []byte(pemBegin))
	if begin < 0 {
		return nil, malformed("the request has no line %s%s%s: put PEM text in spec.request, encoded in base64 once", pemBegin, pemType, pemDashes)
	}
	if n := bytes.Count(text, []byte(pemBegin)); n > 1 {
		return nil, malformed("the request has %d PEM blocks: keep one", n)
	}
	var found refusals
	if begin > 0 {
		found.add(ReasonMalformedRequest, "the request has text before the PEM block: leave it out")
	}
	der := decodeBlock(text[begin:], &found)
	if err := found.err(); err != nil {
		return nil, err
	}
	// The code above does not check where lines begin: encoding/pem does.
	if block, _ := pem.Decode(data); block == nil || !bytes.Equal(block.Bytes, der) {
		return nil, malformed("the PEM block is not well formed: put the BEGIN line and the END line on separate lines")
	}
	return der, nil
}

// decodeBlock returns the DER in text, which begins with a BEGIN line. It adds every problem to found.
func decodeBlock(text []byte, found *refusals) []byte {
	label, body, ok := bytes.Cut(text[len(pemBegin):], []byte(pemDashes))
	switch label := string(label); {
	case !ok || strings.Contains(label, "\n"):
		found.add(ReasonMalformedRequest, "the BEGIN line of the PEM block is cut off: write %s%s%s", pemBegin, pemType, pemDashes)
		return nil
	case label == "NEW "+pemType:
		found.add(ReasonMalformedRequest, "the PEM block is of type %s: make it %s", quote(label), pemType)
	case label != pemType:
		found.add(ReasonMalformedRequest, "the PEM block is of type %s: put a %s in its place", quote(label), pemType)
	}
	body, ok = bytes.CutSuffix(body, slices.Concat([]byte(pemEnd), label, []byte(pemDashes)))
	if !ok {
		found.add(ReasonMalformedRequest, "the request does not end with %s%s%s: put nothing after the PEM block", pemEnd, pemType, pemDashes)
		body, _, _ = bytes.Cut(body, []byte(pemEnd))
	}
	if bytes.IndexByte(body, ':') >= 0 {
		found.add(ReasonMalformedRequest, "the PEM block has headers: leave them out")
		return nil
	}
	return decodeBody(body, found)
}

// decodeBody returns the bytes that the body of a PEM block holds in base64.
func decodeBody(body []byte, found *refusals) []byte {
	// The decoder skips line ends, and no other character.
	decoding := base64.StdEncoding.Strict()
	der := make([]byte, decoding.DecodedLen(len(body)))
	n, err := decoding.Decode(der, body)
	if err == nil {
		return der[:n]
	}
	i := bytes.IndexFunc(body, notBase64)
	if i < 0 {
		found.add(ReasonMalformedRequest, "the PEM block does not hold base64 text: %v", err)
		return nil
	}
	line := bytes.Count(body[:i], []byte("\n")) + 1 // 1 is the BEGIN line
	character, size := utf8.DecodeRune(body[i:])
	if character == ' ' || character == '\t' {
		found.add(ReasonMalformedRequest, "line %d of the PEM block has a blank: leave out all spaces and tabs inside the block", line)
		return nil
	}
	found.add(ReasonMalformedRequest, "line %d of the PEM block has the character %s, which is not base64: leave it out", line, quote(body[i:i+size]))
	return nil
}

// notBase64 reports whether a character is neither of base64 nor a line end.
func notBase64(r rune) bool {
	switch {
	case 'A' <= r && r <= 'Z', 'a' <= r && r <= 'z', '0' <= r && r <= '9':
		return false
	default:
		return !strings.ContainsRune("+/=\r\n", r)
	}
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
	return malformed("the %s is not well-formed DER: create a new request, with another tool if this one always writes it so", part)
}
