// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// hostile is a request that must be refused for exactly these reasons. It is a template, or bytes
// that no template can produce.
type hostile struct {
	name     string
	template template
	raw      []byte
	want     []Refusal
}

func (h hostile) bytes() []byte {
	if h.raw != nil {
		return h.raw
	}
	return h.template.pem()
}

func refusal(reason Reason, message string) Refusal { return Refusal{Reason: reason, Message: message} }

func malformedAs(message string) []Refusal {
	return []Refusal{refusal(ReasonMalformedRequest, message)}
}

func notDER(part string) []Refusal {
	return malformedAs("the " + part + " is not well-formed DER: create a new request, with another tool if this one always writes it so")
}

// hostileRequests returns at least one request for each reason, which TestParseRefuses checks.
func hostileRequests() []hostile {
	return slices.Concat(
		hostilePEM(), hostileStructure(), hostileSignatures(), hostileKeys(),
		hostileSubjects(), hostileExtensions(), hostileNames(), hostileBulk(),
	)
}

func hostileRequest(name string) hostile {
	all := hostileRequests()
	return all[slices.IndexFunc(all, func(h hostile) bool { return h.name == name })]
}

const (
	pemBeginLine = pemBegin + pemType + pemDashes
	pemEndLine   = pemEnd + pemType + pemDashes
)

func hostilePEM() []hostile {
	block := template{}.pem()
	text := string(block)
	lines := strings.SplitAfter(text, "\n")
	relabel := func(label string) []byte { return []byte(strings.ReplaceAll(text, "CERTIFICATE REQUEST", label)) }
	const noBegin = "the request has no line -----BEGIN CERTIFICATE REQUEST-----: put PEM text in spec.request, encoded in base64 once"
	const textBefore = "the request has text before the PEM block: leave it out"
	const noEnd = "the request does not end with -----END CERTIFICATE REQUEST-----: put nothing after the PEM block"
	const noLine = "the PEM block is not well formed: put the BEGIN line and the END line on separate lines"
	return []hostile{
		{name: "empty", raw: []byte{}, want: malformedAs("the request is empty: put one PEM block of type CERTIFICATE REQUEST in spec.request")},
		{name: "white space", raw: []byte(" \r\n\t"), want: malformedAs("the request is empty: put one PEM block of type CERTIFICATE REQUEST in spec.request")},
		{
			name: "one byte over MaxSize",
			raw:  append(bytes.Clone(block), bytes.Repeat([]byte("\n"), MaxSize+1-len(block))...),
			want: malformedAs("the request has 16385 bytes: the limit is 16384; ask for fewer names"),
		},
		{name: "DER", raw: template{}.der(), want: malformedAs(noBegin)},
		{name: "base64 of PEM", raw: []byte(base64.StdEncoding.EncodeToString(block)), want: malformedAs(noBegin)},
		{name: "text before", raw: append([]byte("Certificate Request:\n"), block...), want: malformedAs(textBefore)},
		{name: "byte order mark", raw: append([]byte("\ufeff"), block...), want: malformedAs(textBefore)},
		{name: "no-break space after", raw: append(bytes.Clone(block), "\u00a0"...), want: malformedAs(noEnd)},
		{name: "text after", raw: append(bytes.Clone(block), "x"...), want: malformedAs(noEnd)},
		{name: "NUL after", raw: append(bytes.Clone(block), 0), want: malformedAs(noEnd)},
		{name: "no END line", raw: []byte(strings.Join(lines[:len(lines)-2], "")), want: malformedAs(noEnd)},
		{name: "two blocks", raw: slices.Concat(block, block), want: malformedAs("the request has 2 PEM blocks: keep one")},
		{name: "a certificate after it", raw: slices.Concat(block, relabel("CERTIFICATE")), want: malformedAs("the request has 2 PEM blocks: keep one")},
		{name: "a block that never ends", raw: slices.Concat([]byte(lines[0]+lines[1]), block), want: malformedAs("the request has 2 PEM blocks: keep one")},
		{name: "of the older type", raw: relabel("NEW CERTIFICATE REQUEST"), want: malformedAs(`the PEM block is of type "NEW CERTIFICATE REQUEST": make it CERTIFICATE REQUEST`)},
		{name: "a certificate", raw: relabel("CERTIFICATE"), want: malformedAs(`the PEM block is of type "CERTIFICATE": put a CERTIFICATE REQUEST in its place`)},
		{name: "a private key", raw: relabel("PRIVATE KEY"), want: malformedAs(`the PEM block is of type "PRIVATE KEY": put a CERTIFICATE REQUEST in its place`)},
		{name: "ends as another type", raw: []byte(strings.Replace(text, "END CERTIFICATE REQUEST", "END CERTIFICATE", 1)), want: malformedAs(noEnd)},
		{name: "headers", raw: []byte(lines[0] + "Proc-Type: 4,ENCRYPTED\n\n" + strings.Join(lines[1:], "")), want: malformedAs("the PEM block has headers: leave them out")},
		{name: "an empty block", raw: []byte(pemBeginLine + "\n" + pemEndLine + "\n"), want: malformedAs("the PEM block does not hold a DER SEQUENCE: create a new request")},
		{name: "BEGIN and END on a line", raw: []byte(pemBeginLine + pemEndLine), want: malformedAs(noLine)},
		{name: "text on the BEGIN line", raw: []byte(strings.Replace(text, "-----\n", "-----", 1)), want: malformedAs(noLine)},
		{name: "text on the END line", raw: []byte(strings.Replace(text, "\n-----END", "-----END", 1)), want: malformedAs(noLine)},
		{name: "a space on the END line", raw: []byte(strings.Replace(text, "\n-----END", "\n -----END", 1)), want: malformedAs(fmt.Sprintf("line %d of the PEM block has a blank: leave out all spaces and tabs inside the block", len(lines)-1))},
		{name: "a comment inside", raw: []byte(lines[0] + "# mine\n" + strings.Join(lines[1:], "")), want: malformedAs(`line 2 of the PEM block has the character "#", which is not base64: leave it out`)},
		{name: "a blank at the end of a line", raw: []byte(lines[0] + strings.Replace(strings.Join(lines[1:], ""), "\n", " \n", 3)), want: malformedAs("line 2 of the PEM block has a blank: leave out all spaces and tabs inside the block")},
		{name: "an indented block", raw: []byte(strings.ReplaceAll(text, "\n", "\n\t")), want: malformedAs("line 2 of the PEM block has a blank: leave out all spaces and tabs inside the block")},
		{name: "a no-break space", raw: []byte(lines[0] + "\u00a0" + strings.Join(lines[1:], "")), want: malformedAs(`line 2 of the PEM block has the character "\u00a0", which is not base64: leave it out`)},
		{name: "base64url", raw: []byte(lines[0] + "_" + strings.Join(lines[1:], "")), want: malformedAs(`line 2 of the PEM block has the character "_", which is not base64: leave it out`)},
		{name: "a character that is not UTF-8", raw: []byte(lines[0] + "\xff" + strings.Join(lines[1:], "")), want: malformedAs(`line 2 of the PEM block has the character "\xff", which is not base64: leave it out`)},
		{name: "a BEGIN line that is cut off", raw: []byte(strings.Replace(text, "-----\n", "----\n", 1)), want: malformedAs("the BEGIN line of the PEM block is cut off: write -----BEGIN CERTIFICATE REQUEST-----")},
		{name: "only a BEGIN", raw: []byte("-----BEGIN "), want: malformedAs(noBegin)},
		{
			name: "text before and after an older type, as certtool and keytool write it",
			raw:  slices.Concat([]byte("PKCS #10 Certificate Request Information:\n\n"), relabel("NEW CERTIFICATE REQUEST"), []byte("\nend\n")),
			want: slices.Concat(malformedAs(textBefore), malformedAs(`the PEM block is of type "NEW CERTIFICATE REQUEST": make it CERTIFICATE REQUEST`), malformedAs(noEnd)),
		},
		{
			name: "every problem of a block at once",
			raw:  []byte("x" + strings.Replace(string(relabel("NEW CERTIFICATE REQUEST")), "-----\n", "-----\n ", 1) + "x"),
			want: slices.Concat(
				malformedAs(textBefore), malformedAs(`the PEM block is of type "NEW CERTIFICATE REQUEST": make it CERTIFICATE REQUEST`), malformedAs(noEnd),
				malformedAs("line 2 of the PEM block has a blank: leave out all spaces and tabs inside the block"),
			),
		},
		{name: "two paddings", raw: []byte(pemBeginLine + "\nMA==\nAA==\n" + pemEndLine), want: malformedAs("the PEM block does not hold base64 text: illegal base64 data at input byte 6")},
		{name: "stray bits in the base64", raw: []byte(pemBeginLine + "\nMAF=\n" + pemEndLine), want: malformedAs("the PEM block does not hold base64 text: illegal base64 data at input byte 5")},
	}
}

