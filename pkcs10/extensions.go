// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import (
	encodingasn1 "encoding/asn1"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// oidExtensionRequest is the PKCS#10 attribute that holds extensions (RFC 2985, section 5.4.2).
const oidExtensionRequest = "1.2.840.113549.1.9.14"

// The extensions that a request may have (RFC 5280, section 4.2.1).
const (
	oidSubjectKeyIdentifier = "2.5.29.14"
	oidKeyUsage             = "2.5.29.15"
	oidSubjectAltName       = "2.5.29.17"
	oidBasicConstraints     = "2.5.29.19"
	oidExtendedKeyUsage     = "2.5.29.37"
)

// attributes reads the content of [0] IMPLICIT SET OF SEQUENCE { type OBJECT IDENTIFIER, values SET OF ANY }.
//
// Only the extension request is allowed. A challenge password would have no effect, and would be
// readable in the API. The attributes that Windows adds describe the machine that created the
// request, and have no place in a certificate.
func (p *parser) attributes(attributes cryptobyte.String) error {
	found := make(map[string]bool)
	for !attributes.Empty() {
		var sequence, values cryptobyte.String
		var oid encodingasn1.ObjectIdentifier
		if !attributes.ReadASN1(&sequence, asn1.SEQUENCE) ||
			!sequence.ReadASN1ObjectIdentifier(&oid) ||
			!sequence.ReadASN1(&values, asn1.SET) ||
			!sequence.Empty() {
			return malformedDER("list of attributes")
		}
		name := oid.String()
		if found[name] {
			p.refusals.add(ReasonRepeatedAttribute, "attribute %s is repeated: keep one", describe(name))
			continue
		}
		found[name] = true
		if name != oidExtensionRequest {
			p.refusals.add(ReasonUnsupportedAttribute, "attribute %s: %s", describe(name), adviceOnAttribute(name))
			continue
		}
		if err := p.extensionRequest(values); err != nil {
			return err
		}
	}
	return nil
}

func adviceOnAttribute(oid string) string {
	if strings.HasPrefix(oid, microsoftArc) {
		return "leave it out; tools of Windows always write it, so create the request with another tool, such as openssl"
	}
	return "leave it out"
}

// extensionRequest reads the values of the attribute. There must be one: a SEQUENCE of extensions.
// crypto/x509 reads the first value and skips the others.
func (p *parser) extensionRequest(values cryptobyte.String) error {
	var elements []cryptobyte.String
	for !values.Empty() {
		var element cryptobyte.String
		if !values.ReadASN1(&element, asn1.SEQUENCE) {
			return malformedDER("extension request")
		}
		elements = append(elements, element)
	}
	if len(elements) != 1 {
		p.refusals.add(ReasonRepeatedAttribute, "attribute %s has %d values: it must have one", describe(oidExtensionRequest), len(elements))
		return nil
	}
	extensions := elements[0]
	if extensions.Empty() {
		return malformed("the extension request is empty: leave it out")
	}
	found := make(map[string]bool)
	for !extensions.Empty() {
		oid, value, err := readExtension(&extensions)
		if err != nil {
			return err
		}
		if found[oid] {
			p.refusals.add(ReasonRepeatedAttribute, "extension %s is repeated: keep one", describe(oid))
			continue
		}
		found[oid] = true
		if err := p.extension(oid, value); err != nil {
			return err
		}
	}
	slices.Sort(p.request.Usages)
	p.request.Usages = slices.Compact(p.request.Usages)
	return nil
}

// readExtension reads SEQUENCE { extnID, critical BOOLEAN DEFAULT FALSE, extnValue OCTET STRING }.
// It ignores critical, since the signer sets it for each extension of the certificate.
func readExtension(extensions *cryptobyte.String) (oid string, value cryptobyte.String, err error) {
	var sequence cryptobyte.String
	var id encodingasn1.ObjectIdentifier
	var critical bool
	if !extensions.ReadASN1(&sequence, asn1.SEQUENCE) || !sequence.ReadASN1ObjectIdentifier(&id) {
		return "", nil, malformedDER("list of extensions")
	}
	if explicitFalse(sequence) {
		return "", nil, malformed("extension %s has critical FALSE written out, which DER forbids: use a tool or a version that leaves it out", describe(id.String()))
	}
	if !readDefaultFalse(&sequence, &critical) ||
		!sequence.ReadASN1(&value, asn1.OCTET_STRING) ||
		!sequence.Empty() {
		return "", nil, malformedDER("list of extensions")
	}
	return id.String(), value, nil
}

func (p *parser) extension(oid string, value cryptobyte.String) error {
	switch oid {
	case oidSubjectAltName:
		return p.subjectAltName(value)
	case oidKeyUsage:
		return p.keyUsage(value)
	case oidExtendedKeyUsage:
		return p.extendedKeyUsage(value)
	case oidBasicConstraints:
		return p.basicConstraints(value)
	case oidSubjectKeyIdentifier:
		return subjectKeyIdentifier(value)
	default:
		p.refusals.add(ReasonUnsupportedExtension, "extension %s: leave it out; allowed are subject alternative name, key usage, "+
			"extended key usage, basic constraints and subject key identifier", describe(oid))
		return nil
	}
}

// basicConstraints reads SEQUENCE { cA BOOLEAN DEFAULT FALSE, pathLenConstraint INTEGER OPTIONAL }.
func (p *parser) basicConstraints(value cryptobyte.String) error {
	var sequence cryptobyte.String
	var isCA bool
	if !value.ReadASN1(&sequence, asn1.SEQUENCE) || !value.Empty() {
		return malformedDER(describe(oidBasicConstraints))
	}
	if explicitFalse(sequence) {
		return malformed("basic constraints have CA:FALSE written out, which DER forbids: leave them out, or use a tool that writes an empty SEQUENCE")
	}
	if !readDefaultFalse(&sequence, &isCA) {
		return malformedDER(describe(oidBasicConstraints))
	}
	hasPathLen := !sequence.Empty()
	if hasPathLen {
		var pathLen []byte
		if !sequence.ReadASN1Integer(&pathLen) || !sequence.Empty() {
			return malformedDER(describe(oidBasicConstraints))
		}
	}
	if isCA {
		p.refusals.add(ReasonCertificateAuthority, "basic constraints ask for a CA certificate: leave CA:TRUE out")
	}
	if hasPathLen {
		p.refusals.add(ReasonCertificateAuthority, "basic constraints have a path length, which only a CA certificate has: leave it out")
	}
	return nil
}

// subjectKeyIdentifier reads an OCTET STRING and ignores it: the signer computes the identifier.
func subjectKeyIdentifier(value cryptobyte.String) error {
	var identifier cryptobyte.String
	if !value.ReadASN1(&identifier, asn1.OCTET_STRING) || !value.Empty() || identifier.Empty() {
		return malformedDER(describe(oidSubjectKeyIdentifier))
	}
	return nil
}

// explicitFalse reports whether the BOOLEAN FALSE is next. DER leaves out a value that is the default.
func explicitFalse(s cryptobyte.String) bool {
	var value bool
	return s.PeekASN1Tag(asn1.BOOLEAN) && s.ReadASN1Boolean(&value) && !value
}

// readDefaultFalse reads a BOOLEAN DEFAULT FALSE: in DER it is either absent or TRUE (X.690, section 11.5).
func readDefaultFalse(s *cryptobyte.String, out *bool) bool {
	*out = s.PeekASN1Tag(asn1.BOOLEAN)
	return !*out || s.ReadASN1Boolean(out) && *out
}
