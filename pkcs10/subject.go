// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import (
	"bytes"
	encodingasn1 "encoding/asn1"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Attribute types of a subject (RFC 5280, appendix A.1).
const (
	oidCommonName         = "2.5.4.3"
	oidOrganization       = "2.5.4.10"
	oidOrganizationalUnit = "2.5.4.11"
	oidDomainComponent    = "0.9.2342.19200300.100.1.25" // RFC 4519, section 2.4
)

// name reads the content of a Name (RFC 5280, section 4.1.2.4): RDNs, each a SET of attributes.
//
// Only O and OU can be repeated: each in an RDN of its own, as openssl and keytool write them, or
// all in one, as crypto/x509 writes pkix.Name.Organization. If another type is repeated, some
// readers use the last value, some the first, some all: pkix.Name differs for CN and L. Some
// readers treat an RDN with attributes of several types as one attribute whose value has a plus
// sign.
func (p *parser) name(rdns cryptobyte.String) error {
	found := make(map[string]bool)
	for !rdns.Empty() {
		var rdn cryptobyte.String
		if !rdns.ReadASN1(&rdn, asn1.SET) || rdn.Empty() {
			return malformedDER("subject")
		}
		attributes, err := p.relativeDistinguishedName(rdn)
		if err != nil {
			return err
		}
		if len(attributes) > 1 && !sameMultiValued(attributes) {
			p.refusals.add(ReasonRepeatedAttribute, "the subject has an RDN of more than one attribute: give each attribute an RDN of its own")
		}
		for _, attribute := range attributes {
			if found[attribute.OID] && !multiValued(attribute.OID) {
				p.refusals.add(ReasonRepeatedAttribute, "subject attribute %s is repeated: %s", describe(attribute.OID), adviceOnRepeated(attribute.OID))
			}
			found[attribute.OID] = true
			p.addSubject(attribute)
		}
	}
	return nil
}

// adviceOnRepeated says how to fix a repeated attribute. The domain needs all of its components, and no field has several.
func adviceOnRepeated(oid string) string {
	if oid == oidDomainComponent {
		return "leave out all of them, and request the domain as a DNS name"
	}
	return "keep one"
}

// sameMultiValued reports whether all attributes are O, or all are OU.
func sameMultiValued(attributes []Attribute) bool {
	return !slices.ContainsFunc(attributes, func(a Attribute) bool { return a.OID != attributes[0].OID || !multiValued(a.OID) })
}

func multiValued(oid string) bool { return oid == oidOrganization || oid == oidOrganizationalUnit }

// relativeDistinguishedName reads the content of a SET OF AttributeTypeAndValue, which DER sorts
// (X.690, section 11.6).
func (p *parser) relativeDistinguishedName(rdn cryptobyte.String) ([]Attribute, error) {
	var attributes []Attribute
	var previous cryptobyte.String
	for !rdn.Empty() {
		var element cryptobyte.String
		if !rdn.ReadASN1Element(&element, asn1.SEQUENCE) || bytes.Compare(previous, element) > 0 {
			return nil, malformedDER("subject")
		}
		attribute, err := p.attributeTypeAndValue(element)
		if err != nil {
			return nil, err
		}
		attributes = append(attributes, attribute)
		previous = element
	}
	return attributes, nil
}

func (p *parser) addSubject(attribute Attribute) {
	p.subject = append(p.subject, attribute)
	subject := &p.request.Subject
	switch attribute.OID {
	case oidCommonName:
		subject.CommonName = attribute.Value
	case oidOrganization:
		subject.Organizations = append(subject.Organizations, attribute.Value)
	case oidOrganizationalUnit:
		subject.OrganizationalUnits = append(subject.OrganizationalUnits, attribute.Value)
	default:
		subject.Other = append(subject.Other, attribute)
	}
}

// attributeTypeAndValue reads SEQUENCE { type OBJECT IDENTIFIER, value ANY }.
func (p *parser) attributeTypeAndValue(element cryptobyte.String) (Attribute, error) {
	var sequence, value cryptobyte.String
	var oid encodingasn1.ObjectIdentifier
	var tag asn1.Tag
	if !element.ReadASN1(&sequence, asn1.SEQUENCE) ||
		!sequence.ReadASN1ObjectIdentifier(&oid) ||
		!sequence.ReadAnyASN1(&value, &tag) ||
		!sequence.Empty() {
		return Attribute{}, malformedDER("subject")
	}
	attribute := Attribute{OID: oid.String(), Value: string(value)}
	p.subjectString(attribute, tag)
	return attribute, nil
}

// subjectString refuses a subject's value that is empty, has bytes that its type does not allow, or
// has invisible characters. It accepts only the three string types in use: T61String, BMPString and
// UniversalString cannot be read without tables or guesses.
func (p *parser) subjectString(attribute Attribute, tag asn1.Tag) {
	refuse := func(format string, args ...any) {
		args = append([]any{describe(attribute.OID)}, args...)
		p.refusals.add(ReasonUnsupportedName, "subject attribute %s "+format, args...)
	}
	var valid bool
	switch tag {
	case asn1.PrintableString:
		valid = !strings.ContainsFunc(attribute.Value, notPrintableString)
	case asn1.UTF8String:
		valid = utf8.ValidString(attribute.Value)
	case asn1.IA5String:
		valid = !strings.ContainsFunc(attribute.Value, func(r rune) bool { return r > unicode.MaxASCII })
	default:
		refuse("has a value of ASN.1 type 0x%02x: use a UTF8String, PrintableString or IA5String", uint8(tag))
		return
	}
	switch {
	case attribute.Value == "":
		refuse("is empty: give it a value or leave it out")
	case !valid:
		refuse("has bytes that its ASN.1 type 0x%02x does not allow: %s", uint8(tag), quote(attribute.Value))
	case strings.ContainsFunc(attribute.Value, func(r rune) bool { return !unicode.IsPrint(r) }):
		refuse("has invisible characters: %s; leave them out", quote(attribute.Value))
	}
}

// notPrintableString reports whether r is outside PrintableString (X.680, table 10). Unlike
// encoding/asn1 it treats '*' and '&' as outside: they need a UTF8String.
func notPrintableString(r rune) bool {
	switch {
	case 'A' <= r && r <= 'Z', 'a' <= r && r <= 'z', '0' <= r && r <= '9':
		return false
	default:
		return !strings.ContainsRune(" '()+,-./:=?", r)
	}
}
