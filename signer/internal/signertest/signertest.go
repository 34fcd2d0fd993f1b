// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package signertest makes keys, CAs and approved requests for tests.
package signertest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"sync"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/signer/ca"
)

// SignerName is the signerName of the requests.
const SignerName = "example.com/serving"

// Now is the time of the tests. The CAs are valid then, and the requests are approved then.
var Now = time.Date(2026, 3, 1, 12, 0, 0, 500_000_000, time.UTC)

// KeySet is a private key of each algorithm.
type KeySet struct {
	EC  *ecdsa.PrivateKey
	RSA *rsa.PrivateKey
	Ed  ed25519.PrivateKey
}

// Keys returns the same keys on each call: generating an RSA key is slow.
var Keys = sync.OnceValue(func() (k KeySet) {
	var errs [3]error
	k.EC, errs[0] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	k.RSA, errs[1] = rsa.GenerateKey(rand.Reader, 2048)
	_, k.Ed, errs[2] = ed25519.GenerateKey(rand.Reader)
	if err := errors.Join(errs[:]...); err != nil {
		panic(err)
	}
	return k
})

// NewCA returns a self-signed CA that has the key and expires ten years after [Now]. The function
// change, which may be nil, alters the CA certificate before it is signed.
func NewCA(t testing.TB, key crypto.Signer, change func(*x509.Certificate)) *ca.CA {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"},
		NotBefore: Now.AddDate(-1, 0, 0), NotAfter: Now.AddDate(10, 0, 0),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	authority, problem := ca.Load(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), Now)
	if problem != nil {
		t.Fatal(problem)
	}
	return authority
}

// NewCSR returns an approved request for the DNS name web.example, signed by key. The functions request and
// object, which may be nil, alter the PKCS#10 request and the object.
func NewCSR(t testing.TB, key crypto.Signer, request func(*x509.CertificateRequest), object func(*certificatesv1.CertificateSigningRequest)) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "web.example"}, DNSNames: []string{"web.example"}}
	if request != nil {
		request(template)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	csr := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "web", UID: "uid-1"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			SignerName: SignerName,
			Usages:     []certificatesv1.KeyUsage{"digital signature", "key encipherment", "server auth"},
		},
	}
	csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{ConditionOf(certificatesv1.CertificateApproved)}
	if object != nil {
		object(csr)
	}
	return csr
}

// ConditionOf returns a condition of the type that is true since [Now].
func ConditionOf(kind certificatesv1.RequestConditionType) certificatesv1.CertificateSigningRequestCondition {
	return certificatesv1.CertificateSigningRequestCondition{Type: kind, Status: corev1.ConditionTrue, Reason: "Test", LastUpdateTime: metav1.NewTime(Now)}
}

// Approved sets the time of the approval of a request that [NewCSR] makes.
func Approved(at time.Time) func(*certificatesv1.CertificateSigningRequest) {
	return func(c *certificatesv1.CertificateSigningRequest) {
		c.Status.Conditions[0].LastUpdateTime = metav1.NewTime(at)
	}
}

// Usages sets spec.usages.
func Usages(list ...certificatesv1.KeyUsage) func(*certificatesv1.CertificateSigningRequest) {
	return func(c *certificatesv1.CertificateSigningRequest) { c.Spec.Usages = list }
}

// Expiration sets spec.expirationSeconds.
func Expiration(seconds int32) func(*certificatesv1.CertificateSigningRequest) {
	return func(c *certificatesv1.CertificateSigningRequest) { c.Spec.ExpirationSeconds = &seconds }
}
