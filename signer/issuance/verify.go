// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
)

// checkCA returns a problem if the CA cannot issue certificates with these usages that are valid for the
// given time.
func checkCA(now time.Time, authority *ca.CA, usages []certificatesv1.KeyUsage, lifetime time.Duration) *ca.Problem {
	if problem := authority.ValidAt(now, lifetime); problem != nil {
		return problem
	}
	for _, usage := range usages {
		if id, ok := extKeyUsages[usage]; ok && !authority.Permits(id) {
			return ca.Problemf(v1alpha1.ReasonInvalidCA,
				"the CA certificate, or one of its issuers, limits its extended key usages and does not list %q: use another CA, or remove the usage from spec.certificate.usages", usage)
		}
	}
	return nil
}

// throwawayKey signs certificates that are only verified. Nothing trusts it.
var throwawayKey = sync.OnceValues(func() (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
})

// verify checks a draft as a relying party would: against the CA and each of its issuers. The draft is
// signed with a throwaway key in the name of the CA. The request itself is valid by then, so a problem
// is one of the CA.
func verify(now time.Time, d *draft) (*ca.Problem, error) {
	key, err := throwawayKey()
	if err != nil {
		return nil, fmt.Errorf("generating the throwaway key: %w", err)
	}
	// A copy of the CA certificate with another key keeps its name, constraints and identifiers.
	issuer := *d.expected.issuer
	issuer.PublicKey, issuer.PublicKeyAlgorithm = key.Public(), x509.ECDSA
	der, err := x509.CreateCertificate(rand.Reader, d.template, &issuer, d.expected.request.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("creating a certificate to verify: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parsing the certificate to verify: %w", err)
	}
	chain := append([]*x509.Certificate{&issuer}, d.ca.Issuers()...)
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(chain[len(chain)-1])
	for _, c := range chain[:len(chain)-1] {
		intermediates.AddCert(c)
	}
	_, err = certificate.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // checkCA checks the extended key usages
	})
	if err == nil {
		return nil, nil
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.CANotAuthorizedForThisName {
		return ca.Problemf(ReasonNameNotPermitted,
			"the name constraints of the CA %q or its issuers reject the request: %v. Use a CA that permits the names, or a policy that denies them",
			issuer.Subject, err), nil
	}
	return ca.Problemf(v1alpha1.ReasonInvalidCA, "relying parties would reject certificates of the CA %q: %v. Use another CA", issuer.Subject, err), nil
}