func hostileStructure() []hostile {
	der := template{}.der()
	indefinite := slices.Concat([]byte{0x30, 0x80}, der[4:], []byte{0, 0})
	padded := slices.Concat([]byte{0x30, 0x83, 0}, der[2:])
	if der[1] != 0x81 && der[1] != 0x82 {
		panic("the honest request is too short")
	}
	longForm := func(element []byte) []byte { // a length below 128 in two bytes
		return slices.Concat([]byte{element[0], 0x81}, element[1:])
	}
	const noBits = "the key usage has no bit set: set a usage, or leave out the extension"
	extensionOf := func(parts ...[]byte) template { return withExtensions(sequence(parts...)) }
	value := element(asn1.OCTET_STRING, octetString([]byte("id")))
	return []hostile{
		{name: "trailing byte after the DER", raw: encodePEM(append(bytes.Clone(der), 0)), want: malformedAs("1 bytes follow the request in the PEM block: leave them out")},
		{name: "two requests in one block", raw: encodePEM(slices.Concat(der, der)), want: malformedAs(fmt.Sprintf("%d bytes follow the request in the PEM block: leave them out", len(der)))},
		{name: "truncated", raw: encodePEM(der[:len(der)-1]), want: malformedAs("the PEM block does not hold a DER SEQUENCE: create a new request")},
		{name: "indefinite length", raw: encodePEM(indefinite), want: malformedAs("the PEM block does not hold a DER SEQUENCE: create a new request")},
		{name: "length with a leading zero", raw: encodePEM(padded), want: malformedAs("the PEM block does not hold a DER SEQUENCE: create a new request")},
		{name: "element after the signature", template: template{trailing: null}, want: notDER("request")},
		{name: "version 1", template: template{version: integer(1)}, want: malformedAs("the request is of version 1: only version 0 (PKCS#10 v1) is supported")},
		{name: "version -1", template: template{version: integer(-1)}, want: malformedAs("the request is of version -1: only version 0 (PKCS#10 v1) is supported")},
		{name: "version of two bytes", template: template{version: unhex("02 02 00 00")}, want: notDER("request")},
		{name: "version as a long length", template: template{version: longForm(integer(0))}, want: notDER("request")},
		{name: "subject is a SET", template: template{subject: element(asn1.SET)}, want: notDER("request")},
		{name: "no attributes field", raw: encodePEM(sequence(sequence(integer(0), sequence(), publicKey(testKey)), sequence(oid("1.2.840.10045.4.3.2")), bitString([]byte{1}))), want: notDER("request")},
		{name: "a subject with an empty RDN", template: withSubject(element(asn1.SET)), want: notDER("subject")},
		{name: "a subject value with more to it", template: withSubject(element(asn1.SET, sequence(oid(oidCommonName), utf8String("a"), null))), want: notDER("subject")},
		{name: "an RDN that is not sorted", template: withSubject(rdn(oidOrganization, utf8String("b"), utf8String("a"))), want: notDER("subject")},
		{name: "an OID with a padded arc", template: withSubject(element(asn1.SET, sequence(unhex("06 04 55 04 80 03"), utf8String("a")))), want: notDER("subject")},
		{name: "an attribute that is a SET", template: template{attributes: element(asn1.SET)}, want: notDER("list of attributes")},
		{name: "an attribute with more to it", template: template{attributes: sequence(oid(oidExtensionRequest), element(asn1.SET), null)}, want: notDER("list of attributes")},
		{name: "extensions are a SET", template: template{attributes: attribute(oidExtensionRequest, element(asn1.SET))}, want: notDER("extension request")},
		{name: "no extension in the request", template: withExtensions(), want: malformedAs("the extension request is empty: leave it out")},
		{name: "critical is given as FALSE", template: extensionOf(oid(oidSubjectKeyIdentifier), boolFalse, value), want: malformedAs("extension 2.5.29.14 (subject key identifier) has critical FALSE written out, which DER forbids: use a tool or a version that leaves it out")},
		{name: "critical is TRUE in BER", template: extensionOf(oid(oidSubjectKeyIdentifier), element(asn1.BOOLEAN, []byte{1}), value), want: notDER("list of extensions")},
		{name: "an extension with more to it", template: extensionOf(oid(oidSubjectKeyIdentifier), boolTrue, value, null), want: notDER("list of extensions")},
		{name: "names with trailing data", template: withExtensions(extension(oidSubjectAltName, sequence(dnsName("web.example")), null)), want: notDER("2.5.29.17 (subject alternative name)")},
		{name: "names with a long length", template: withNames(longForm(dnsName("web.example"))), want: notDER("2.5.29.17 (subject alternative name)")},
		{name: "names with a long tag", template: withNames(unhex("9f 02 01 61")), want: notDER("2.5.29.17 (subject alternative name)")},
		{name: "key usage with trailing data", template: withExtensions(extension(oidKeyUsage, unhex("03 02 07 80"), null)), want: notDER("2.5.29.15 (key usage)")},
		{name: "key usage of no bits", template: withExtensions(extension(oidKeyUsage, unhex("03 01 00"))), want: malformedAs(noBits)},
		{name: "key usage with all bits false", template: withExtensions(extension(oidKeyUsage, unhex("03 02 07 00"))), want: malformedAs(noBits)},
		{name: "key usage of trailing zero bits", template: withExtensions(extension(oidKeyUsage, unhex("03 02 05 80"))), want: malformedAs("the key usage 03020580 has zero bits at its end, which DER forbids: use a tool or a version that leaves them out")},
		{name: "key usage with a zero byte", template: withExtensions(extension(oidKeyUsage, unhex("03 03 07 80 00"))), want: malformedAs("the key usage 0303078000 has zero bits at its end, which DER forbids: use a tool or a version that leaves them out")},
		{name: "key usage of a kilobyte", template: withExtensions(extension(oidKeyUsage, element(asn1.BIT_STRING, []byte{0, 0x80}, make([]byte, 1000)))), want: malformedAs("the key usage 038203ea00800000000000000000000000000000000000000000000000000... has zero bits at its end, which DER forbids: use a tool or a version that leaves them out")},
		{name: "key usage of dirty padding", template: withExtensions(extension(oidKeyUsage, unhex("03 02 07 81"))), want: notDER("2.5.29.15 (key usage)")},
		{name: "extended key usage, empty", template: withExtensions(extension(oidExtendedKeyUsage, sequence())), want: notDER("2.5.29.37 (extended key usage)")},
		{name: "extended key usage, not an OID", template: withExtensions(extension(oidExtendedKeyUsage, sequence(null))), want: notDER("2.5.29.37 (extended key usage)")},
		{name: "extended key usage, more to it", template: withExtensions(extension(oidExtendedKeyUsage, sequence(oid("1.3.6.1.5.5.7.3.1")), null)), want: notDER("2.5.29.37 (extended key usage)")},
		{name: "basic constraints, more to it", template: withExtensions(extension(oidBasicConstraints, sequence(), null)), want: notDER("2.5.29.19 (basic constraints)")},
		{name: "basic constraints, more in it", template: withExtensions(extension(oidBasicConstraints, sequence(integer(0), null))), want: notDER("2.5.29.19 (basic constraints)")},
		{name: "basic constraints, CA:FALSE", template: withExtensions(extension(oidBasicConstraints, sequence(boolFalse))), want: malformedAs("basic constraints have CA:FALSE written out, which DER forbids: leave them out, or use a tool that writes an empty SEQUENCE")},
		{name: "key identifier, more to it", template: withExtensions(extension(oidSubjectKeyIdentifier, octetString([]byte("id")), null)), want: notDER("2.5.29.14 (subject key identifier)")},
		{name: "key identifier, empty", template: withExtensions(extension(oidSubjectKeyIdentifier, octetString(nil))), want: notDER("2.5.29.14 (subject key identifier)")},
		{name: "an OID too large for Go", template: withExtensions(sequence(unhex("06 07 55 1d 90 80 80 80 00"), value)), want: notDER("list of extensions")},
	}
}

