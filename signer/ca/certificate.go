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

// SerialBytes is the length of serial numbers. RFC 5280 (section 4.1.2.2) allows 20 octets, and the Baseline
// Requirements require at least 64 random bits.
const SerialBytes = 16

// NewSerial returns a random serial number of SerialBytes bytes. It is never zero.
func NewSerial() *big.Int {
	for {
		var b [SerialBytes]byte
		rand.Read(b[:]) // never returns an error
		if serial := new(big.Int).SetBytes(b[:]); serial.Sign() > 0 {
			return serial
		}
	}
}

// SubjectKeyID returns the first 160 bits of the SHA-256 of the public key in a DER SubjectPublicKeyInfo
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
