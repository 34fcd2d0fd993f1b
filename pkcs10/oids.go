// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import "strings"

// microsoftArc has the types of Microsoft. certreq and the Windows API add some to every request.
const microsoftArc = "1.3.6.1.4.1.311."

// describe returns an OID for a message, with its name if it is known.
func describe(oid string) string {
	if words, ok := oidWords[oid]; ok {
		return oid + " (" + words + ")"
	}
	if strings.HasPrefix(oid, microsoftArc) {
		return short(oid) + " (of Microsoft)"
	}
	return short(oid)
}

var oidWords = map[string]string{
	// Subject attributes.
	oidCommonName:               "common name",
	oidOrganization:             "organization",
	oidOrganizationalUnit:       "organizational unit",
	oidDomainComponent:          "domain component",
	"0.9.2342.19200300.100.1.1": "user ID",
	"2.5.4.4":                   "surname",
	"2.5.4.5":                   "serial number",
	"2.5.4.6":                   "country",
	"2.5.4.7":                   "locality",
	"2.5.4.8":                   "state or province",
	"2.5.4.9":                   "street address",
	"2.5.4.12":                  "title",
	"2.5.4.13":                  "description",
	"2.5.4.15":                  "business category",
	"2.5.4.17":                  "postal code",
	"2.5.4.42":                  "given name",
	"2.5.4.46":                  "DN qualifier",
	"2.5.4.97":                  "organization identifier",
	"1.2.840.113549.1.9.1":      "email address",
	"1.3.6.1.4.1.311.60.2.1.1":  "jurisdiction locality",
	"1.3.6.1.4.1.311.60.2.1.2":  "jurisdiction state or province",
	"1.3.6.1.4.1.311.60.2.1.3":  "jurisdiction country",

	// PKCS#10 attributes. The unstructured ones can be in a subject too.
	oidExtensionRequest:      "extension request",
	"1.2.840.113549.1.9.2":   "unstructured name",
	"1.2.840.113549.1.9.7":   "challenge password",
	"1.2.840.113549.1.9.8":   "unstructured address",
	"1.3.6.1.4.1.311.2.1.14": "extension request of Microsoft",
	"1.3.6.1.4.1.311.13.2.1": "enrollment name and value",
	"1.3.6.1.4.1.311.13.2.2": "enrollment CSP",
	"1.3.6.1.4.1.311.13.2.3": "Windows version",
	"1.3.6.1.4.1.311.21.20":  "client information of Microsoft",

	// Extensions.
	oidSubjectAltName:        "subject alternative name",
	oidKeyUsage:              "key usage",
	oidExtendedKeyUsage:      "extended key usage",
	oidBasicConstraints:      "basic constraints",
	oidSubjectKeyIdentifier:  "subject key identifier",
	"2.5.29.9":               "subject directory attributes",
	"2.5.29.16":              "private key usage period",
	"2.5.29.18":              "issuer alternative name",
	"2.5.29.30":              "name constraints",
	"2.5.29.31":              "CRL distribution points",
	"2.5.29.32":              "certificate policies",
	"2.5.29.35":              "authority key identifier",
	"1.2.840.113549.1.9.15":  "S/MIME capabilities",
	"1.3.6.1.4.1.311.20.2":   "certificate template name of Microsoft",
	"1.3.6.1.4.1.311.21.7":   "certificate template of Microsoft",
	"1.3.6.1.4.1.311.21.10":  "application policies of Microsoft",
	"1.3.6.1.4.1.311.25.2":   "security identifier of Microsoft",
	"1.3.6.1.5.5.7.1.1":      "authority information access",
	"1.3.6.1.5.5.7.1.24":     "TLS feature, such as must-staple",
	"2.16.840.1.113730.1.1":  "Netscape certificate type",
	"2.16.840.1.113730.1.13": "Netscape comment",

	// Extended key usages.
	"1.3.6.1.4.1.311.10.3.4": "encrypting file system",
	"1.3.6.1.4.1.311.20.2.2": "smart card logon",
	"1.3.6.1.5.2.3.4":        "Kerberos client authentication",
	"1.3.6.1.5.2.3.5":        "Kerberos server authentication",
	"1.3.6.1.5.5.7.3.17":     "IPsec IKE",
	"1.3.6.1.5.5.7.3.21":     "SSH client",
	"1.3.6.1.5.5.7.3.22":     "SSH server",

	// Algorithms of keys and signatures, and curves.
	oidRSAPrefix + "1":      "RSA",
	oidPSS:                  "RSASSA-PSS",
	oidRSAPrefix + "11":     "RSA with SHA-256",
	oidRSAPrefix + "12":     "RSA with SHA-384",
	oidRSAPrefix + "13":     "RSA with SHA-512",
	oidRSAPrefix + "14":     "RSA with SHA-224",
	"1.2.840.10040.4.1":     "DSA",
	"1.2.840.10045.4.3.1":   "ECDSA with SHA-224",
	"1.2.840.10045.4.3.2":   "ECDSA with SHA-256",
	"1.2.840.10045.4.3.3":   "ECDSA with SHA-384",
	"1.2.840.10045.4.3.4":   "ECDSA with SHA-512",
	"1.3.101.110":           "X25519",
	oidEd25519:              "Ed25519",
	"1.3.101.113":           "Ed448",
	"1.3.132.0.10":          "secp256k1",
	"1.3.132.0.33":          "P-224",
	"1.3.36.3.3.2.8.1.1.7":  "brainpoolP256r1",
	"1.3.36.3.3.2.8.1.1.11": "brainpoolP384r1",
	"1.2.156.10197.1.301":   "SM2",
}
