// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
)

// SerialBytes: RFC 5280 (section 4.1.2.2) allows 20 octets, and the Baseline Requirements ask for 64
// random bits at least.
const SerialBytes = 16

// NewSerial returns SerialBytes random bytes as a number, never zero.
func NewSerial() *big.Int {
	for {
		var b [SerialBytes]byte
		rand.Read(b[:]) // never fails: see crypto/rand
		if serial := new(big.Int).SetBytes(b[:]); serial.Sign() > 0 {
			return serial
		}
	}
}

// SubjectKeyID is the first 160 bits of the SHA-256 of the public key in a DER SubjectPublicKeyInfo
// (RFC 7093, section 2, method 1).
func SubjectKeyID(publicKeyInfo []byte) ([]byte, error) {
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