func hostileSignatures() []hostile {
	wrong := []Refusal{refusal(ReasonBadSignature, "the signature does not verify under the public key of the request: sign the request with the private key that belongs to it")}
	unknown := func(oid string) []Refusal {
		return []Refusal{refusal(ReasonBadSignature, "the signature algorithm "+oid+" or its parameters are not supported: "+
			"sign with RSA, RSASSA-PSS or ECDSA and SHA-256, SHA-384 or SHA-512, or with Ed25519")}
	}
	weak := func(hash, oid string) []Refusal {
		return []Refusal{refusal(ReasonWeakSignature, "the request is signed with "+hash+" ("+oid+"): sign it with SHA-256 or better")}
	}
	pss := func(parameters ...[]byte) template {
		return template{algorithm: sequence(oid(oidPSS), sequence(parameters...))}
	}
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize))
	signature := func() []byte { // of the honest request
		csr, err := x509.ParseCertificateRequest(template{}.der())
		if err != nil {
			panic(err)
		}
		return csr.Signature
	}()
	return []hostile{
		{name: "signed for another subject", template: template{subject: sequence(), signature: signature}, want: wrong},
		{name: "signed with another key", template: template{publicKey: publicKey(other)}, want: wrong},
		{name: "no signature", template: template{signature: []byte{}}, want: wrong},
		{name: "a signature with a byte after it", template: template{signature: append(bytes.Clone(signature), 0)}, want: wrong},
		{name: "signed by an algorithm of other keys", template: template{algorithm: sequence(oid("1.2.840.113549.1.1.11"), null)}, want: wrong},
		{name: "SHA-512 is said, SHA-256 was used", template: template{algorithm: sequence(oid("1.2.840.10045.4.3.4"))}, want: wrong},
		{name: "ECDSA with NULL parameters", template: template{algorithm: sequence(oid("1.2.840.10045.4.3.2"), null)}, want: unknown("1.2.840.10045.4.3.2 (ECDSA with SHA-256)")},
		{name: "Ed25519 with NULL parameters", template: template{algorithm: sequence(oid(oidEd25519), null)}, want: unknown("1.3.101.112 (Ed25519)")},
		{name: "RSA with two NULL parameters", template: template{algorithm: sequence(oid("1.2.840.113549.1.1.11"), null, null)}, want: unknown("1.2.840.113549.1.1.11 (RSA with SHA-256)")},
		{name: "RSA with other parameters", template: template{algorithm: sequence(oid("1.2.840.113549.1.1.11"), sequence())}, want: unknown("1.2.840.113549.1.1.11 (RSA with SHA-256)")},
		{name: "RSA with a NULL of one byte", template: template{algorithm: sequence(oid("1.2.840.113549.1.1.11"), unhex("05 01 00"))}, want: unknown("1.2.840.113549.1.1.11 (RSA with SHA-256)")},
		{name: "RSA with no parameters, by an ECDSA key", template: template{algorithm: sequence(oid("1.2.840.113549.1.1.11"))}, want: wrong},
		{name: "RSASSA-PSS with default parameters", template: pss(), want: weak("SHA-1", "1.2.840.113549.1.1.10")},
		{name: "RSASSA-PSS with the default mask", template: pss(element(0xa0, hash(oidSHA256)), element(0xa2, integer(32))), want: weak("SHA-1", "1.2.840.113549.1.1.10")},
		{name: "RSASSA-PSS with SHA-1 written out", template: pss(element(0xa0, hash(oidSHA1)), element(0xa1, mgf1(oidSHA1)), element(0xa2, integer(20))), want: weak("SHA-1", "1.2.840.113549.1.1.10")},
		{name: "RSASSA-PSS with the default salt", template: pss(element(0xa0, hash(oidSHA256)), element(0xa1, mgf1(oidSHA256))), want: unknown("1.2.840.113549.1.1.10 (RSASSA-PSS)")},
		{name: "RSASSA-PSS with another mask", template: pss(element(0xa0, hash(oidSHA256)), element(0xa1, mgf1(oidSHA384)), element(0xa2, integer(32))), want: unknown("1.2.840.113549.1.1.10 (RSASSA-PSS)")},
		{name: "RSASSA-PSS with another salt", template: pss(element(0xa0, hash(oidSHA256)), element(0xa1, mgf1(oidSHA256)), element(0xa2, integer(20))), want: unknown("1.2.840.113549.1.1.10 (RSASSA-PSS)")},
		{name: "RSASSA-PSS with another trailer", template: pss(element(0xa0, hash(oidSHA256)), element(0xa1, mgf1(oidSHA256)), element(0xa2, integer(32)), element(0xa3, integer(2))), want: unknown("1.2.840.113549.1.1.10 (RSASSA-PSS)")},
		{name: "RSASSA-PSS with more to it", template: pss(element(0xa0, hash(oidSHA256)), element(0xa1, mgf1(oidSHA256)), element(0xa2, integer(32)), null), want: unknown("1.2.840.113549.1.1.10 (RSASSA-PSS)")},
		{name: "RSASSA-PSS with a hash of other parameters", template: pss(element(0xa0, sequence(oid(oidSHA256), sequence())), element(0xa1, mgf1(oidSHA256)), element(0xa2, integer(32))), want: unknown("1.2.840.113549.1.1.10 (RSASSA-PSS)")},
		{name: "RSASSA-PSS with another mask function", template: pss(element(0xa0, hash(oidSHA256)), element(0xa1, sequence(oid(oidPSS), hash(oidSHA256))), element(0xa2, integer(32))), want: unknown("1.2.840.113549.1.1.10 (RSASSA-PSS)")},
		{name: "RSASSA-PSS with no parameters", template: template{algorithm: sequence(oid(oidPSS))}, want: unknown("1.2.840.113549.1.1.10 (RSASSA-PSS)")},
		{name: "ECDSA with SHA-224", template: template{algorithm: sequence(oid("1.2.840.10045.4.3.1"))}, want: unknown("1.2.840.10045.4.3.1 (ECDSA with SHA-224)")},
		{name: "a signature algorithm of no OID", template: template{algorithm: sequence(null)}, want: notDER("signature algorithm")},
		{name: "RSA with MD2", template: template{algorithm: sequence(oid("1.2.840.113549.1.1.2"), null)}, want: weak("MD2", "1.2.840.113549.1.1.2")},
		{name: "RSA with MD5", template: template{algorithm: sequence(oid("1.2.840.113549.1.1.4"), null)}, want: weak("MD5", "1.2.840.113549.1.1.4")},
		{name: "RSA with SHA-1, by ISO's OID", template: template{algorithm: sequence(oid("1.3.14.3.2.29"), null)}, want: weak("SHA-1", "1.3.14.3.2.29")},
		{name: "ECDSA with SHA-1", template: template{algorithm: sequence(oid("1.2.840.10045.4.1"))}, want: weak("SHA-1", "1.2.840.10045.4.1")},
		{name: "RSA with SHA-1, made by openssl", raw: mustRead("openssl-sha1.pem"), want: weak("SHA-1", "1.2.840.113549.1.1.5")},
	}
}

