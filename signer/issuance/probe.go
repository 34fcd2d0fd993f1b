// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"math/big"
	"sync"
	"time"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/pkcs10"
	"countersign.dev/countersign/signer/ca"
)

// probeName differs from the subject of any CA: a certificate with the subject of its CA gets no
// authority key identifier.
const probeName = "probe by countersign.dev"

// Probe returns a problem if the Profile and the CA cannot issue any certificate now. For each key
// algorithm of the Profile it drafts, lints and verifies a certificate; it signs none with the key of
// the CA. [Prepare] refuses a request that fails lint only if Probe returns nil.
func (p Profile) Probe(now time.Time, authority *ca.CA) *ca.Problem {
	if problem := checkCA(now, authority, p.usages, p.minDuration); problem != nil {
		return problem
	}
	p.subject = []v1alpha1.SubjectAttribute{v1alpha1.SubjectCommonName} // name constraints do not limit common names
	for _, algorithm := range p.keyAlgorithms {
		if _, problem := fitUsages(p.usages, algorithm); problem != nil {
			continue // NewProfile has found an algorithm that the usages fit
		}
		problem, err := p.probe(now, algorithm, authority)
		if err != nil {
			return unusable(authority, err.Error())
		}
		if problem != nil {
			return problem
		}
	}
	return nil
}

// probe tries one key algorithm.
func (p *Profile) probe(now time.Time, algorithm string, authority *ca.CA) (*ca.Problem, error) {
	keys, err := probeKeys()
	if err != nil {
		return nil, err
	}
	t, problem := newTerms(&pkcs10.Request{
		Subject:                 pkcs10.Subject{CommonName: probeName},
		PublicKey:               keys[algorithm].public,
		RawSubjectPublicKeyInfo: keys[algorithm].der,
		Key:                     pkcs10.Key{Algorithm: algorithm},
	}, p.usages, nil, p)
	if problem != nil {
		return unusable(authority, problem.Reason+": "+problem.Message), nil
	}
	d, err := newDraft(now, t, authority)
	if err != nil {
		return nil, err
	}
	// NewProfile accepts neither URLs nor usages that fail lint, so a lint that fails is the CA's problem.
	if _, problem := lint(d); problem != nil {
		return unusable(authority, problem.Reason+": "+problem.Message), nil
	}
	return verify(now, d)
}

func unusable(authority *ca.CA, why string) *ca.Problem {
	return ca.Problemf(v1alpha1.ReasonInvalidCA,
		"the CA %q cannot issue a valid certificate: %s; use a CA whose own certificate conforms to RFC 5280 and has a subject key identifier",
		authority.Certificate().Subject, why)
}

type probeKey struct {
	public crypto.PublicKey
	der    []byte // SubjectPublicKeyInfo
}

// probeKeys returns a public key of each algorithm. Only the ECDSA key has a private key: generating an
// RSA key is slow.
var probeKeys = sync.OnceValues(func() (map[string]probeKey, error) {
	throwaway, err := throwawayKey()
	if err != nil {
		return nil, fmt.Errorf("generating the throwaway key: %w", err)
	}
	keys := map[string]probeKey{}
	for algorithm, public := range map[string]crypto.PublicKey{
		"RSA":     &rsa.PublicKey{N: new(big.Int).SetBytes(bytes.Repeat([]byte{0xab}, 256)), E: 65537},
		"ECDSA":   throwaway.Public(),
		"Ed25519": ed25519.PublicKey(bytes.Repeat([]byte{0xab}, ed25519.PublicKeySize)),
	} {
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			return nil, fmt.Errorf("encoding a public key: %w", err)
		}
		keys[algorithm] = probeKey{public, der}
	}
	return keys, nil
})
