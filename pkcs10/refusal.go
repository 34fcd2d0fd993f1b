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

// Reason is why a request is refused: UpperCamelCase and stable, fit for a condition's
// reason and a metric's label. The constants below are all there are.
type Reason string

const (
	// ReasonMalformedRequest: the bytes are not one PEM block with one well-formed request in DER.
	// It is found alone: nothing else is said of bytes that cannot be read. The same is said of a
	// request that crypto/x509 cannot read, or reads otherwise than this package does; if you
	// meet "crypto/x509 reads other DNS names from this request", please report it as a vulnerability.
	// Example: "the PEM block is of type \"NEW CERTIFICATE REQUEST\": make it CERTIFICATE REQUEST".
	ReasonMalformedRequest Reason = "MalformedRequest"

	// ReasonBadSignature: the requester did not show that it holds the private key, because the
	// signature does not verify under the public key (RFC 2986, section 4.2), or is by an
	// algorithm that does not fit the key or that is not known here.
	// Example: "the signature does not verify under the public key of the request: sign the request with the private key that belongs to it".
	ReasonBadSignature Reason = "BadSignature"

	// ReasonWeakSignature: the signature uses MD2, MD5 or SHA-1, so it may have been made for another request.
	// Example: "the request is signed with SHA-1 (1.2.840.113549.1.1.5): sign it with SHA-256 or better".
	ReasonWeakSignature Reason = "WeakSignature"

	// ReasonWeakKey: the public key is too small, too large, malformed as a key, or of a kind that is not allowed.
	// Example: "the RSA key has 1024 bits: use 2048 to 8192".
	ReasonWeakKey Reason = "WeakKey"

	// ReasonCertificateAuthority: the request asks for a CA certificate, or for a usage only a CA has.
	// Example: "basic constraints ask for a CA certificate: leave CA:TRUE out".
	ReasonCertificateAuthority Reason = "CertificateAuthority"

	// ReasonUnsupportedName: a subject value or a subject alternative name is of a kind, or has
	// content, that is not allowed, or a subject alternative name is there twice.
	// Example: "subject alternative name of type otherName: use only DNS, IP, URI and email names".
	ReasonUnsupportedName Reason = "UnsupportedName"

	// ReasonRepeatedAttribute: there are several where one is expected, so that readers may differ
	// on which one counts: subject attributes other than O and OU, attributes in one RDN, PKCS#10
	// attributes of one type, values of the extension request, extensions of one type.
	// Example: "subject attribute 2.5.4.3 (common name) is there more than once: keep one".
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
	// Message says what was seen and what to do about it, in at most 256 bytes of printable
	// ASCII. Text of the requester's stands in it quoted, escaped and cut short.
	Message string
}

// Error is why [Parse] refused a request.
type Error struct {
	// Refusals has 1 to 8 elements, in the order of the request, none twice. If more were
	// found, the last message says how many.
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
	maxQuoted   = 64  // bytes of the requester's text, after escaping; a message quotes twice at most
)

// malformed is the fault that ends the parse at once.
func malformed(format string, args ...any) error {
	return &Error{Refusals: []Refusal{newRefusal(ReasonMalformedRequest, format, args...)}}
}

func newRefusal(reason Reason, format string, args ...any) Refusal {
	return Refusal{Reason: reason, Message: cut(fmt.Sprintf(format, args...), maxMessage)}
}

// refusals collects what is wrong with a request that could be read.
type refusals struct {
	list []Refusal
	more int // found after the list was full
}

func (r *refusals) add(reason Reason, format string, args ...any) {
	if len(r.list) == maxRefusals {
		// Not formatted: a request may well hold a thousand of them.
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

// quote shows text of the requester's in a message: escaped down to printable ASCII, so that
// neither control characters nor look-alikes reach a terminal or a log, and cut short.
func quote[T string | []byte](text T) string { return quoteUpTo(string(text), maxQuoted) }

// quoteUpTo quotes as many characters of text as need no more than size bytes when escaped. It
// never cuts through an escape or leaves the quotation open.
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

// short is quote for text that is known to be ASCII without control characters, such as an OID.
func short(text string) string { return cut(text, maxQuoted) }

func cut(text string, size int) string {
	const mark = "..."
	if len(text) <= size {
		return text
	}
	return text[:size-len(mark)] + mark
}
