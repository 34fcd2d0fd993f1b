// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// callTimeout bounds one call to the API server while the process waits for it.
const callTimeout = 10 * time.Second

// reachBackoff delays the calls: 0.5 s, doubling up to 15 s.
func reachBackoff() wait.Backoff {
	return wait.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 0.1, Steps: 6, Cap: 15 * time.Second}
}

// awaitAPIServer returns nil when the API server is ready or ctx ends, or an error that no retry fixes.
// Meanwhile the readiness check "apiserver" fails. Setting up controllers requires the API server for
// discovery.
func awaitAPIServer(ctx context.Context, cfg *rest.Config, p *probes, log logr.Logger) error {
	short := rest.CopyConfig(cfg)
	short.Timeout = callTimeout
	clientset, err := kubernetes.NewForConfig(short)
	if err != nil {
		return fmt.Errorf("creating a client of the API server: %w", err)
	}
	var last atomic.Pointer[error]
	starting := errors.New("the API server has not been called yet")
	last.Store(&starting)
	p.set("apiserver", func(*http.Request) error {
		return fmt.Errorf("API server %s is not reachable: %w", cfg.Host, *last.Load())
	})
	backoff := reachBackoff()
	for {
		err := callAPIServer(ctx, clientset)
		if err == nil {
			p.set("apiserver", nil)
			return nil
		}
		if fix := permanent(err); fix != "" {
			return fmt.Errorf("calling API server %s (%s): %w", cfg.Host, fix, err)
		}
		last.Store(&err)
		delay := backoff.Step()
		log.Info("the API server is not reachable, retrying", "server", cfg.Host, "error", err.Error(), "after", delay.String())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
	}
}

// callAPIServer returns nil if the API server is ready. While it starts, it answers but forbids most calls
// and does not serve custom resources. If /readyz is forbidden, discovery must succeed.
func callAPIServer(ctx context.Context, clientset kubernetes.Interface) error {
	err := clientset.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	if apierrors.IsForbidden(err) {
		_, err = clientset.Discovery().ServerGroups()
	}
	return err
}

// permanent returns how to fix an error of a call that no retry fixes, or "".
func permanent(err error) string {
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var verification *tls.CertificateVerificationError
	switch {
	case apierrors.IsUnauthorized(err):
		return "it rejects the credentials: check the user of --kubeconfig, or the ServiceAccount of the Pod"
	case errors.As(err, &authority), errors.As(err, &hostname), errors.As(err, &verification):
		return "its certificate is not trusted: check server and certificate-authority of --kubeconfig"
	}
	return ""
}
