// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Reason is the reason of a refusal. It is UpperCamelCase and stable, so it can be the reason of a
// condition and the label of a metric. The constants below are all reasons.
type Reason string

const (
	// ReasonMalformedRequest: the bytes are not one PEM block with one well-formed request in DER.
	// Such a request has no refusal of another reason. It is also the reason for a request that crypto/x509
	// cannot read, or reads differently from this package. Please report a message such as
	// "crypto/x509 reads other DNS names from this request" as a vulnerability.
	// Example: "the PEM block is of type \"NEW CERTIFICATE REQUEST\": make it CERTIFICATE REQUEST".
	ReasonMalformedRequest Reason = "MalformedRequest"

	// ReasonBadSignature: the requester did not prove possession of the private key. The signature does
	// not verify under the public key (RFC 2986, section 4.2), or its algorithm is not supported or
	// does not match the key.
	// Example: "the signature does not verify under the public key of the request: sign the request with the private key that belongs to it".
	ReasonBadSignature Reason = "BadSignature"

	// ReasonWeakSignature: the signature uses MD2, MD5 or SHA-1, so it can be a signature of another request.
	// Example: "the request is signed with SHA-1 (1.2.840.113549.1.1.5): sign it with SHA-256 or better".
	ReasonWeakSignature Reason = "WeakSignature"

	// ReasonWeakKey: the public key is too small, too large, malformed as a key, or of a kind that is not allowed.
	// Example: "the RSA key has 1024 bits: use 2048 to 8192".
	ReasonWeakKey Reason = "WeakKey"

	// ReasonCertificateAuthority: the request asks for a CA certificate, or for a usage that only a CA has.
	// Example: "basic constraints ask for a CA certificate: leave CA:TRUE out".
	ReasonCertificateAuthority Reason = "CertificateAuthority"

	// ReasonUnsupportedName: the type or the content of a subject value or a subject alternative name
	// is not allowed, or a subject alternative name is repeated.
	// Example: "DNS name \"web_1.example\" has the character \"_\": host names have letters, digits, hyphens and dots".
	ReasonUnsupportedName Reason = "UnsupportedName"

	// ReasonRepeatedAttribute: there is more than one where readers expect one, and readers differ in
	// which one they use: subject attributes other than O and OU, attributes in one RDN, PKCS#10
	// attributes of one type, values of the extension request, extensions of one type.
	// Example: "subject attribute 2.5.4.3 (common name) is repeated: keep one".
	ReasonRepeatedAttribute Reason = "RepeatedAttribute"

	// ReasonUnsupportedAttribute: the request has a PKCS#10 attribute other than the extension request.
	// Example: "attribute 1.2.840.113549.1.9.7 (challenge password): leave it out".
	ReasonUnsupportedAttribute Reason = "UnsupportedAttribute"

	// ReasonUnsupportedExtension: the request asks for an extension that is not allowed.
	// Example: "extension 2.5.29.30: leave it out; ..." and then those that are allowed.
	ReasonUnsupportedExtension Reason = "UnsupportedExtension"

	// ReasonUnsupportedUsage: a key usage or an extended key usage has no name in the Kubernetes API.
	// Example: "extended key usage 1.3.6.1.5.5.7.3.17 has no Kubernetes name: leave it out".
	ReasonUnsupportedUsage Reason = "UnsupportedUsage"
)

// Refusal is one reason against a request.
type Refusal struct {
	Reason Reason
	// Message says what is wrong and how to fix it, in at most 256 bytes of printable ASCII. It quotes
	// text of the request escaped and shortened.
	Message string
}

// Error holds the refusals of a request. [Parse] returns no other error.
type Error struct {
	// Refusals has 1 to 8 different elements, in the order of the request. If there are more, the last
	// message says how many.
	Refusals []Refusal
}

// Error joins the refusals, each as "Reason: message", by "; ".
func (e *Error) Error() string {
	parts := make([]string, len(e.Refusals))
	for i, r := range e.Refusals {
		parts[i] = string(r.Reason) + ": " + r.Message
	}
	return strings.Join(parts, "; ")
}

const (
	maxRefusals = 8
	maxMessage  = 256 // bytes
	maxQuoted   = 64  // bytes of text of the request, after escaping; a message quotes at most twice
)

// malformed returns the error that ends the parse.
func malformed(format string, args ...any) error {
	return &Error{Refusals: []Refusal{newRefusal(ReasonMalformedRequest, format, args...)}}
}

func newRefusal(reason Reason, format string, args ...any) Refusal {
	return Refusal{Reason: reason, Message: cut(fmt.Sprintf(format, args...), maxMessage)}
}

// refusals collects the refusals of a request that can be read.
type refusals struct {
	list []Refusal
	more int // found after the list was full
}

func (r *refusals) add(reason Reason, format string, args ...any) {
	if len(r.list) == maxRefusals {
		// Not formatted: a request can hold thousands of them.
		r.more++
		return
	}
	if refusal := newRefusal(reason, format, args...); !slices.Contains(r.list, refusal) {
		r.list = append(r.list, refusal)
	}
}

// err returns nil if nothing was added.
func (r *refusals) err() error {
	if len(r.list) == 0 {
		return nil
	}
	if r.more > 0 {
		last := &r.list[len(r.list)-1]
		suffix := fmt.Sprintf(" (and %d more refusals)", r.more)
		last.Message = cut(last.Message, maxMessage-len(suffix)) + suffix
	}
	return &Error{Refusals: r.list}
}

// quote returns text of the request for a message: shortened, and escaped to printable ASCII, so
// that no control characters or look-alikes reach a terminal or a log.
func quote[T string | []byte](text T) string { return quoteUpTo(string(text), maxQuoted) }

// quoteUpTo quotes as many characters of text as fit in size bytes when escaped. It does not split
// an escape sequence, and always closes the quotation.
func quoteUpTo(text string, size int) string {
	var escaped []byte
	for rest := text; rest != ""; {
		_, n := utf8.DecodeRuneInString(rest)
		next := strconv.QuoteToASCII(rest[:n])
		next = next[1 : len(next)-1]
		if len(escaped)+len(next) > size {
			return fmt.Sprintf("\"%s\"... (%d bytes)", escaped, len(text))
		}
		escaped, rest = append(escaped, next...), rest[n:]
	}
	return `"` + string(escaped) + `"`
}

// short shortens text that is always printable ASCII, such as an OID.
func short(text string) string { return cut(text, maxQuoted) }

func cut(text string, size int) string {
	const mark = "..."
	if len(text) <= size {
		return text
	}
	return text[:size-len(mark)] + mark
}