func hostileKeys() []hostile {
	weak := func(messages ...string) []Refusal {
		var all []Refusal
		for _, message := range messages {
			all = append(all, refusal(ReasonWeakKey, message))
		}
		return all
	}
	key := func(spki []byte) template { return template{publicKey: spki} }
	const p256 = "1.2.840.10045.3.1.7"
	offCurve := append([]byte{4}, bytes.Repeat([]byte{1}, 64)...)
	// The neutral element of the group, and a signature under it that anyone can create for any request.
	neutral := append([]byte{1}, make([]byte, 31)...)
	forged := append(bytes.Clone(neutral), make([]byte, 32)...)
	return []hostile{
		{name: "RSA 1024, made by openssl", raw: mustRead("openssl-rsa1024.pem"), want: weak("the RSA key has 1024 bits: use 2048 to 8192")},
		{name: "RSA 512", template: key(rsaPublicKey(odd(512), 65537)), want: weak("the RSA key has 512 bits: use 2048 to 8192")},
		{name: "RSA 2047", template: key(rsaPublicKey(odd(2047), 65537)), want: weak("the RSA key has 2047 bits: use 2048 to 8192")},
		{name: "RSA 2050", template: key(rsaPublicKey(odd(2050), 65537)), want: weak("the RSA key has 2050 bits, which is not a multiple of 8: use 2048, 3072 or 4096")},
		{name: "RSA 8200", template: key(rsaPublicKey(odd(8200), 65537)), want: weak("the RSA key has 8200 bits: use 2048 to 8192")},
		{name: "RSA 65536", template: key(rsaPublicKey(odd(65536), 65537)), want: weak("the RSA key has 65536 bits: use 2048 to 8192")},
		{name: "RSA modulus zero", template: key(rsaPublicKey(new(big.Int), 65537)), want: weak("the RSA key has 0 bits: use 2048 to 8192")},
		{name: "RSA modulus even", template: key(rsaPublicKey(new(big.Int).Add(odd(2048), big.NewInt(1)), 65537)), want: weak("the RSA modulus is even: generate a new key")},
		{name: "RSA exponent 1", template: key(rsaPublicKey(odd(2048), 1)), want: weak("the RSA exponent is 1: use 65537")},
		{name: "RSA exponent 3", template: key(rsaPublicKey(odd(2048), 3)), want: weak("the RSA exponent is 3: use 65537")},
		{name: "RSA exponent 65539", template: key(rsaPublicKey(odd(2048), 65539)), want: weak("the RSA exponent is 65539: use 65537")},
		{
			name:     "RSA exponent of 2048 bits",
			template: key(subjectPublicKey(sequence(oid(oidRSA), null), sequence(integerOf(odd(2048)), integerOf(odd(2048))))),
			want:     weak("the RSA exponent has 2048 bits: use 65537"),
		},
		{
			name:     "RSA short and with exponent 3",
			template: key(rsaPublicKey(odd(1024), 3)),
			want:     weak("the RSA key has 1024 bits: use 2048 to 8192", "the RSA exponent is 3: use 65537"),
		},
		{
			name:     "RSA modulus negative",
			template: key(subjectPublicKey(sequence(oid(oidRSA), null), sequence(integer(-5), integer(65537)))),
			want:     notDER("RSA public key"),
		},
		{
			name:     "RSA with trailing data in the key",
			template: key(subjectPublicKey(sequence(oid(oidRSA), null), sequence(integerOf(odd(2048)), integer(65537), null))),
			want:     notDER("RSA public key"),
		},
		{
			name:     "RSA with trailing data after the key",
			template: key(subjectPublicKey(sequence(oid(oidRSA), null), append(sequence(integerOf(odd(2048)), integer(65537)), 0))),
			want:     notDER("RSA public key"),
		},
		{
			name:     "RSA key with no parameters",
			template: key(subjectPublicKey(sequence(oid(oidRSA)), sequence(integerOf(odd(2048)), integer(65537)))),
			want:     notDER("RSA public key"),
		},
		{
			name:     "RSA key for RSASSA-PSS only",
			template: key(subjectPublicKey(sequence(oid("1.2.840.113549.1.1.10")), sequence(integerOf(odd(2048)), integer(65537)))),
			want:     weak("the public key is of algorithm 1.2.840.113549.1.1.10 (RSASSA-PSS): use an RSA, ECDSA or Ed25519 key"),
		},
		{
			name:     "Ed448 and its signature algorithm",
			template: template{publicKey: subjectPublicKey(sequence(oid("1.3.101.113")), make([]byte, 57)), algorithm: sequence(oid("1.3.101.113"))},
			want:     weak("the public key is of algorithm 1.3.101.113 (Ed448): use an RSA, ECDSA or Ed25519 key"),
		},
		{name: "DSA", template: key(subjectPublicKey(sequence(oid("1.2.840.10040.4.1")), integer(5))), want: weak("the public key is of algorithm 1.2.840.10040.4.1 (DSA): use an RSA, ECDSA or Ed25519 key")},
		{name: "X25519", template: key(subjectPublicKey(sequence(oid("1.3.101.110")), make([]byte, 32))), want: weak("the public key is of algorithm 1.3.101.110 (X25519): use an RSA, ECDSA or Ed25519 key")},
		{name: "Ed448", template: key(subjectPublicKey(sequence(oid("1.3.101.113")), make([]byte, 57))), want: weak("the public key is of algorithm 1.3.101.113 (Ed448): use an RSA, ECDSA or Ed25519 key")},

		{name: "ECDSA on P-224", template: key(ecPublicKey("1.3.132.0.33", make([]byte, 57))), want: weak("the ECDSA key is on curve 1.3.132.0.33 (P-224): use P-256, P-384 or P-521")},
		{name: "ECDSA on secp256k1", template: key(ecPublicKey("1.3.132.0.10", offCurve)), want: weak("the ECDSA key is on curve 1.3.132.0.10 (secp256k1): use P-256, P-384 or P-521")},
		{name: "ECDSA point not on the curve", template: key(ecPublicKey(p256, offCurve)), want: weak("the ECDSA key is not an uncompressed point on P-256: generate a new key")},
		{name: "ECDSA point at infinity", template: key(ecPublicKey(p256, []byte{0})), want: weak("the ECDSA key is not an uncompressed point on P-256: generate a new key")},
		{name: "ECDSA point compressed", template: key(ecPublicKey(p256, append([]byte{2}, bytes.Repeat([]byte{1}, 32)...))), want: weak("the ECDSA key is not an uncompressed point on P-256: generate a new key")},
		{name: "ECDSA point of another curve", template: key(ecPublicKey("1.3.132.0.34", offCurve)), want: weak("the ECDSA key is not an uncompressed point on P-384: generate a new key")},
		{name: "ECDSA with a curve of its own", template: key(subjectPublicKey(sequence(oid(oidECDSA), sequence(integer(1))), offCurve)), want: weak("the ECDSA key has explicit curve parameters: use the named curve P-256, P-384 or P-521")},
		{name: "ECDSA with no curve", template: key(subjectPublicKey(sequence(oid(oidECDSA)), offCurve)), want: notDER("ECDSA public key")},
		{name: "ECDSA with two curves", template: key(subjectPublicKey(sequence(oid(oidECDSA), oid(p256), oid(p256)), offCurve)), want: notDER("ECDSA public key")},
		{name: "Ed25519 with parameters", template: key(subjectPublicKey(sequence(oid(oidEd25519), null), make([]byte, 32))), want: notDER("Ed25519 public key")},
		{name: "Ed25519 of 31 bytes", template: key(ed25519PublicKey(make([]byte, 31))), want: weak("the Ed25519 key has 31 bytes: it must have 32")},
		{name: "Ed25519 of 33 bytes", template: key(ed25519PublicKey(make([]byte, 33))), want: weak("the Ed25519 key has 33 bytes: it must have 32")},
		{name: "public key with more to it", template: key(sequence(sequence(oid(oidEd25519)), bitString(make([]byte, 32)), null)), want: notDER("public key")},
		{name: "public key not in whole bytes", template: key(sequence(sequence(oid(oidEd25519)), element(asn1.BIT_STRING, []byte{1}, make([]byte, 32)))), want: notDER("public key")},
		{name: "Ed25519 with a forged signature", template: template{publicKey: ed25519PublicKey(neutral), algorithm: sequence(oid(oidEd25519)), signature: forged}, want: weak("the Ed25519 key is a point of small order, for which anyone can sign: generate a new key")},
	}
}

