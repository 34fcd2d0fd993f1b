// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/util/certificate"
)

// errNoCertificate: the server cannot serve yet.
var errNoCertificate = errors.New("there is no serving certificate yet: is the request for it approved and signed?")

// issued is a serving certificate that is asked for by a CertificateSigningRequest, and again
// after 70 to 90 percent of its lifetime. Key and certificate stay in memory.
type issued struct {
	// clients makes the client that asks.
	clients    certificate.ClientsetFunc
	signerName string
	dnsName    string

	mu      sync.Mutex
	ctx     context.Context //nolint:containedctx // of Start; what is begun later ends with it
	manager certificate.Manager
	stop    context.CancelFunc
	// last is served while the manager has nothing yet.
	last *tls.Certificate
}

// Start implements manager.Runnable.
func (i *issued) Start(ctx context.Context) error {
	i.mu.Lock()
	i.ctx = ctx
	err := i.begin()
	i.mu.Unlock()
	if err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica has its own certificate.
func (i *issued) NeedLeaderElection() bool { return false }

// begin has a new manager ask for a certificate.
func (i *issued) begin() error {
	ctx, stop := context.WithCancel(i.ctx)
	manager, err := certificate.NewManager(&certificate.Config{
		ClientsetFn: i.clients,
		GetTemplate: func() *x509.CertificateRequest {
			return &x509.CertificateRequest{DNSNames: []string{i.dnsName}}
		},
		SignerName:       i.signerName,
		Usages:           []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageServerAuth},
		CertificateStore: &memory{},
		Name:             "serving-certificate",
		Ctx:              &ctx,
	})
	if err != nil {
		stop()
		return fmt.Errorf("managing the serving certificate: %w", err)
	}
	i.manager, i.stop = manager, stop
	manager.Start()
	return nil
}

// GetCertificate is for tls.Config.
func (i *issued) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.manager != nil {
		if current := i.manager.Current(); current != nil {
			return current, nil
		}
	}
	if i.last != nil {
		return i.last, nil
	}
	return nil, errNoCertificate
}

// renew asks for another certificate now, and says so, unless one is being asked for. What is served
// stays so until it is there.
func (i *issued) renew() (bool, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.manager == nil || i.ctx.Err() != nil {
		return false, nil
	}
	current := i.manager.Current()
	if current == nil {
		return false, nil
	}
	i.last = current
	i.stop()
	return true, i.begin()
}

// memory keeps a certificate, as certificate.Store.
type memory struct{ current *tls.Certificate }

// Current implements certificate.Store.
func (m *memory) Current() (*tls.Certificate, error) {
	if m.current == nil {
		none := certificate.NoCertKeyError("there is none yet")
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

// usable says what is wrong with the certificate that is served, if anything.
func usable(get func(*tls.ClientHelloInfo) (*tls.Certificate, error), now time.Time) error {
	served, err := get(nil)
	if err == nil && served == nil {
		err = errNoCertificate
	}
	if err != nil {
		certificateExpiry.Set(0)
		return err
	}
	leaf, err := leafOf(served)
	if err != nil {
		return err
	}
	certificateExpiry.Set(float64(leaf.NotAfter.Unix()))
	if now.After(leaf.NotAfter) {
		return fmt.Errorf("the serving certificate ended at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

func leafOf(served *tls.Certificate) (*x509.Certificate, error) {
	if served.Leaf != nil {
		return served.Leaf, nil
	}
	return x509.ParseCertificate(served.Certificate[0])
}
