// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/semaphore"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// bounds of the server. They hold for all clients together, authenticated or not.
type bounds struct {
	connections int   // open connections; further ones wait in the backlog of the kernel
	streams     int   // concurrent requests of a connection
	unread      int   // bytes that a connection buffers of bodies that are not read yet, over HTTP/2
	header      int   // bytes of the header of a request
	body        int64 // bytes of the body of a request
	bodies      int64 // bytes of the bodies of all requests that are processed at a time
	minBody     int64 // each counts with at least this number of bytes
	// headerTimeout bounds the TLS handshake, and the time until a header is read; readTimeout the time until
	// header and body are read; writeTimeout the time until the answer is written.
	headerTimeout, readTimeout, writeTimeout time.Duration
	queueTimeout                             time.Duration // bounds the wait for other requests to finish
	idleTimeout                              time.Duration // closes a connection without requests
	drainTimeout                             time.Duration // bounds the requests that have begun when the process ends
}

// defaultBounds: an admission review has the object twice, and etcd stores objects of at most 1.5 MiB. At most
// 128 requests are processed at a time, and 8 of the largest. The answer can take longer than the timeouts in
// the webhook configuration.
var defaultBounds = bounds{
	connections: 256, streams: 128, unread: 128 << 10, header: 16 << 10, body: 4 << 20, bodies: 32 << 20, minBody: 256 << 10,
	headerTimeout: 5 * time.Second, readTimeout: 10 * time.Second, writeTimeout: 20 * time.Second,
	queueTimeout: 3 * time.Second, idleTimeout: 90 * time.Second, drainTimeout: 15 * time.Second,
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
	b := s.bounds
	server := &http.Server{
		Handler: b.limit(s.handler), TLSConfig: s.tls, BaseContext: func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: b.headerTimeout, ReadTimeout: b.readTimeout, WriteTimeout: b.writeTimeout, IdleTimeout: b.idleTimeout,
		MaxHeaderBytes: b.header, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: b.streams, MaxReceiveBufferPerConnection: b.unread, MaxReceiveBufferPerStream: b.unread},
		ErrorLog: stdlog.New(connectionErrors{log.FromContext(ctx)}, "", 0),
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.drainTimeout)
		defer cancel()
		if err := server.Shutdown(drain); err != nil {
			log.FromContext(ctx).Info("closing connections with requests", "error", err.Error())
			_ = server.Close() // its errors are those of closed connections
		}
	}()
	s.serving.Store(true)
	defer s.serving.Store(false)
	log.FromContext(ctx).Info("serving", "address", listener.Addr().String(), "clientAuthentication", s.tls.ClientAuth == tls.RequireAndVerifyClientCert)
	if err := server.ServeTLS(&limitedListener{Listener: listener, free: make(chan struct{}, b.connections)}, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-drained
	return nil
}

// connectionErrors logs the errors of connections, such as those of TLS, with debug messages: any client can
// cause them.
type connectionErrors struct{ log logr.Logger }

// Write implements io.Writer.
func (e connectionErrors) Write(line []byte) (int, error) {
	e.log.V(1).Info("connection failed", "error", strings.TrimSpace(string(line)))
	return len(line), nil
}

// check is the readiness check of the server.
func (s *server) check(*http.Request) error {
	if !s.serving.Load() {
		return errors.New("the server does not listen yet")
	}
	return nil
}

// limit bounds the body of each request, and the bodies of all requests that are processed at a time. A
// request that waits for too long gets the status 503, and the API server applies the failurePolicy.
func (b bounds) limit(handler http.Handler) http.Handler {
	free := semaphore.NewWeighted(b.bodies)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		weight := r.ContentLength
		if weight < 0 { // not known
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

// limitedListener accepts a connection only while fewer than cap(free) are open.
type limitedListener struct {
	net.Listener
	free chan struct{}
}

// Accept implements net.Listener.
func (l *limitedListener) Accept() (net.Conn, error) {
	l.free <- struct{}{}
	connection, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &limitedConnection{Conn: connection, release: sync.OnceFunc(func() { <-l.free })}, nil
}

type limitedConnection struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (c *limitedConnection) Close() error {
	defer c.release()
	return c.Conn.Close()
}
