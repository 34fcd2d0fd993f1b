// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"

	"countersign.dev/countersign/api/v1alpha1"
)

const (
	// MaxSize is the limit of tls.crt and of tls.key, in bytes. A chain of a dozen RSA certificates fits.
	MaxSize = 64 << 10

	minRSABits = 2048

	pemCertificate  = "CERTIFICATE"
	pemECParameters = "EC PARAMETERS"
)

func invalid(format string, args ...any) *Problem {
	return Problemf(v1alpha1.ReasonInvalidCA, format, args...)
}

// ParseCertificates parses the certificates of a CA in PEM: its own, followed by its issuers, each issued by
// the next. It checks everything that does not depend on the time.
func ParseCertificates(data []byte) ([]*x509.Certificate, *Problem) {
	blocks, problem := decode("tls.crt", data)
	if problem != nil {
		return nil, problem
	}
	var certificates []*x509.Certificate
	for _, block := range blocks {
		if block.Type != pemCertificate {
			return nil, invalid("tls.crt contains a PEM block of type %q: it must contain only certificates", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, invalid("certificate %d in tls.crt is invalid: %v; issue it again, or copy it again", len(certificates)+1, err)
		}
		certificates = append(certificates, c)
	}
	return certificates, checkChain(certificates)
}

// ParseKey parses a private key in PEM: PKCS#8, PKCS#1 or SEC 1. Messages do not contain errors of the
// parsers, because some quote their input.
func ParseKey(data []byte) (crypto.Signer, *Problem) {
	blocks, problem := decode("tls.key", data)
	if problem != nil {
		return nil, problem
	}
	// openssl ecparam -genkey writes the parameters before the key, which names the curve too.
	blocks = slices.DeleteFunc(blocks, func(b *pem.Block) bool { return b.Type == pemECParameters })
	var key any
	for _, block := range blocks {
		if key != nil {
			return nil, invalid("tls.key contains more than one key: keep only the key of the CA certificate")
		}
		if key, problem = parseKeyBlock(block); problem != nil {
			return nil, problem
		}
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, invalid("the private key in tls.key cannot sign: use RSA, ECDSA or Ed25519")
	}
	if weakness := weakKey(signer.Public()); weakness != "" {
		return nil, invalid("the private key in tls.key is %s", weakness)
	}
	return signer, nil
}

func parseKeyBlock(block *pem.Block) (key any, _ *Problem) {
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, encrypted()
	default:
		return nil, invalid("tls.key contains a PEM block of type %q: it must contain only the private key", block.Type)
	}
	if block.Headers["Proc-Type"] != "" || block.Headers["DEK-Info"] != "" {
		return nil, encrypted()
	}
	if err != nil {
		return nil, invalid("the private key in tls.key is invalid: it must be RSA, ECDSA or Ed25519 in PKCS#8, PKCS#1 or SEC 1; 'openssl pkey -in tls.key' shows details")
	}
	return key, nil
}

func encrypted() *Problem {
	return invalid("the private key in tls.key is encrypted, and the signer has no passphrase: decrypt it with 'openssl pkey -in <encrypted> -out tls.key'")
}

// decode returns the PEM blocks of a file. Text around them is ignored, because tools write descriptions
// there. A damaged block, which encoding/pem skips, is a Problem.
func decode(name string, data []byte) ([]*pem.Block, *Problem) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, invalid("%s is missing or empty: both tls.crt and tls.key are required, as 'kubectl create secret tls' writes them", name)
	}
	if len(data) > MaxSize {
		return nil, invalid("%s has %d bytes: the limit is %d; remove what does not belong to this CA", name, len(data), MaxSize)
	}
	var blocks []*pem.Block
	begun := bytes.Count(data, []byte("-----BEGIN "))
	for rest := data; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		blocks = append(blocks, block)
	}
	switch {
	case begun == 0:
		return nil, invalid("%s contains no PEM block: check that it is not DER, and not encoded in base64 twice", name)
	case len(blocks) != begun:
		return nil, invalid("%s contains a damaged PEM block: %d begin, %d can be decoded; copy the whole file again", name, begun, len(blocks))
	}
	return blocks, nil
}

// weakKey returns what is wrong with a public key, or "".
func weakKey(public crypto.PublicKey) string {
	switch key := public.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits {
			return fmt.Sprintf("an RSA key of %d bits: use %d or more", bits, minRSABits)
		}
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() && key.Curve != elliptic.P521() {
			return fmt.Sprintf("an ECDSA key on curve %s: use P-256, P-384 or P-521", key.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return "a key of unknown type: use RSA, ECDSA or Ed25519"
	}
	return ""
}
