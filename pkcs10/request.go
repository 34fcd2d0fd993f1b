// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import (
	"crypto"
	"net/netip"

	certificatesv1 "k8s.io/api/certificates/v1"
)

// Request is what a certificate request asks for, whole and verified. It shares no memory
// with the bytes it was read from. Lists keep the order of the request, and are nil if empty.
type Request struct {
	// Subject may be empty.
	Subject Subject

	// The subject alternative names (RFC 5280, section 4.2.1.6), of visible ASCII, in the case
	// they were asked for, and not empty.

	// DNSNames may hold wildcards and trailing dots.
	DNSNames []string
	// IPAddresses come from 4 or 16 octets; none is an IPv4 address mapped into IPv6.
	IPAddresses []netip.Addr
	// URIs are absolute, and in the form in which net/url writes them.
	URIs []string
	// EmailAddresses are not checked further.
	EmailAddresses []string

	// Usages are those that the key usage and extended key usage extensions of the PKCS#10
	// ask for, by their Kubernetes names, sorted and without repetition; nil if neither
	// extension is there. They are beside, and may differ from, spec.usages.
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
	// Organizations and OrganizationalUnits may have several values.
	Organizations, OrganizationalUnits []string
	// Other holds the attributes of every other type, each type at most once.
	Other []Attribute
}

// Attribute is one attribute of a subject.
type Attribute struct {
	// OID is the type in dotted form, such as "2.5.4.6" for a country.
	OID string
	// Value is the text, whatever ASN.1 string type it had.
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