func hostileSubjects() []hostile {
	name := func(values ...string) []Refusal {
		var all []Refusal
		for _, value := range values {
			all = append(all, refusal(ReasonUnsupportedName, "subject attribute "+value))
		}
		return all
	}
	repeated := func(value string) Refusal {
		return refusal(ReasonRepeatedAttribute, "subject attribute "+value+" is repeated: keep one")
	}
	crowded := refusal(ReasonRepeatedAttribute, "the subject has an RDN of more than one attribute: give each attribute an RDN of its own")
	cn := func(tag asn1.Tag, value string) template {
		return withSubject(rdn(oidCommonName, element(tag, []byte(value))))
	}
	return []hostile{
		{name: "two common names", template: withSubject(rdn(oidCommonName, utf8String("a")), rdn(oidCommonName, utf8String("b"))), want: []Refusal{repeated("2.5.4.3 (common name)")}},
		{name: "the same common name twice", template: withSubject(rdn(oidCommonName, utf8String("a")), rdn(oidCommonName, utf8String("a"))), want: []Refusal{repeated("2.5.4.3 (common name)")}},
		{name: "two serial numbers", template: withSubject(rdn("2.5.4.5", utf8String("1")), rdn("2.5.4.5", utf8String("2"))), want: []Refusal{repeated("2.5.4.5 (serial number)")}},
		{name: "two countries", template: withSubject(rdn("2.5.4.6", utf8String("DE")), rdn("2.5.4.6", utf8String("FR"))), want: []Refusal{repeated("2.5.4.6 (country)")}},
		{name: "two of an attribute unknown", template: withSubject(rdn("2.5.4.98", utf8String("a")), rdn("2.5.4.98", utf8String("b"))), want: []Refusal{repeated("2.5.4.98")}},
		{
			name:     "domain components",
			template: withSubject(rdn(oidDomainComponent, element(asn1.IA5String, []byte("com"))), rdn(oidDomainComponent, element(asn1.IA5String, []byte("example"))), rdn(oidDomainComponent, element(asn1.IA5String, []byte("web")))),
			want:     []Refusal{refusal(ReasonRepeatedAttribute, "subject attribute 0.9.2342.19200300.100.1.25 (domain component) is repeated: leave out all of them, and request the domain as a DNS name")},
		},
		{name: "two common names in one RDN", template: withSubject(rdn(oidCommonName, utf8String("a"), utf8String("b"))), want: []Refusal{crowded, repeated("2.5.4.3 (common name)")}},
		{name: "CN and O in one RDN", template: withSubject(element(asn1.SET, sequence(oid(oidCommonName), utf8String("a")), sequence(oid(oidOrganization), utf8String("b")))), want: []Refusal{crowded}},
		{name: "O and OU in one RDN", template: withSubject(element(asn1.SET, sequence(oid(oidOrganization), utf8String("a")), sequence(oid(oidOrganizationalUnit), utf8String("b")))), want: []Refusal{crowded}},
		{name: "common name with NUL", template: cn(asn1.UTF8String, "web.example\x00.evil.example"), want: name(`2.5.4.3 (common name) has invisible characters: "web.example\x00.evil.example"; leave them out`)},
		{name: "common name with a line end", template: cn(asn1.UTF8String, "a\nb"), want: name(`2.5.4.3 (common name) has invisible characters: "a\nb"; leave them out`)},
		{name: "common name that turns round", template: cn(asn1.UTF8String, "a\u202eb"), want: name(`2.5.4.3 (common name) has invisible characters: "a\u202eb"; leave them out`)},
		{name: "common name not UTF-8", template: cn(asn1.UTF8String, "a\xff"), want: name(`2.5.4.3 (common name) has bytes that its ASN.1 type 0x0c does not allow: "a\xff"`)},
		{name: "common name not printable", template: cn(asn1.PrintableString, "*.web.example"), want: name(`2.5.4.3 (common name) has bytes that its ASN.1 type 0x13 does not allow: "*.web.example"`)},
		{name: "common name not IA5", template: cn(asn1.IA5String, "\xc3\xa9"), want: name(`2.5.4.3 (common name) has bytes that its ASN.1 type 0x16 does not allow: "\u00e9"`)},
		{name: "common name empty", template: cn(asn1.UTF8String, ""), want: name("2.5.4.3 (common name) is empty: give it a value or leave it out")},
		{name: "common name as T61String", template: cn(asn1.T61String, "a"), want: name("2.5.4.3 (common name) has a value of ASN.1 type 0x14: use a UTF8String, PrintableString or IA5String")},
		{name: "common name as BMPString", template: cn(30, "\x00a"), want: name("2.5.4.3 (common name) has a value of ASN.1 type 0x1e: use a UTF8String, PrintableString or IA5String")},
		{name: "common name as UniversalStr", template: cn(28, "\x00\x00\x00a"), want: name("2.5.4.3 (common name) has a value of ASN.1 type 0x1c: use a UTF8String, PrintableString or IA5String")},
		{name: "common name as INTEGER", template: cn(asn1.INTEGER, "\x05"), want: name("2.5.4.3 (common name) has a value of ASN.1 type 0x02: use a UTF8String, PrintableString or IA5String")},
		{name: "UTF8String in parts", template: cn(asn1.UTF8String.Constructed(), "\x0c\x01a"), want: name("2.5.4.3 (common name) has a value of ASN.1 type 0x2c: use a UTF8String, PrintableString or IA5String")},
		{name: "an organization with NUL", template: withSubject(rdn(oidOrganization, utf8String("system:masters\x00"))), want: name(`2.5.4.10 (organization) has invisible characters: "system:masters\x00"; leave them out`)},
		{
			name:     "a long value of escapes",
			template: cn(asn1.UTF8String, strings.Repeat("\xff", 200)),
			want:     name(`2.5.4.3 (common name) has bytes that its ASN.1 type 0x0c does not allow: "` + strings.Repeat(`\xff`, 16) + `"... (200 bytes)`),
		},
		{
			name:     "an escape is not cut through",
			template: cn(asn1.UTF8String, "a"+strings.Repeat("\xff", 200)),
			want:     name(`2.5.4.3 (common name) has bytes that its ASN.1 type 0x0c does not allow: "a` + strings.Repeat(`\xff`, 15) + `"... (201 bytes)`),
		},
	}
}

