// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/netip"
	"net/url"
	"slices"
)

// crossCheck reads der with crypto/x509 and compares the results. subject is every attribute of
// the subject, in order. The signer creates certificates with crypto/x509, and clients verify
// them with it: a request that it reads differently would be reviewed for one set of names and
// used for another.
func crossCheck(request *Request, subject []Attribute, der []byte) error {
	other, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return malformed("crypto/x509 cannot read the request: %s", quoteUpTo(err.Error(), 2*maxQuoted))
	}
	if part := difference(request, subject, other); part != "" {
		return malformed("crypto/x509 reads %s from this request", part)
	}
	return nil
}

// difference returns the part in which the two readings of a request differ, "" if they are equal.
func difference(request *Request, subject []Attribute, other *x509.CertificateRequest) string {
	switch {
	case !bytes.Equal(request.RawSubjectPublicKeyInfo, other.RawSubjectPublicKeyInfo),
		!sameKey(request.PublicKey, other.PublicKey):
		return "another public key"
	case !slices.EqualFunc(subject, other.Subject.Names, sameAttribute),
		request.Subject.CommonName != other.Subject.CommonName,
		!slices.Equal(request.Subject.Organizations, other.Subject.Organization),
		!slices.Equal(request.Subject.OrganizationalUnits, other.Subject.OrganizationalUnit):
		return "another subject"
	case !slices.Equal(request.DNSNames, other.DNSNames):
		return "other DNS names"
	case !slices.EqualFunc(request.IPAddresses, other.IPAddresses, sameAddress):
		return "other IP addresses"
	case !slices.EqualFunc(request.URIs, other.URIs, sameURI):
		return "other URIs"
	case !slices.Equal(request.EmailAddresses, other.EmailAddresses):
		return "other email addresses"
	default:
		return ""
	}
}

func sameKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

func sameAttribute(a Attribute, b pkix.AttributeTypeAndValue) bool {
	value, ok := b.Value.(string)
	return ok && value == a.Value && b.Type.String() == a.OID
}

func sameAddress(a netip.Addr, b net.IP) bool { return bytes.Equal(a.AsSlice(), b) }

func sameURI(a string, b *url.URL) bool { return b.String() == a }
