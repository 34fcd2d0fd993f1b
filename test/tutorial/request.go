// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package tutorial

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net"
	"net/url"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// SignerName is the signer of the Kubernetes page.
const SignerName = "example.com/serving"

// serving are the usages of the Kubernetes page.
var serving = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageServerAuth}

// Ask is a certificate request to make.
type Ask struct {
	DNSNames   []string
	IPs        []string
	URIs       []string
	CommonName string
	// Organization, if not empty.
	Organization string
	// Usages; the page's own if nil.
	Usages []certificatesv1.KeyUsage
	// SignerName; the page's own if empty.
	SignerName string
	// CA asks for a CA certificate.
	CA bool
	// Key to use; a new P-256 key if nil.
	Key crypto.Signer
	// PKCS10 replaces all of the above but Usages and SignerName: somebody's bytes, replayed.
	PKCS10 []byte
}

// PEM is the PKCS#10 request, and the key that signed it.
func (a Ask) PEM() ([]byte, crypto.Signer, error) {
	if a.PKCS10 != nil {
		return a.PKCS10, a.Key, nil
	}
	key := a.Key
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, nil, err
		}
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: a.CommonName}, DNSNames: a.DNSNames}
	if a.Organization != "" {
		template.Subject.Organization = []string{a.Organization}
	}
	for _, ip := range a.IPs {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(ip))
	}
	for _, text := range a.URIs {
		uri, err := url.Parse(text)
		if err != nil {
			return nil, nil, err
		}
		template.URIs = append(template.URIs, uri)
	}
	if a.CA {
		value, err := asn1.Marshal(struct{ CA bool }{true})
		if err != nil {
			return nil, nil, err
		}
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: value})
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), key, nil
}

// Create makes the request in the cluster under the credentials of config.
func (a Ask) Create(ctx context.Context, config *rest.Config, name string) (*certificatesv1.CertificateSigningRequest, crypto.Signer, error) {
	create, err := NewCreator(config)
	if err != nil {
		return nil, nil, err
	}
	return create(ctx, a, name)
}

// Creator makes requests in the cluster.
type Creator func(ctx context.Context, ask Ask, name string) (*certificatesv1.CertificateSigningRequest, crypto.Signer, error)

// NewCreator makes one with the credentials of config, for many requests.
func NewCreator(config *rest.Config) (Creator, error) {
	clientset, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, a Ask, name string) (*certificatesv1.CertificateSigningRequest, crypto.Signer, error) {
		request, key, err := a.PEM()
		if err != nil {
			return nil, nil, err
		}
		usages, signerName := a.Usages, a.SignerName
		if usages == nil {
			usages = serving
		}
		if signerName == "" {
			signerName = SignerName
		}
		csr, err := clientset.CertificatesV1().CertificateSigningRequests().Create(ctx, &certificatesv1.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       certificatesv1.CertificateSigningRequestSpec{Request: request, SignerName: signerName, Usages: usages},
		}, metav1.CreateOptions{})
		return csr, key, err
	}, nil
}

// Condition returns the first condition of a request of one of some types, or nil.
func Condition(csr *certificatesv1.CertificateSigningRequest, types ...certificatesv1.RequestConditionType) *certificatesv1.CertificateSigningRequestCondition {
	for i := range csr.Status.Conditions {
		if slices.Contains(types, csr.Status.Conditions[i].Type) {
			return &csr.Status.Conditions[i]
		}
	}
	return nil
}

// wait is how long a verdict or a certificate may take on a busy machine. Nothing asserts less.
const wait = 90 * time.Second