func hostileExtensions() []hostile {
	ca := "basic constraints ask for a CA certificate: leave CA:TRUE out"
	pathLen := "basic constraints have a path length, which only a CA certificate has: leave it out"
	unsupported := func(oid string) []Refusal {
		return []Refusal{refusal(ReasonUnsupportedExtension, "extension "+oid+": leave it out; allowed are subject alternative name, "+
			"key usage, extended key usage, basic constraints and subject key identifier")}
	}
	names := subjectAltName(dnsName("web.example"))
	request := extensionRequest(names)
	const fromWindows = ": leave it out; tools of Windows always write it, so create the request with another tool, such as openssl"
	password := attribute("1.2.840.113549.1.9.7", utf8String("secret"))
	return []hostile{
		{name: "CA:TRUE", template: withExtensions(extension(oidBasicConstraints, sequence(boolTrue))), want: []Refusal{refusal(ReasonCertificateAuthority, ca)}},
		{name: "CA:TRUE, critical", template: withExtensions(sequence(oid(oidBasicConstraints), boolTrue, octetString(sequence(boolTrue)))), want: []Refusal{refusal(ReasonCertificateAuthority, ca)}},
		{name: "CA:TRUE and path length", template: withExtensions(extension(oidBasicConstraints, sequence(boolTrue, integer(0)))), want: []Refusal{refusal(ReasonCertificateAuthority, ca), refusal(ReasonCertificateAuthority, pathLen)}},
		{name: "path length without CA", template: withExtensions(extension(oidBasicConstraints, sequence(integer(3)))), want: []Refusal{refusal(ReasonCertificateAuthority, pathLen)}},
		{name: "key usage for CAs", template: withExtensions(extension(oidKeyUsage, unhex("03 02 01 06"))), want: []Refusal{refusal(ReasonCertificateAuthority, `key usage "cert sign" is for CA certificates: leave it out`), refusal(ReasonCertificateAuthority, `key usage "crl sign" is for CA certificates: leave it out`)}},
		{name: "key usage of a tenth bit", template: withExtensions(extension(oidKeyUsage, unhex("03 03 06 80 40"))), want: []Refusal{refusal(ReasonUnsupportedUsage, "key usage bit 9 has no Kubernetes name: leave it out")}},
		{name: "extended usage unknown", template: withExtensions(extension(oidExtendedKeyUsage, sequence(oid("1.3.6.1.5.5.7.3.1"), oid("1.3.6.1.5.5.7.3.17")))), want: []Refusal{refusal(ReasonUnsupportedUsage, "extended key usage 1.3.6.1.5.5.7.3.17 (IPsec IKE) has no Kubernetes name: leave it out")}},
		{name: "name constraints", template: withExtensions(extension("2.5.29.30", sequence())), want: unsupported("2.5.29.30 (name constraints)")},
		{name: "authority key identifier", template: withExtensions(extension("2.5.29.35", sequence())), want: unsupported("2.5.29.35 (authority key identifier)")},
		{name: "must-staple", template: withExtensions(extension("1.3.6.1.5.5.7.1.24", unhex("30 03 02 01 05"))), want: unsupported("1.3.6.1.5.5.7.1.24 (TLS feature, such as must-staple)")},
		{name: "issuer alternative name", template: withExtensions(extension("2.5.29.18", sequence(dnsName("web.example")))), want: unsupported("2.5.29.18 (issuer alternative name)")},
		{name: "two sets of names", template: withExtensions(names, subjectAltName(dnsName("evil.example"))), want: []Refusal{refusal(ReasonRepeatedAttribute, "extension 2.5.29.17 (subject alternative name) is repeated: keep one")}},
		{name: "two extension requests", template: template{attributes: slices.Concat(request, extensionRequest(extension(oidBasicConstraints, sequence(boolTrue))))}, want: []Refusal{refusal(ReasonRepeatedAttribute, "attribute 1.2.840.113549.1.9.14 (extension request) is repeated: keep one")}},
		{name: "two values of extensions", template: template{attributes: attribute(oidExtensionRequest, sequence(names), sequence(names))}, want: []Refusal{refusal(ReasonRepeatedAttribute, "attribute 1.2.840.113549.1.9.14 (extension request) has 2 values: it must have one")}},
		{name: "no values of extensions", template: template{attributes: attribute(oidExtensionRequest)}, want: []Refusal{refusal(ReasonRepeatedAttribute, "attribute 1.2.840.113549.1.9.14 (extension request) has 0 values: it must have one")}},
		{name: "challenge password", template: template{attributes: slices.Concat(password, request)}, want: []Refusal{refusal(ReasonUnsupportedAttribute, "attribute 1.2.840.113549.1.9.7 (challenge password): leave it out")}},
		{name: "Windows version", template: template{attributes: attribute("1.3.6.1.4.1.311.13.2.3", element(asn1.IA5String, []byte("10.0")))}, want: []Refusal{refusal(ReasonUnsupportedAttribute, "attribute 1.3.6.1.4.1.311.13.2.3 (Windows version)"+fromWindows)}},
		{name: "Microsoft's own extension", template: template{attributes: attribute("1.3.6.1.4.1.311.2.1.14", sequence(extension(oidBasicConstraints, sequence(boolTrue))))}, want: []Refusal{refusal(ReasonUnsupportedAttribute, "attribute 1.3.6.1.4.1.311.2.1.14 (extension request of Microsoft)"+fromWindows)}},
		{name: "an attribute of Microsoft's unknown here", template: template{attributes: attribute("1.3.6.1.4.1.311.99", null)}, want: []Refusal{refusal(ReasonUnsupportedAttribute, "attribute 1.3.6.1.4.1.311.99 (of Microsoft)"+fromWindows)}},
		{name: "unstructured name", template: template{attributes: attribute("1.2.840.113549.1.9.2", utf8String("web"))}, want: []Refusal{refusal(ReasonUnsupportedAttribute, "attribute 1.2.840.113549.1.9.2 (unstructured name): leave it out")}},
		{
			name:     "two challenge passwords",
			template: template{attributes: slices.Concat(password, password)},
			want: []Refusal{
				refusal(ReasonUnsupportedAttribute, "attribute 1.2.840.113549.1.9.7 (challenge password): leave it out"),
				refusal(ReasonRepeatedAttribute, "attribute 1.2.840.113549.1.9.7 (challenge password) is repeated: keep one"),
			},
		},
	}
}

