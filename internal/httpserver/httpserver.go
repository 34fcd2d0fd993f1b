// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package httpserver serves HTTP within bounds: every Pod of a cluster can open connections to the ports of a process,
// and a client that sends slowly or reads nothing must not take its memory or starve the other clients.
package httpserver

import (
	"context"
	"crypto/tls"
	"errors"
	stdlog "log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr"
)

// Bounds of a server. They apply to all clients together, authenticated or not.
type Bounds struct {
	// Connections is the maximum number of open connections. A further one replaces another: see [Server.Serve].
	Connections int
	// Header is the maximum size of the header of a request, in bytes.
	Header int
	// Streams is the maximum number of concurrent requests of a connection over HTTP/2. Over HTTP/1 it is one.
	Streams int
	// Unread is the maximum number of bytes that a connection buffers of bodies that are not read yet, over HTTP/2.
	Unread int
	// HeaderTimeout bounds the TLS handshake, and the time until a header is read. ReadTimeout bounds the time until
	// header and body are read, WriteTimeout the time until the answer is written.
	HeaderTimeout, ReadTimeout, WriteTimeout time.Duration
	// IdleTimeout closes a connection without requests. Zero closes it after each request.
	IdleTimeout time.Duration
	// DrainTimeout bounds the requests that have begun when the process ends.
	DrainTimeout time.Duration
}

// Server serves HTTP/1 and, with TLS, HTTP/2.
type Server struct {
	Handler http.Handler
	TLS     *tls.Config // nil means plain HTTP
	Bounds  Bounds
	Log     logr.Logger
}

// Serve serves until ctx ends, and then until the requests that have begun are answered.
//
// When all connections are open, a further one closes the oldest connection of the client address that has the most.
// A client with few connections is therefore served at once, whatever number of connections another one opens. The
// context of a request ends when its connection is closed.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	b := s.Bounds
	server := &http.Server{
		Handler: s.Handler, TLSConfig: s.TLS, BaseContext: func(net.Listener) context.Context { return ctx }, ConnContext: withConnection,
		ReadHeaderTimeout: b.HeaderTimeout, ReadTimeout: b.ReadTimeout, WriteTimeout: b.WriteTimeout, IdleTimeout: b.IdleTimeout,
		MaxHeaderBytes: b.Header, ErrorLog: stdlog.New(connectionErrors{s.Log}, "", 0),
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: b.Streams, MaxReceiveBufferPerConnection: b.Unread, MaxReceiveBufferPerStream: b.Unread},
	}
	server.SetKeepAlivesEnabled(b.IdleTimeout > 0)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.DrainTimeout)
		defer cancel()
		if err := server.Shutdown(drain); err != nil {
			s.Log.Info("closing connections with requests", "error", err.Error())
			_ = server.Close() // its errors are those of closed connections
		}
	}()
	limited := &limitedListener{Listener: listener, limit: b.Connections, clients: map[string][]*connection{}}
	serve := func() error { return server.Serve(limited) }
	if s.TLS != nil {
		serve = func() error { return server.ServeTLS(limited, "", "") }
	}
	if err := serve(); !errors.Is(err, http.ErrServerClosed) {
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
