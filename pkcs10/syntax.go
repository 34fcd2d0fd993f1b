// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Limits in characters: RFC 1123 section 2.1 and RFC 1035 section 2.3.4 for host names, RFC 5321 section
// 4.5.3.1 for the local part of a mailbox.
const (
	maxHost      = 253
	maxLabel     = 63
	maxLocalPart = 64
)

// dnsNameProblem returns what is wrong with a dNSName, "" if it is a host name of RFC 1123 (RFC 5280,
// section 4.2.1.6). The first of several labels can be the wildcard "*" (RFC 9525, section 6.3). A
// trailing dot is allowed: cloud providers report such names of nodes, and kubelets request them.
func dnsNameProblem(name string) string {
	if len(strings.TrimSuffix(name, ".")) > maxHost {
		return fmt.Sprintf("has %d characters: the limit is %d", len(name), maxHost)
	}
	name = strings.TrimPrefix(strings.TrimSuffix(name, "."), "*.")
	if strings.Contains(name, "*") {
		return "has a wildcard that is not the first of several labels: write it as in *.example.com"
	}
	return hostProblem(name)
}

// hostProblem returns what is wrong with a host name by RFC 1123, section 2.1, "" if nothing is. IDNs
// are allowed in their ASCII form. A name such as 10.0.0.7, whose last label is a number, is refused: some
// readers parse it as an IP address.
func hostProblem(name string) string {
	if len(name) > maxHost {
		return fmt.Sprintf("has a host of %d characters: the limit is %d", len(name), maxHost)
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if problem := labelProblem(label); problem != "" {
			return problem
		}
	}
	if len(labels) > 1 && strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return "ends in a number, as IP addresses do: request an address as type IP"
	}
	return ""
}

func labelProblem(label string) string {
	switch i := strings.IndexFunc(label, notHost); {
	case label == "":
		return "has an empty label: leave out the extra dot"
	case len(label) > maxLabel:
		return fmt.Sprintf("has a label of %d characters: the limit is %d", len(label), maxLabel)
	case i >= 0:
		return fmt.Sprintf("has the character %s: host names have letters, digits, hyphens and dots", quote(label[i:i+1]))
	case label[0] == '-' || label[len(label)-1] == '-':
		return "has a label that begins or ends with a hyphen: leave out the hyphen"
	}
	return ""
}

func notHost(r rune) bool { return r != '-' && !alphanumeric(r) }

func alphanumeric(r rune) bool {
	return 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9'
}

// emailProblem returns what is wrong with an rfc822Name, "" if it is a mailbox of RFC 5321, section 4.1.2,
// that has a dot-string before the @ and a host name after it. Quoted strings and address literals
// are refused: they can hold the separators with which tools print lists of names.
func emailProblem(address string) string {
	local, host, found := strings.Cut(address, "@")
	switch i := strings.IndexFunc(local, notAtext); {
	case !found:
		return "has no @: write local-part@host"
	case len(local) > maxLocalPart:
		return fmt.Sprintf("has %d characters before the @: the limit is %d", len(local), maxLocalPart)
	case i >= 0:
		return fmt.Sprintf("has the character %s before the @, which only a quoted string can have: quoted strings are not supported", quote(local[i:i+1]))
	case slices.Contains(strings.Split(local, "."), ""):
		return "has nothing between two dots, or beside a dot, before the @: leave out the extra dot"
	}
	return hostProblem(host)
}

// notAtext reports whether r is neither a dot nor in atext (RFC 5322, section 3.2.3).
func notAtext(r rune) bool {
	return !alphanumeric(r) && !strings.ContainsRune(".!#$%&'*+-/=?^_`{|}~", r)
}

// uriProblem returns what is wrong with a URI, "" if every reader parses it alike. crypto/x509 writes the
// form of net/url into the certificate, which must have the URI that policies have evaluated.
func uriProblem(text string) string {
	if problem := uriCharacterProblem(text); problem != "" {
		return problem
	}
	uri, err := url.Parse(text)
	switch {
	case err != nil:
		return "cannot be parsed: correct it"
	case !uri.IsAbs():
		return "is relative: begin with the scheme"
	case len(text) == len(uri.Scheme)+len(":"):
		return "has nothing after the scheme: complete it"
	case uri.User != nil:
		return "has a user before the host: leave out the user"
	case uri.String() != text:
		return "is not in normal form: write " + quote(uri.String())
	case slices.ContainsFunc(strings.Split(uri.Path, "/"), func(s string) bool { return s == "." || s == ".." }):
		return "has a segment . or .. in its path: write the path without"
	case strings.HasPrefix(strings.TrimPrefix(text, uri.Scheme), "://"):
		return uriHostProblem(uri)
	}
	return ""
}

// uriCharacterProblem allows the characters of RFC 3986, but for the comma, with which tools separate
// names, and percent signs only before the code of a character that has to be encoded: a reader that
// normalizes URIs decodes the others (section 6.2.2.2).
func uriCharacterProblem(text string) string {
	for i, r := range text {
		switch {
		case r == '%':
			code, err := hex.DecodeString(text[i+1 : min(i+3, len(text))])
			if err != nil || len(code) != 1 {
				return "has a percent sign without two hexadecimal digits: write %25"
			}
			if c := rune(code[0]); alphanumeric(c) || strings.ContainsRune("-._~", c) {
				return fmt.Sprintf("is not in normal form: write %c for %s", c, text[i:i+3])
			}
		case !alphanumeric(r) && !strings.ContainsRune("-._~:/?#[]@!$&'()*+;=", r):
			return fmt.Sprintf("has the character %s: write %%%02X", quote(string(r)), r)
		}
	}
	return ""
}

// uriHostProblem checks the host of a URI that has an authority: an IP address or a host name (RFC 5280,
// section 4.2.1.6). Underscores are allowed, since trust domains of SPIFFE can have them.
func uriHostProblem(uri *url.URL) string {
	host := uri.Hostname()
	if addr, err := netip.ParseAddr(host); err == nil && addr.Zone() == "" {
		return ""
	}
	if host == "" {
		return "has no host: write it after //"
	}
	return hostProblem(strings.ReplaceAll(host, "_", "a"))
}
