// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
)

// KeyStore creates, opens and destroys the private keys of managed CAs. A key need not be exportable: the Secret of
// the CA holds a reference to it, in tls.key beside the certificate, so that certificate and key are replaced
// together.
//
// Create and Open return a Problem if a user must fix something before the key can be used, and an error if the caller
// must retry.
type KeyStore interface {
	// Create creates a key, and returns it with its reference.
	Create(ctx context.Context, algorithm v1alpha1.KeyAlgorithm) (crypto.Signer, KeyReference, *ca.Problem, error)
	// Open returns the key of a reference.
	Open(ctx context.Context, reference KeyReference) (crypto.Signer, *ca.Problem, error)
	// Destroy deletes the key of a reference that no Secret refers to. A key remains in the store if the process
	// ends or the Secret cannot be written before its reference is stored.
	Destroy(ctx context.Context, reference KeyReference) error
}

// KeyReference identifies a key in its [KeyStore].
type KeyReference []byte

// SecretKeys is the [KeyStore] that keeps the keys in the Secrets of the CAs themselves: the reference of a key is its
// PKCS#8 encoding in PEM.
type SecretKeys struct{}

// Create implements [KeyStore].
func (SecretKeys) Create(_ context.Context, algorithm v1alpha1.KeyAlgorithm) (crypto.Signer, KeyReference, *ca.Problem, error) {
	key, problem, err := generateKey(algorithm)
	if problem != nil || err != nil {
		return nil, nil, problem, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("encoding the key of a CA: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil, nil
}

// Open implements [KeyStore].
func (SecretKeys) Open(_ context.Context, reference KeyReference) (crypto.Signer, *ca.Problem, error) {
	key, problem := ca.ParseKey(reference)
	return key, problem, nil
}

// Destroy implements [KeyStore]. The Secret no longer contains the key.
func (SecretKeys) Destroy(context.Context, KeyReference) error { return nil }

func generateKey(algorithm v1alpha1.KeyAlgorithm) (key crypto.Signer, _ *ca.Problem, err error) {
	switch algorithm {
	case v1alpha1.KeyECDSAP256, "":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case v1alpha1.KeyECDSAP384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case v1alpha1.KeyEd25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case v1alpha1.KeyRSA2048:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case v1alpha1.KeyRSA3072:
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	case v1alpha1.KeyRSA4096:
		key, err = rsa.GenerateKey(rand.Reader, 4096)
	default:
		return nil, ca.Problemf(v1alpha1.ReasonInvalidCA, "spec.ca.managed.keyAlgorithm is %q: use one of %v", algorithm, []v1alpha1.KeyAlgorithm{
			v1alpha1.KeyECDSAP256, v1alpha1.KeyECDSAP384, v1alpha1.KeyEd25519, v1alpha1.KeyRSA2048, v1alpha1.KeyRSA3072, v1alpha1.KeyRSA4096,
		}), nil
	}
	return key, nil, err
}
