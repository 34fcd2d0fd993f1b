// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import (
	"net/netip"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Tags of the GeneralNames that are allowed (RFC 5280, section 4.2.1.6), all primitive.
// crypto/x509 drops names with the same number and the bit for "constructed".
var (
	tagEmail = asn1.Tag(1).ContextSpecific()
	tagDNS   = asn1.Tag(2).ContextSpecific()
	tagURI   = asn1.Tag(6).ContextSpecific()
	tagIP    = asn1.Tag(7).ContextSpecific()
)

// droppedNames are the GeneralNames that crypto/x509 drops without an error. A certificate with a
// copy of the extension would still have them.
var droppedNames = map[asn1.Tag]string{
	asn1.Tag(0).ContextSpecific().Constructed(): "otherName",
	asn1.Tag(3).ContextSpecific().Constructed(): "x400Address",
	asn1.Tag(4).ContextSpecific().Constructed(): "directoryName",
	asn1.Tag(5).ContextSpecific().Constructed(): "ediPartyName",
	asn1.Tag(8).ContextSpecific():               "registeredID",
}

// subjectAltName reads a SEQUENCE of GeneralNames.
func (p *parser) subjectAltName(value cryptobyte.String) error {
	var names cryptobyte.String
	if !value.ReadASN1(&names, asn1.SEQUENCE) || !value.Empty() {
		return malformedDER(describe(oidSubjectAltName))
	}
	if names.Empty() {
		p.refusals.add(ReasonUnsupportedName, "the subject alternative name extension is empty: add a name or leave it out")
	}
	for !names.Empty() {
		var content cryptobyte.String
		var tag asn1.Tag
		if !names.ReadAnyASN1(&content, &tag) {
			return malformedDER(describe(oidSubjectAltName))
		}
		p.generalName(tag, content)
	}
	return nil
}

func (p *parser) generalName(tag asn1.Tag, content []byte) {
	r := &p.request
	switch tag {
	case tagDNS:
		p.textName(&r.DNSNames, tag, "DNS", content, dnsNameProblem)
	case tagEmail:
		p.textName(&r.EmailAddresses, tag, "email", content, emailProblem)
	case tagURI:
		p.textName(&r.URIs, tag, "URI", content, uriProblem)
	case tagIP:
		if addr, ok := p.address(content); ok && p.unique(tag, "IP", []byte(addr.String())) {
			r.IPAddresses = append(r.IPAddresses, addr)
		}
	default:
		p.unsupportedName(tag)
	}
}

var nouns = map[asn1.Tag]string{tagDNS: "DNS name", tagEmail: "email address", tagURI: "URI"}

// textName adds a DNS name, an email address or a URI to list, or refuses it. problemOf returns what is
// wrong with the syntax of a name.
func (p *parser) textName(list *[]string, tag asn1.Tag, kind string, content []byte, problemOf func(string) string) {
	if !p.visibleASCII(kind, content) {
		return
	}
	if problem := problemOf(string(content)); problem != "" {
		p.refusals.add(ReasonUnsupportedName, "%s %s %s", nouns[tag], quote(content), problem)
		return
	}
	if p.unique(tag, kind, content) {
		*list = append(*list, string(content))
	}
}

func (p *parser) unsupportedName(tag asn1.Tag) {
	const advice = "use only DNS, IP, URI and email names"
	if kind, ok := droppedNames[tag]; ok {
		p.refusals.add(ReasonUnsupportedName, "subject alternative name of type %s: %s", kind, advice)
	} else {
		p.refusals.add(ReasonUnsupportedName, "subject alternative name with unknown tag 0x%02x: %s", uint8(tag), advice)
	}
}

// unique refuses a name that equals an earlier one byte for byte. Names that differ in case are
// not equal: policies decide which DNS names are the same.
func (p *parser) unique(tag asn1.Tag, kind string, text []byte) bool {
	name := generalName{tag, string(text)}
	if p.names[name] {
		p.refusals.add(ReasonUnsupportedName, "subject alternative name %s of type %s is repeated: keep one", quote(text), kind)
		return false
	}
	if p.names == nil {
		p.names = make(map[generalName]bool)
	}
	p.names[name] = true
	return true
}

// generalName is a name of one kind.
type generalName struct {
	tag  asn1.Tag
	text string
}

// visibleASCII refuses a name that is empty or has bytes other than 0x21 to 0x7e. Some readers end
// a name at NUL, and a non-ASCII name must be written in its ASCII form (punycode).
func (p *parser) visibleASCII(kind string, content []byte) bool {
	if len(content) == 0 {
		p.refusals.add(ReasonUnsupportedName, "subject alternative name of type %s is empty: leave it out", kind)
		return false
	}
	for _, b := range content {
		if b <= ' ' || b > '~' {
			p.refusals.add(ReasonUnsupportedName, "subject alternative name of type %s has bytes that are not visible ASCII: %s", kind, quote(content))
			return false
		}
	}
	return true
}

// address reads the octets of an IP address. It refuses an IPv4 address in the 16 octets of IPv6,
// which readers treat as different addresses.
func (p *parser) address(octets []byte) (netip.Addr, bool) {
	addr, ok := netip.AddrFromSlice(octets)
	switch {
	case !ok:
		p.refusals.add(ReasonUnsupportedName, "subject alternative name of type IP has %d bytes: it must have 4 or 16", len(octets))
	case addr.Is4In6():
		p.refusals.add(ReasonUnsupportedName, "IP address %s is an IPv4 address in an IPv6 one: write %s", addr, addr.Unmap())
		ok = false
	}
	return addr, ok
}
