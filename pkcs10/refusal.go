// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import (
	"fmt"
	"slices"
	"strings"
)

// Reason is why a request is refused: UpperCamelCase and stable, fit for a condition's
// reason and a metric's label. The constants below are all there are.
type Reason string

const (
	// ReasonMalformedRequest: the bytes are not one PEM block with one well-formed request in DER.
	// It is found alone: nothing else is said of bytes that cannot be read.
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
	// content, that is not allowed.
	// Example: "subject alternative name of type otherName: use only DNS, IP, URI and email names".
	ReasonUnsupportedName Reason = "UnsupportedName"

	// ReasonRepeatedAttribute: something is there more often than once, so that readers may
	// differ on which one counts.
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

	// ReasonParserDisagreement: crypto/x509 reads the request otherwise than this package does.
	// None such is known; if you meet one, please report it as a vulnerability.
	// Example: "crypto/x509 reads other DNS names from this request".
	ReasonParserDisagreement Reason = "ParserDisagreement"
)

// Refusal is one reason against a request.
type Refusal struct {
	Reason Reason
	// Message says what was seen and what to do about it, in at most 512 bytes of printable
	// ASCII. Text of the requester's stands in it quoted, escaped and cut short.
	Message string
}

// Error is why [Parse] refused a request.
type Error struct {
	// Refusals has 1 to 16 elements, in the order of the request, none twice. If more were
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
	maxRefusals = 16
	maxMessage  = 512 // bytes
	maxQuoted   = 64  // bytes of the requester's text, before escaping
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
func quote[T string | []byte](text T) string {
	if len(text) > maxQuoted {
		return fmt.Sprintf("%+q... (%d bytes)", string(text[:maxQuoted]), len(text))
	}
	return fmt.Sprintf("%+q", string(text))
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