func hostileNames() []hostile {
	one := func(message string) []Refusal { return []Refusal{refusal(ReasonUnsupportedName, message)} }
	dropped := func(kind string) []Refusal {
		return one("subject alternative name of type " + kind + ": use only DNS, IP, URI and email names")
	}
	unknown := func(tag string) []Refusal {
		return one("subject alternative name with unknown tag " + tag + ": use only DNS, IP, URI and email names")
	}
	upn := sequence(oid("1.3.6.1.4.1.311.20.2.3"), element(0xa0, utf8String("admin@corp.example")))
	mapped := append(append(make([]byte, 10), 0xff, 0xff), 10, 0, 0, 7)
	return []hostile{
		{name: "otherName", template: withNames(dnsName("web.example"), element(0xa0, upn[2:])), want: dropped("otherName")},
		{name: "x400Address", template: withNames(element(0xa3)), want: dropped("x400Address")},
		{name: "directoryName", template: withNames(element(0xa4, sequence(rdn(oidCommonName, utf8String("admin"))))), want: dropped("directoryName")},
		{name: "ediPartyName", template: withNames(element(0xa5)), want: dropped("ediPartyName")},
		{name: "registeredID", template: withNames(element(0x88, unhex("2a 03"))), want: dropped("registeredID")},
		{name: "a DNS name in parts", template: withNames(element(0xa2, dnsName("web.example"))), want: unknown("0xa2")},
		{name: "an IA5String", template: withNames(element(asn1.IA5String, []byte("web.example"))), want: unknown("0x16")},
		{name: "a DNS name of another class", template: withNames(element(0xc2, []byte("web.example"))), want: unknown("0xc2")},
		{name: "a name of tag 9", template: withNames(element(0x89, []byte("a"))), want: unknown("0x89")},
		{name: "no names", template: withNames(), want: one("the subject alternative name extension is empty: add a name or leave it out")},
		{name: "an empty DNS name", template: withNames(dnsName("")), want: one("subject alternative name of type DNS is empty: leave it out")},
		{name: "an empty email", template: withNames(email("")), want: one("subject alternative name of type email is empty: leave it out")},
		{name: "an empty URI", template: withNames(uri("")), want: one("subject alternative name of type URI is empty: leave it out")},
		{name: "a DNS name with NUL", template: withNames(dnsName("web.example\x00.evil.example")), want: one(`subject alternative name of type DNS has bytes that are not visible ASCII: "web.example\x00.evil.example"`)},
		{name: "a DNS name with a space", template: withNames(dnsName("web.example ")), want: one(`subject alternative name of type DNS has bytes that are not visible ASCII: "web.example "`)},
		{name: "a DNS name with DEL", template: withNames(dnsName("web\x7f")), want: one(`subject alternative name of type DNS has bytes that are not visible ASCII: "web\x7f"`)},
		{name: "a DNS name that looks alike", template: withNames(dnsName("wеb.example")), want: one(`subject alternative name of type DNS has bytes that are not visible ASCII: "w\u0435b.example"`)},
		{name: "a DNS name of Latin 1", template: withNames(dnsName("w\xe9b")), want: one(`subject alternative name of type DNS has bytes that are not visible ASCII: "w\xe9b"`)},
		{name: "an email with a line end", template: withNames(email("a@b\r\nc")), want: one(`subject alternative name of type email has bytes that are not visible ASCII: "a@b\r\nc"`)},
		{name: "a URI with a tab", template: withNames(uri("spiffe://a/\tb")), want: one(`subject alternative name of type URI has bytes that are not visible ASCII: "spiffe://a/\tb"`)},
		{name: "a URI that cannot be parsed", template: withNames(uri("spiffe://[::1/")), want: one(`URI "spiffe://[::1/" cannot be parsed: correct it`)},
		{name: "a URI with a broken escape", template: withNames(uri("spiffe://a/%zz")), want: one(`URI "spiffe://a/%zz" has a percent sign without two hexadecimal digits: write %25`)},
		{name: "a URI without a scheme", template: withNames(uri("//cluster.local/ns/shop")), want: one(`URI "//cluster.local/ns/shop" is relative: begin with the scheme`)},
		{name: "a URI in capitals", template: withNames(uri("SPIFFE://cluster.local/a")), want: one(`URI "SPIFFE://cluster.local/a" is not in normal form: write "spiffe://cluster.local/a"`)},
		{name: "a DNS name that prints as two", template: withNames(dnsName("a,DNS:b")), want: one(`DNS name "a,DNS:b" has the character ",": host names have letters, digits, hyphens and dots`)},
		{name: "an email that prints as two names", template: withNames(email("a,DNS:b@c.example")), want: one(`email address "a,DNS:b@c.example" has the character "," before the @, which only a quoted string can have: quoted strings are not supported`)},
		{name: "a URI that prints as two names", template: withNames(uri("spiffe://a/b,DNS:c")), want: one(`URI "spiffe://a/b,DNS:c" has the character ",": write %2C`)},
		{name: "a URI that crypto/x509 refuses", template: withNames(uri("https://web.example./")), want: one(`URI "https://web.example./" has an empty label: leave out the extra dot`)},
		{name: "a URI with a user", template: withNames(uri("spiffe://a@b/c")), want: one(`URI "spiffe://a@b/c" has a user before the host: leave out the user`)},
		{name: "an address as a DNS name", template: withNames(dnsName("10.0.0.7")), want: one(`DNS name "10.0.0.7" ends in a number, as IP addresses do: request an address as type IP`)},
		{
			name:     "a long host of a URI",
			template: withNames(uri("https://" + strings.Repeat("a.", 1000) + "/")),
			want:     one(`URI "https://` + strings.Repeat("a.", 28) + `"... (2009 bytes) has a host of 2000 characters: the limit is 253`),
		},
		{name: "an IP of no bytes", template: withNames(ip()), want: one("subject alternative name of type IP has 0 bytes: it must have 4 or 16")},
		{name: "an IP of 5 bytes", template: withNames(ip(10, 0, 0, 7, 0)), want: one("subject alternative name of type IP has 5 bytes: it must have 4 or 16")},
		{name: "an IP with its mask", template: withNames(ip(10, 0, 0, 0, 255, 0, 0, 0)), want: one("subject alternative name of type IP has 8 bytes: it must have 4 or 16")},
		{name: "an IP in words", template: withNames(ip([]byte("10.0.0.7")...)), want: one("subject alternative name of type IP has 8 bytes: it must have 4 or 16")},
		{name: "an IPv4 mapped into an IPv6", template: withNames(ip(mapped...)), want: one("IP address ::ffff:10.0.0.7 is an IPv4 address in an IPv6 one: write 10.0.0.7")},
		{name: "a DNS name twice", template: withNames(dnsName("web.example"), dnsName("b.example"), dnsName("web.example")), want: one(`subject alternative name "web.example" of type DNS is repeated: keep one`)},
		{name: "an IP twice", template: withNames(ip(10, 0, 0, 7), ip(10, 0, 0, 7)), want: one(`subject alternative name "10.0.0.7" of type IP is repeated: keep one`)},
		{name: "a URI twice", template: withNames(uri("spiffe://a/b"), uri("spiffe://a/b")), want: one(`subject alternative name "spiffe://a/b" of type URI is repeated: keep one`)},
		{name: "an email thrice", template: withNames(email("a@b"), email("a@b"), email("a@b")), want: one(`subject alternative name "a@b" of type email is repeated: keep one`)},
		{
			name:     "a long URI not in normal form",
			template: withNames(uri("SPIFFE://" + strings.Repeat("a", 100))),
			want:     one(`URI "SPIFFE://` + strings.Repeat("a", 55) + `"... (109 bytes) is not in normal form: write "spiffe://` + strings.Repeat("a", 55) + `"... (109 bytes)`),
		},
		{name: "a bad name beside a good name", template: withNames(dnsName("web.example"), dnsName(""), ip(1)), want: append(one("subject alternative name of type DNS is empty: leave it out"), one("subject alternative name of type IP has 1 bytes: it must have 4 or 16")...)},
	}
}

// hostileBulk has requests with many refusals, to check their number and order.
func hostileBulk() []hostile {
	var names [][]byte
	var listed []Refusal
	for i := range 40 {
		names = append(names, dnsName(fmt.Sprintf("%02d ", i)))
		if i < maxRefusals {
			listed = append(listed, refusal(ReasonUnsupportedName, fmt.Sprintf(`subject alternative name of type DNS has bytes that are not visible ASCII: "%02d "`, i)))
		}
	}
	listed[maxRefusals-1].Message += " (and 32 more refusals)"
	return []hostile{
		{name: "forty bad names", template: withNames(names...), want: listed},
		{name: "the same bad name forty times", template: withNames(bytes.Repeat(ip(1), 40)), want: []Refusal{refusal(ReasonUnsupportedName, "subject alternative name of type IP has 1 bytes: it must have 4 or 16")}},
		{
			name:     "an OID of a thousand arcs",
			template: withExtensions(extension(oidExtendedKeyUsage, sequence(oid("1.2"+strings.Repeat(".3", 1000))))),
			want:     []Refusal{refusal(ReasonUnsupportedUsage, "extended key usage 1.2"+strings.Repeat(".3", 29)+"... has no Kubernetes name: leave it out")},
		},
		{
			name: "bad all over",
			template: template{
				subject:   sequence(rdn(oidCommonName, utf8String("a")), rdn(oidCommonName, utf8String(""))),
				publicKey: rsaPublicKey(odd(1024), 65537),
				attributes: slices.Concat(
					attribute("1.2.840.113549.1.9.7", utf8String("secret")),
					extensionRequest(extension(oidBasicConstraints, sequence(boolTrue)), subjectAltName(element(0xa4)), extension("2.5.29.30")),
				),
				algorithm: sequence(oid("1.2.840.113549.1.1.5"), null),
			},
			want: []Refusal{
				refusal(ReasonUnsupportedName, "subject attribute 2.5.4.3 (common name) is empty: give it a value or leave it out"),
				refusal(ReasonRepeatedAttribute, "subject attribute 2.5.4.3 (common name) is repeated: keep one"),
				refusal(ReasonWeakKey, "the RSA key has 1024 bits: use 2048 to 8192"),
				refusal(ReasonUnsupportedAttribute, "attribute 1.2.840.113549.1.9.7 (challenge password): leave it out"),
				refusal(ReasonCertificateAuthority, "basic constraints ask for a CA certificate: leave CA:TRUE out"),
				refusal(ReasonUnsupportedName, "subject alternative name of type directoryName: use only DNS, IP, URI and email names"),
				refusal(ReasonUnsupportedExtension, "extension 2.5.29.30 (name constraints): leave it out; allowed are subject alternative name, "+
					"key usage, extended key usage, basic constraints and subject key identifier"),
				refusal(ReasonWeakSignature, "the request is signed with SHA-1 (1.2.840.113549.1.1.5): sign it with SHA-256 or better"),
			},
		},
	}
}

