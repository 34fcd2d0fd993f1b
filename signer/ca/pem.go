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

	"countersign.dev/countersign/api/v1alpha1"
)

const (
	// maxSize of each of tls.crt and tls.key, in bytes. A chain of a dozen RSA certificates fits.
	maxSize = 64 << 10

	minRSABits = 2048

	pemCertificate = "CERTIFICATE"
)

func invalid(format string, args ...any) *Problem {
	return problemf(v1alpha1.ReasonInvalidCA, format, args...)
}

// parseCertificates reads one certificate or more.
func parseCertificates(data []byte) ([]*x509.Certificate, *Problem) {
	blocks, problem := decode("tls.crt", data)
	if problem != nil {
		return nil, problem
	}
	var certificates []*x509.Certificate
	for _, block := range blocks {
		if block.Type != pemCertificate {
			return nil, invalid("tls.crt holds a PEM block of type %q: put certificates there and nothing else", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, invalid("certificate %d in tls.crt cannot be read: %v; have it issued again, or copy it again", len(certificates)+1, err)
		}
		certificates = append(certificates, c)
	}
	return certificates, nil
}

// parseKey reads the one private key. Errors of the parsers are not passed on: some quote
// what they read.
func parseKey(data []byte) (crypto.Signer, *Problem) {
	blocks, problem := decode("tls.key", data)
	if problem != nil {
		return nil, problem
	}
	var key any
	for _, block := range blocks {
		if block.Type == "EC PARAMETERS" {
			continue // openssl ecparam -genkey writes one before the key, which names the curve too
		}
		if key != nil {
			return nil, invalid("tls.key holds more than one key: keep the one of the CA certificate")
		}
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
			return nil, invalid("tls.key holds a PEM block of type %q: put the private key there", block.Type)
		}
		if block.Headers["Proc-Type"] != "" || block.Headers["DEK-Info"] != "" {
			return nil, encrypted()
		}
		if err != nil {
			return nil, invalid("the private key in tls.key cannot be read: it must be RSA, ECDSA or Ed25519 in PKCS#8, PKCS#1 or SEC 1; 'openssl pkey -in tls.key' shows more")
		}
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, invalid("tls.key holds no private key that can sign: use RSA, ECDSA or Ed25519")
	}
	if problem := weakKey(signer.Public()); problem != "" {
		return nil, invalid("the private key in tls.key is %s", problem)
	}
	return signer, nil
}

func encrypted() *Problem {
	return invalid("the private key in tls.key is encrypted, and there is no one to ask for the passphrase: decrypt it with 'openssl pkey -in <encrypted> -out tls.key'")
}

// decode reads PEM blocks. Text around them is let pass, as tools put descriptions there, but
// not a block that encoding/pem would skip because it is damaged.
func decode(name string, data []byte) ([]*pem.Block, *Problem) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, invalid("%s is missing or empty: put both tls.crt and tls.key there, as 'kubectl create secret tls' does", name)
	}
	if len(data) > maxSize {
		return nil, invalid("%s has %d bytes: the limit is %d; keep what belongs to this CA, and nothing else", name, len(data), maxSize)
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
		return nil, invalid("%s holds no PEM block: is it DER, or encoded in base64 twice?", name)
	case len(blocks) != begun:
		return nil, invalid("%s holds a damaged PEM block: %d begin, %d can be read; copy it again, from its first line to its last", name, begun, len(blocks))
	}
	return blocks, nil
}

// weakKey says what is wrong with a public key, or "".
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
		return "a key of an unknown kind: use RSA, ECDSA or Ed25519"
	}
	return ""
}
