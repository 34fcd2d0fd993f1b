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

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// SignerName is the signer of the Kubernetes page.
const SignerName = "example.com/serving"

// servingUsages are the usages of the Kubernetes page.
var servingUsages = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageServerAuth}

// Request describes a CertificateSigningRequest.
type Request struct {
	DNSNames   []string
	IPs        []string
	URIs       []string
	CommonName string
	// Organization is one organization of the subject, or empty.
	Organization string
	// Usages default to those of the Kubernetes page.
	Usages []certificatesv1.KeyUsage
	// SignerName defaults to that of the Kubernetes page.
	SignerName string
	// CA requests a CA certificate.
	CA bool
	// Key defaults to a new P-256 key.
	Key crypto.Signer
	// PKCS10 replaces all fields above except Usages and SignerName: bytes to replay.
	PKCS10 []byte
}

// PEM returns the PKCS#10 request and the key that signed it.
func (r Request) PEM() ([]byte, crypto.Signer, error) {
	if r.PKCS10 != nil {
		return r.PKCS10, r.Key, nil
	}
	key := r.Key
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, nil, err
		}
	}
	template, err := r.template()
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), key, nil
}

func (r Request) template() (*x509.CertificateRequest, error) {
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: r.CommonName}, DNSNames: r.DNSNames}
	if r.Organization != "" {
		template.Subject.Organization = []string{r.Organization}
	}
	for _, ip := range r.IPs {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(ip))
	}
	for _, text := range r.URIs {
		uri, err := url.Parse(text)
		if err != nil {
			return nil, err
		}
		template.URIs = append(template.URIs, uri)
	}
	if r.CA {
		value, err := asn1.Marshal(struct{ CA bool }{true})
		if err != nil {
			return nil, err
		}
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: value})
	}
	return template, nil
}

// Create creates the request in the cluster with the credentials of config.
func (r Request) Create(ctx context.Context, config *rest.Config, name string) (*certificatesv1.CertificateSigningRequest, crypto.Signer, error) {
	create, err := NewCreator(config)
	if err != nil {
		return nil, nil, err
	}
	return create(ctx, r, name)
}

// Creator creates requests in the cluster.
type Creator func(ctx context.Context, request Request, name string) (*certificatesv1.CertificateSigningRequest, crypto.Signer, error)

// NewCreator returns a Creator that creates many requests with the credentials of config.
func NewCreator(config *rest.Config) (Creator, error) {
	clientset, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, r Request, name string) (*certificatesv1.CertificateSigningRequest, crypto.Signer, error) {
		request, key, err := r.PEM()
		if err != nil {
			return nil, nil, err
		}
		usages, signerName := r.Usages, r.SignerName
		if usages == nil {
			usages = servingUsages
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

// Condition returns the first condition of a request that has one of these types, or nil.
func Condition(csr *certificatesv1.CertificateSigningRequest, types ...certificatesv1.RequestConditionType) *certificatesv1.CertificateSigningRequestCondition {
	for i := range csr.Status.Conditions {
		if slices.Contains(types, csr.Status.Conditions[i].Type) {
			return &csr.Status.Conditions[i]
		}
	}
	return nil
}
