// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package servingcert

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	certificatesv1client "k8s.io/client-go/kubernetes/typed/certificates/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// errNotRequested means that no request has been created yet.
var errNotRequested = errors.New("waiting for a certificate: its CertificateSigningRequest has not been created yet, see the log")

// pendingRequest is the last CertificateSigningRequest that was created. The zero value has none.
type pendingRequest struct{ name atomic.Pointer[string] }

// problem says what the request waits for. The reader is a cache of requests: without the request it only
// names it.
func (p *pendingRequest) problem(ctx context.Context, reader client.Reader) error {
	name := p.name.Load()
	if name == nil {
		return errNotRequested
	}
	state := "is pending: see its Events, and the policies for its signerName"
	var csr certificatesv1.CertificateSigningRequest
	if reader != nil && reader.Get(ctx, client.ObjectKey{Name: *name}, &csr) == nil {
		for _, c := range csr.Status.Conditions {
			switch {
			case c.Status != corev1.ConditionTrue:
			case c.Type == certificatesv1.CertificateApproved:
				state = "is approved and not issued: see the Signer with its signerName"
			case c.Type == certificatesv1.CertificateDenied:
				state = "is denied: " + c.Message
			case c.Type == certificatesv1.CertificateFailed:
				state = "failed: " + c.Message
			}
		}
	}
	return fmt.Errorf("waiting for a certificate: CertificateSigningRequest %s %s", *name, state)
}

// observe returns a client that remembers the requests that it creates.
func (p *pendingRequest) observe(c kubernetes.Interface) kubernetes.Interface {
	return observedClient{Interface: c, pending: p}
}

type observedClient struct {
	kubernetes.Interface
	pending *pendingRequest
}

// CertificatesV1 implements kubernetes.Interface.
func (c observedClient) CertificatesV1() certificatesv1client.CertificatesV1Interface {
	return observedCertificates{c.Interface.CertificatesV1(), c.pending}
}

type observedCertificates struct {
	certificatesv1client.CertificatesV1Interface
	pending *pendingRequest
}

// CertificateSigningRequests implements certificatesv1client.CertificatesV1Interface.
func (c observedCertificates) CertificateSigningRequests() certificatesv1client.CertificateSigningRequestInterface {
	return observedRequests{c.CertificatesV1Interface.CertificateSigningRequests(), c.pending}
}

type observedRequests struct {
	certificatesv1client.CertificateSigningRequestInterface
	pending *pendingRequest
}

// Create implements certificatesv1client.CertificateSigningRequestInterface.
func (c observedRequests) Create(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, o metav1.CreateOptions) (*certificatesv1.CertificateSigningRequest, error) {
	created, err := c.CertificateSigningRequestInterface.Create(ctx, csr, o)
	if err == nil {
		c.pending.name.Store(&created.Name)
	}
	return created, err
}
