// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/pkcs10"
)

// serialBytes: RFC 5280 (section 4.1.2.2) allows 20 octets, and the Baseline Requirements ask for 64
// random bits at least.
const serialBytes = 16

// checkSubject refuses what has no place in a certificate of ours.
func checkSubject(request *pkcs10.Request) error {
	if len(request.Subject.Other) > 0 {
		return refusef(ReasonSubjectNotAllowed,
			"the subject has the attribute %s: leave out all but common name, organization and organizational unit",
			request.Subject.Other[0].OID)
	}
	if request.Subject.CommonName == "" &&
		len(request.DNSNames)+len(request.IPAddresses)+len(request.URIs)+len(request.EmailAddresses) == 0 {
		return refusef(ReasonSubjectNotAllowed, "the request has neither a common name nor a subject alternative name: a certificate must name somebody")
	}
	return nil
}

// grantUsages returns the usages to issue: those of spec.usages that make sense for the key.
func grantUsages(asked []certificatesv1.KeyUsage, request *pkcs10.Request, profile Profile) ([]certificatesv1.KeyUsage, error) {
	for _, usage := range asked {
		if !slices.Contains(profile.usages, usage) {
			return nil, refusef(ReasonUsageNotAllowed, "usage %q is not among those of the Signer: %s", usage, quoteAll(profile.usages))
		}
	}
	for _, usage := range request.Usages {
		if !slices.Contains(asked, usage) {
			return nil, refusef(ReasonUsageNotAllowed, "the PKCS#10 asks for usage %q, which is not in spec.usages: let the two agree", usage)
		}
	}
	// "key encipherment" is dropped, not refused, for keys that cannot encipher. RFC 5480 (section 3)
	// and RFC 8410 (section 5) forbid it in their certificates, yet most requests name it
	// whatever their key, those of the Kubernetes documentation among them.
	granted := slices.DeleteFunc(slices.Clone(asked), func(usage certificatesv1.KeyUsage) bool {
		return usage == certificatesv1.UsageKeyEncipherment && request.Key.Algorithm != "RSA"
	})
	// A certificate without one of the two extensions is good for every usage that the extension
	// could name (RFC 5280, sections 4.2.1.3 and 4.2.1.12), which is more than was asked.
	if !slices.ContainsFunc(granted, func(u certificatesv1.KeyUsage) bool { _, ok := keyUsages[u]; return ok }) {
		return nil, refusef(ReasonUsageNotAllowed,
			`for a key of type %s the usages %s leave the certificate without a key usage, which would allow every one: ask for "digital signature"`,
			request.Key.Algorithm, quoteAll(asked))
	}
	if !slices.ContainsFunc(granted, func(u certificatesv1.KeyUsage) bool { _, ok := extKeyUsages[u]; return ok }) {
		return nil, refusef(ReasonUsageNotAllowed,
			`the usages %s leave the certificate without an extended key usage, which would allow every one: ask for "server auth" or "client auth"`,
			quoteAll(asked))
	}
	return granted, nil
}

// newTemplate builds a certificate from verified fields.
func newTemplate(request *pkcs10.Request, usages []certificatesv1.KeyUsage, notBefore, notAfter time.Time) (*x509.Certificate, error) {
	keyID, err := subjectKeyID(request.RawSubjectPublicKeyInfo)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: newSerial(),
		Subject: pkix.Name{
			CommonName:         request.Subject.CommonName,
			Organization:       request.Subject.Organizations,
			OrganizationalUnit: request.Subject.OrganizationalUnits,
		},
		NotBefore:             notBefore.UTC().Truncate(time.Second),
		NotAfter:              notAfter.UTC().Truncate(time.Second),
		DNSNames:              request.DNSNames,
		EmailAddresses:        request.EmailAddresses,
		BasicConstraintsValid: true, // with IsCA false: a critical extension that says it is no CA
		SubjectKeyId:          keyID,
	}
	for _, usage := range usages {
		t.KeyUsage |= keyUsages[usage]
		if extended, ok := extKeyUsages[usage]; ok {
			t.ExtKeyUsage = append(t.ExtKeyUsage, extended)
		}
	}
	for _, ip := range request.IPAddresses {
		t.IPAddresses = append(t.IPAddresses, net.IP(ip.AsSlice()))
	}
	for _, text := range request.URIs {
		uri, err := url.Parse(text)
		if err != nil {
			return nil, refusef(ReasonLintFailed, "URI %q cannot be parsed", text)
		}
		t.URIs = append(t.URIs, uri)
	}
	return t, nil
}

// newSerial returns 128 random bits, never zero.
func newSerial() *big.Int {
	for {
		var b [serialBytes]byte
		rand.Read(b[:]) // never fails: see crypto/rand
		if serial := new(big.Int).SetBytes(b[:]); serial.Sign() > 0 {
			return serial
		}
	}
}

// subjectKeyID is the first 160 bits of the SHA-256 of the public key (RFC 7093, section 2, method 1).
func subjectKeyID(publicKeyInfo []byte) ([]byte, error) {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		PublicKey asn1.BitString
	}
	if _, err := asn1.Unmarshal(publicKeyInfo, &info); err != nil {
		return nil, fmt.Errorf("reading public key: %w", err)
	}
	digest := sha256.Sum256(info.PublicKey.Bytes)
	return digest[:20], nil
}