func TestParseRefuses(t *testing.T) {
	missing := map[Reason]bool{
		ReasonMalformedRequest: true, ReasonBadSignature: true, ReasonWeakSignature: true, ReasonWeakKey: true,
		ReasonCertificateAuthority: true, ReasonUnsupportedName: true, ReasonRepeatedAttribute: true,
		ReasonUnsupportedAttribute: true, ReasonUnsupportedExtension: true, ReasonUnsupportedUsage: true,
	}
	names := map[string]bool{}
	for _, test := range hostileRequests() {
		if names[test.name] {
			t.Errorf("two requests have the name %q", test.name)
		}
		names[test.name] = true
		t.Run(test.name, func(t *testing.T) {
			request, err := Parse(test.bytes())
			if request != nil {
				t.Errorf("request = %+v, want nil", request)
			}
			refused, ok := errors.AsType[*Error](err)
			if !ok {
				t.Fatalf("error = %v, want an *Error", err)
			}
			if diff := cmp.Diff(test.want, refused.Refusals); diff != "" {
				t.Errorf("refusals (-want +got):\n%s", diff)
			}
		})
		for _, refusal := range test.want {
			delete(missing, refusal.Reason)
		}
	}
	if len(missing) > 0 {
		t.Errorf("no hostile request for %v", slices.Collect(maps.Keys(missing)))
	}
}

func TestErrorText(t *testing.T) {
	err := &Error{Refusals: []Refusal{{ReasonWeakKey, "one"}, {ReasonUnsupportedName, "two"}}}
	if got, want := err.Error(), "WeakKey: one; UnsupportedName: two"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
}

// TestForgedSignature shows why Ed25519 keys of small order are refused: crypto/x509 accepts a
// request that has no private key.
func TestForgedSignature(t *testing.T) {
	csr, err := x509.ParseCertificateRequest(hostileRequest("Ed25519 with a forged signature").template.der())
	if err != nil {
		t.Fatal(err)
	}
	if err := csr.CheckSignature(); err != nil {
		t.Errorf("CheckSignature = %v: if crypto/ed25519 now refuses such keys, smallOrder can go", err)
	}
}

// TestSmallOrderPoints shows that the order of each listed encoding, with either sign, divides 8: a
// signature whose right half is zero verifies whenever the hash of the message, as the scalar, is a
// multiple of the order.
func TestSmallOrderPoints(t *testing.T) {
	signature := append([]byte{1}, make([]byte, ed25519.SignatureSize-1)...)
	for encoded := range smallOrderPoints {
		for _, sign := range []byte{0, 0x80} {
			key := ed25519.PublicKey(unhex(encoded))
			key[31] |= sign
			if !smallOrder([32]byte(key)) {
				t.Errorf("smallOrder(%x) = false", key)
			}
			verified := false
			for i := range 512 { // all fail by chance once in 10^29 runs
				verified = verified || ed25519.Verify(key, []byte{byte(i), byte(i >> 8)}, signature)
			}
			if !verified {
				t.Errorf("%x is not of small order", key)
			}
		}
	}
	if smallOrder([32]byte(ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey))) {
		t.Error("an honest key is said to be of small order")
	}
}

// TestDifference changes the result of crypto/x509, since no request is known that is read differently.
func TestDifference(t *testing.T) {
	full := template{
		subject: sequence(rdn(oidCommonName, utf8String("cn")), rdn(oidOrganization, utf8String("o")), rdn(oidOrganizationalUnit, utf8String("ou")), rdn("2.5.4.7", utf8String("l"))),
		attributes: extensionRequest(subjectAltName(
			dnsName("web.example"), ip(10, 0, 0, 7), uri("spiffe://a/b"), email("a@b"),
		)),
	}
	for _, test := range []struct {
		name   string
		change func(*x509.CertificateRequest)
		want   string
	}{
		{"none", func(*x509.CertificateRequest) {}, ""},
		{"key bytes", func(r *x509.CertificateRequest) { r.RawSubjectPublicKeyInfo = nil }, "another public key"},
		{"key", func(r *x509.CertificateRequest) { r.PublicKey = nil }, "another public key"},
		{"attribute value", func(r *x509.CertificateRequest) { r.Subject.Names[3].Value = "L" }, "another subject"},
		{"attribute type", func(r *x509.CertificateRequest) { r.Subject.Names[3].Type[3]++ }, "another subject"},
		{"attribute less", func(r *x509.CertificateRequest) { r.Subject.Names = r.Subject.Names[:3] }, "another subject"},
		{"attribute binary", func(r *x509.CertificateRequest) { r.Subject.Names[3].Value = []byte("l") }, "another subject"},
		{"common name", func(r *x509.CertificateRequest) { r.Subject.CommonName = "" }, "another subject"},
		{"organization", func(r *x509.CertificateRequest) { r.Subject.Organization = nil }, "another subject"},
		{"unit", func(r *x509.CertificateRequest) { r.Subject.OrganizationalUnit[0] = "x" }, "another subject"},
		{"DNS names", func(r *x509.CertificateRequest) { r.DNSNames = append(r.DNSNames, "x") }, "other DNS names"},
		{"IP addresses", func(r *x509.CertificateRequest) { r.IPAddresses[0] = r.IPAddresses[0].To16() }, "other IP addresses"},
		{"URIs", func(r *x509.CertificateRequest) { r.URIs = []*url.URL{{Scheme: "a", Opaque: "b"}} }, "other URIs"},
		{"email addresses", func(r *x509.CertificateRequest) { r.EmailAddresses = nil }, "other email addresses"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var p parser
			if err := p.certificationRequest(full.der()); err != nil {
				t.Fatal(err)
			}
			other, err := x509.ParseCertificateRequest(full.der())
			if err != nil {
				t.Fatal(err)
			}
			test.change(other)
			if got := difference(&p.request, p.subject, other); got != test.want {
				t.Errorf("difference = %q, want %q", got, test.want)
			}
		})
	}
}

// TestCrossCheck changes the result of the parser, to check that a difference refuses the request.
func TestCrossCheck(t *testing.T) {
	der := withNames(dnsName("web.example")).der()
	var p parser
	if err := p.certificationRequest(der); err != nil {
		t.Fatal(err)
	}
	if err := crossCheck(&p.request, p.subject, der); err != nil {
		t.Fatal(err)
	}
	p.request.DNSNames = nil
	want := &Error{Refusals: malformedAs("crypto/x509 reads other DNS names from this request")}
	if diff := cmp.Diff(error(want), crossCheck(&p.request, p.subject, der)); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
}
