// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"countersign.dev/countersign/internal/httpserver"
)

// bounds of the server. They hold for all clients together, authenticated or not.
type bounds struct {
	httpserver.Bounds
	body         int64         // bytes of the body of a request
	bodies       int64         // bytes of the bodies of all requests that are processed at a time
	minBody      int64         // each counts with at least this number of bytes
	queueTimeout time.Duration // bounds the wait for other requests to finish
}

// defaultBounds: an admission review has the object twice, and etcd stores objects of at most 1.5 MiB. At most
// 128 requests are processed at a time, or 8 of the largest. The limit for the answer exceeds the timeouts in
// the webhook configuration.
var defaultBounds = bounds{
	Bounds: httpserver.Bounds{
		Connections: 256, Streams: 128, Unread: 128 << 10, Header: 16 << 10,
		HeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second,
		IdleTimeout: 90 * time.Second, DrainTimeout: 15 * time.Second,
	},
	body: 4 << 20, bodies: 32 << 20, minBody: 256 << 10, queueTimeout: 3 * time.Second,
}

// server serves HTTPS within its bounds. It implements manager.Runnable.
type server struct {
	address string
	tls     *tls.Config
	handler http.Handler
	bounds  bounds
	serving atomic.Bool
}

// NeedLeaderElection returns false: every replica serves.
func (*server) NeedLeaderElection() bool { return false }

// Start serves until ctx ends, and then until the requests that have begun are answered.
func (s *server) Start(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("--webhook-bind-address: %w", err)
	}
	return s.serve(ctx, listener)
}

func (s *server) serve(ctx context.Context, listener net.Listener) error {
	s.serving.Store(true)
	defer s.serving.Store(false)
	logger := log.FromContext(ctx)
	logger.Info("serving", "address", listener.Addr().String(), "clientAuthentication", s.tls.ClientAuth == tls.RequireAndVerifyClientCert)
	server := &httpserver.Server{Handler: s.bounds.limit(s.handler), TLS: s.tls, Bounds: s.bounds.Bounds, Log: logger}
	return server.Serve(ctx, listener)
}

// check is the readiness check of the server.
func (s *server) check(*http.Request) error {
	if !s.serving.Load() {
		return errors.New("the server does not listen yet")
	}
	return nil
}

// limit bounds the body of each request, and the bodies of all requests that are processed at a time. A
// request that waits longer than queueTimeout gets the status 503, and the API server applies the failurePolicy.
func (b bounds) limit(handler http.Handler) http.Handler {
	free := semaphore.NewWeighted(b.bodies)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		weight := r.ContentLength
		if weight < 0 { // unknown
			weight = b.body
		}
		if weight > b.body {
			http.Error(w, fmt.Sprintf("the body has more than %d bytes", b.body), http.StatusRequestEntityTooLarge)
			return
		}
		weight = max(weight, b.minBody)
		ctx, cancel := context.WithTimeout(r.Context(), b.queueTimeout)
		defer cancel()
		if err := free.Acquire(ctx, weight); err != nil {
			http.Error(w, "too many requests are processed at a time", http.StatusServiceUnavailable)
			return
		}
		defer free.Release(weight)
		r.Body = http.MaxBytesReader(w, r.Body, b.body)
		handler.ServeHTTP(w, r)
	})
}
