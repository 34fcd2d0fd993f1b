// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"crypto/x509"
	"errors"
)

// checkChain checks the certificates of a CA, each issued by the next.
func checkChain(certificates []*x509.Certificate) *Problem {
	for i, c := range certificates {
		if problem := checkCertificate(c); problem != nil {
			return problem
		}
		if i == 0 {
			continue
		}
		// RFC 5280, section 4.2.1.9: the number of CAs between this one and a certificate of the first.
		if c.MaxPathLen >= 0 && c.MaxPathLen < i {
			return invalid("the certificate %s allows at most %d CAs below it, and there are %d: use an issuer with a longer path length, or sign with a CA further up",
				describe(c), c.MaxPathLen, i)
		}
		if problem := checkIssuer(certificates[i-1], c); problem != nil {
			return problem
		}
	}
	return nil
}

// checkCertificate checks one CA certificate on its own.
func checkCertificate(c *x509.Certificate) *Problem {
	switch {
	case !c.BasicConstraintsValid || !c.IsCA:
		return invalid("the certificate %s is not a CA certificate: its basic constraints must be CA:TRUE", describe(c))
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return invalid("the certificate %s cannot sign certificates: its key usage must include certificate sign (keyCertSign)", describe(c))
	case len(c.RawSubject) == 0 || bytes.Equal(c.RawSubject, emptySequence):
		return invalid("the certificate %s has no subject: an issuer requires one (RFC 5280, section 4.1.2.6)", describe(c))
	case len(c.UnhandledCriticalExtensions) > 0:
		return invalid("the certificate %s has a critical extension %s that TLS clients reject: issue the CA certificate without it",
			describe(c), c.UnhandledCriticalExtensions[0])
	}
	if weakness := weakKey(c.PublicKey); weakness != "" {
		return invalid("the certificate %s has %s", describe(c), weakness)
	}
	return nil
}

// checkIssuer checks that issuer issued c.
func checkIssuer(c, issuer *x509.Certificate) *Problem {
	if err := c.CheckSignatureFrom(issuer); err != nil {
		if insecure, ok := errors.AsType[x509.InsecureAlgorithmError](err); ok {
			return invalid("the certificate %s is signed with %s, which TLS clients reject: issue it again with SHA-256 or stronger",
				describe(c), x509.SignatureAlgorithm(insecure))
		}
		return invalid("the certificate %s is not issued by the next one, %s: put the CA certificate first, followed by each of its issuers",
			describe(c), describe(issuer))
	}
	if !bytes.Equal(c.RawIssuer, issuer.RawSubject) {
		return invalid("the issuer of the certificate %s differs from the subject of the next one, %s", describe(c), describe(issuer))
	}
	return nil
}

var emptySequence = []byte{0x30, 0x00}

// isRoot reports whether a certificate is signed with its own key.
func isRoot(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) &&
		c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}
