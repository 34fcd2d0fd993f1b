// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package servingcert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/util/certificate"
)

// requested is a serving certificate that is requested with a CertificateSigningRequest. It is renewed
// after 70 to 90 percent of its lifetime. Key and certificate stay in memory.
type requested struct {
	clients    certificate.ClientsetFunc // for the request
	pending    pendingRequest
	signerName string
	dnsNames   []string

	mu      sync.Mutex
	ctx     context.Context //nolint:containedctx // of Start, for requests that begin later
	manager certificate.Manager
	stop    context.CancelFunc
	last    *tls.Certificate // served until the manager has one
}

// Start implements manager.Runnable.
func (r *requested) Start(ctx context.Context) error {
	r.mu.Lock()
	r.ctx = ctx
	err := r.begin()
	r.mu.Unlock()
	if err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// NeedLeaderElection returns false: every replica has its own certificate.
func (r *requested) NeedLeaderElection() bool { return false }

// begin starts a manager, which requests a certificate. The lock is held.
func (r *requested) begin() error {
	ctx, stop := context.WithCancel(r.ctx)
	manager, err := certificate.NewManager(&certificate.Config{
		ClientsetFn: r.clients,
		GetTemplate: func() *x509.CertificateRequest {
			return &x509.CertificateRequest{DNSNames: r.dnsNames}
		},
		SignerName:       r.signerName,
		Usages:           []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageServerAuth},
		CertificateStore: &memory{},
		Name:             "serving-certificate",
		Ctx:              &ctx,
	})
	if err != nil {
		stop()
		return fmt.Errorf("requesting the serving certificate: %w", err)
	}
	r.manager, r.stop = manager, stop
	manager.Start()
	return nil
}

// GetCertificate returns the current certificate, or else the last one of an earlier manager.
func (r *requested) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.manager != nil {
		if current := r.manager.Current(); current != nil {
			return current, nil
		}
	}
	if r.last != nil {
		return r.last, nil
	}
	return nil, errNoCertificate
}

// renew requests a new certificate and returns true, unless a request is pending. The current
// certificate is served until the new one is issued.
func (r *requested) renew() (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.manager == nil || r.ctx.Err() != nil {
		return false, nil
	}
	current := r.manager.Current()
	if current == nil {
		return false, nil
	}
	r.last = current
	r.stop()
	return true, r.begin()
}

// memory is a certificate.Store in memory.
type memory struct{ current *tls.Certificate }

// Current implements certificate.Store.
func (m *memory) Current() (*tls.Certificate, error) {
	if m.current == nil {
		none := certificate.NoCertKeyError("no certificate yet")
		return nil, &none
	}
	return m.current, nil
}

// Update implements certificate.Store.
func (m *memory) Update(cert, key []byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
		return nil, err
	}
	m.current = &pair
	return m.current, nil
}
