// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import (
	"crypto"
	"net/netip"

	certificatesv1 "k8s.io/api/certificates/v1"
)

// Request is the complete and verified content of a certificate request. It shares no memory with
// the bytes it was read from. Lists have the order of the request, and are nil if empty.
type Request struct {
	// Subject can be empty.
	Subject Subject

	// The subject alternative names (RFC 5280, section 4.2.1.6) are not empty, and have the case of the
	// request. No text has a comma, a space or a quote, with which tools separate names.

	// DNSNames are host names of RFC 1123: letters, digits, hyphens and dots. The first of several labels
	// can be "*", and a name can have a trailing dot. No name looks like an IP address.
	DNSNames []string
	// IPAddresses come from 4 or 16 octets; none is an IPv4 address mapped into IPv6.
	IPAddresses []netip.Addr
	// URIs are absolute, in the form in which net/url writes them, and have no user. A URI with an
	// authority has an IP address or a host name in it.
	URIs []string
	// EmailAddresses are mailboxes of RFC 5321, without quoted strings and address literals.
	EmailAddresses []string

	// Usages are the Kubernetes names of the usages in the key usage and extended key usage
	// extensions, sorted and without repetition, nil if the request has neither extension. They can
	// differ from spec.usages.
	Usages []certificatesv1.KeyUsage

	// PublicKey is an *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey.
	PublicKey crypto.PublicKey
	// Key describes PublicKey.
	Key Key
	// RawSubjectPublicKeyInfo is the DER of PublicKey.
	RawSubjectPublicKeyInfo []byte
}

// Subject is a distinguished name. Its strings are not empty, and valid UTF-8 of graphic
// characters and spaces.
type Subject struct {
	// CommonName is empty if there is none.
	CommonName string
	// Organizations and OrganizationalUnits can have several values.
	Organizations, OrganizationalUnits []string
	// Other holds the attributes of every other type, each type at most once.
	Other []Attribute
}

// Attribute is one attribute of a subject.
type Attribute struct {
	// OID is the type in dotted form, such as "2.5.4.6" for a country.
	OID string
	// Value is the text, independent of its ASN.1 string type.
	Value string
}

// Key describes a public key.
type Key struct {
	// Algorithm is "RSA", "ECDSA" or "Ed25519".
	Algorithm string
	// Bits is the length of the RSA modulus, or the size of the curve's field: 256, 384 or
	// 521 for ECDSA, 256 for Ed25519.
	Bits int
	// SHA256 is the lower-case hex SHA-256 digest of the DER SubjectPublicKeyInfo.
	SHA256 string
}
