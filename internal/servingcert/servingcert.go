// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package servingcert provides the serving certificate of an HTTPS server in the cluster, and writes the
// CA certificates that its clients trust.
//
// The certificate comes from files, or from a CertificateSigningRequest, which Countersign itself approves
// and signs. In both cases it is replaced without a restart. The CA certificates come from the ConfigMap of
// a Signer. Another process writes them to the webhook configuration, with a [CABundle].
//
// A caller passes [Certificate.Get] to tls.Config, calls [Certificate.Setup], and adds [Certificate.Check]
// to its readiness checks. Every replica requests a certificate of its own: the private key stays in its
// memory. The package does not approve, sign or verify client certificates.
package servingcert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// Options configure a [Certificate].
type Options struct {
	// CertFile and KeyFile hold the certificate and its key, in PEM. They are reloaded when they change.
	// If they are empty, the certificate is requested.
	CertFile, KeyFile string

	// SignerName and DNSNames of the certificate to request. Required without files.
	SignerName string
	DNSNames   []string

	// ConfigMap holds the CA certificates that clients trust, in PEM, under the key "ca.crt". If they do
	// not include the issuer of a requested certificate, another one is requested. Required without files.
	ConfigMap types.NamespacedName
}

// Certificate is the serving certificate of one process. [New] returns one.
type Certificate struct {
	options   Options
	files     *certwatcher.CertWatcher // nil if the certificate is requested
	requested *requested               // nil if the certificate is in files
}

// New returns a Certificate. The error says why the files cannot be loaded.
func New(o Options) (*Certificate, error) {
	c := &Certificate{options: o}
	if o.CertFile == "" {
		c.requested = &requested{signerName: o.SignerName, dnsNames: o.DNSNames}
		return c, nil
	}
	var err error
	c.files, err = certwatcher.New(o.CertFile, o.KeyFile)
	return c, err
}

// Get returns the current certificate. It is meant for tls.Config.GetCertificate.
func (c *Certificate) Get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.files != nil {
		return c.files.GetCertificate(hello)
	}
	return c.requested.GetCertificate(hello)
}

// Setup adds the renewal of the certificate to the manager.
func (c *Certificate) Setup(mgr manager.Manager) error {
	var runnable manager.Runnable = c.files
	if c.requested != nil {
		c.requested.clients = func(*tls.Certificate) (kubernetes.Interface, error) {
			clientset, err := kubernetes.NewForConfig(mgr.GetConfig())
			if err != nil {
				return nil, err
			}
			return c.requested.pending.observe(clientset), nil
		}
		runnable = c.requested
	}
	if err := mgr.Add(runnable); err != nil {
		return fmt.Errorf("adding the serving certificate: %w", err)
	}
	if c.requested == nil {
		return nil
	}
	distrusted := &distrustReconciler{client: mgr.GetClient(), configMap: c.options.ConfigMap, served: c.Get, renew: c.requested.renew}
	return distrusted.setup(mgr)
}

// Check returns when the current certificate expires: the zero time if there is none. The error says why
// the server cannot serve at now. For a request, the state is that in the cache of requests, if it is not nil.
func (c *Certificate) Check(ctx context.Context, requests client.Reader, now time.Time) (time.Time, error) {
	expires, err := check(c.Get, now)
	if errors.Is(err, errNoCertificate) && c.requested != nil {
		err = c.requested.pending.problem(ctx, requests)
	}
	return expires, err
}

func check(get func(*tls.ClientHelloInfo) (*tls.Certificate, error), now time.Time) (time.Time, error) {
	served, err := get(nil)
	if err == nil && served == nil {
		err = errNoCertificate
	}
	if err != nil {
		return time.Time{}, err
	}
	leaf, err := leafOf(served)
	if err != nil {
		return time.Time{}, err
	}
	if now.After(leaf.NotAfter) {
		return leaf.NotAfter, fmt.Errorf("the serving certificate expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return leaf.NotAfter, nil
}

var errNoCertificate = errors.New("no serving certificate yet: check that its CertificateSigningRequest is approved and signed")

func leafOf(served *tls.Certificate) (*x509.Certificate, error) {
	if served.Leaf != nil {
		return served.Leaf, nil
	}
	return x509.ParseCertificate(served.Certificate[0])
}
