// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/pkcs10"
	"countersign.dev/countersign/signer/ca"
)

// probeName is none that a CA has: a certificate with the subject of its CA has no authority key identifier.
const probeName = "probe by countersign.dev"

// Probe returns a [*ca.Problem] if nothing can be issued by the profile under the CA now, whatever is
// asked. For each kind of key it has a certificate made and linted that names nobody real; the key of the CA
// signs none of them. A request is refused for its own sake only while Probe returns nil.
func (p Profile) Probe(now time.Time, authority *ca.CA) error {
	if err := authority.ValidAt(now, p.minDuration); err != nil {
		return err
	}
	if fault := permits(authority, p.usages); fault != nil {
		return fault
	}
	err := p.probe(now, authority)
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*ca.Problem](err); ok {
		return err
	}
	// Neither URLs nor usages that NewProfile lets pass fail a lint, so it is the CA's.
	return &ca.Problem{
		Reason:  v1alpha1.ReasonInvalidCA,
		Message: fmt.Sprintf("no certificate of the CA %q passes: %v; use a CA whose own certificate is by RFC 5280, with a subject key identifier", authority.Certificate().Subject, err),
	}
}

func (p Profile) probe(now time.Time, authority *ca.CA) error {
	keys, err := probeKeys()
	if err != nil {
		return err
	}
	// A common name alone, which name constraints do not touch.
	p.subject = []v1alpha1.SubjectAttribute{v1alpha1.SubjectCommonName}
	for _, algorithm := range p.keyAlgorithms {
		if _, err := fitUsages(p.usages, algorithm); err != nil {
			continue // of one of them it fits: see NewProfile
		}
		key := keys[algorithm]
		request := &pkcs10.Request{
			Subject:   pkcs10.Subject{CommonName: probeName},
			PublicKey: key.public, RawSubjectPublicKeyInfo: key.der, Key: pkcs10.Key{Algorithm: algorithm},
		}
		d, err := newDraft(now, request, p.usages, nil, &p, authority)
		if err != nil {
			return err
		}
		if _, err := lint(d); err != nil {
			return err
		}
		if err := verify(now, d); err != nil {
			return err
		}
	}
	return nil
}

type probeKey struct {
	public crypto.PublicKey
	der    []byte // SubjectPublicKeyInfo
}

// probeKeys returns a public key of each kind. But for ECDSA they only look like one: nobody has their
// private key, which need not be made.
var probeKeys = sync.OnceValues(func() (map[string]probeKey, error) {
	throwaway, err := throwawayKey()
	if err != nil {
		return nil, err
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
