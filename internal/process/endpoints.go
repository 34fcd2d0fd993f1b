// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"countersign.dev/countersign/internal/httpserver"
)

// Bounds of the servers for metrics and probes, which every Pod can reach. Each connection processes one request at a
// time.
var (
	// metricsBounds keep the connections of Prometheus open between scrapes.
	metricsBounds = httpserver.Bounds{
		Connections: 32, Header: 8 << 10,
		HeaderTimeout: 3 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 15 * time.Second,
		IdleTimeout: 2 * time.Minute, DrainTimeout: time.Second,
	}
	// probeBounds close each connection after its request, as the kubelet does.
	probeBounds = httpserver.Bounds{
		Connections: 32, Header: 8 << 10,
		HeaderTimeout: 2 * time.Second, ReadTimeout: 2 * time.Second, WriteTimeout: 3 * time.Second, DrainTimeout: time.Second,
	}
)

// serveHTTP serves on an address until ctx ends. The address "0" disables it. The error names the flag that set the
// address.
func serveHTTP(ctx context.Context, flag, address string, handler http.Handler, bounds httpserver.Bounds, log logr.Logger) error {
	if address == "0" {
		return nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	server := &httpserver.Server{Handler: handler, Bounds: bounds, Log: log.WithValues("flag", flag)}
	go func() {
		if err := server.Serve(ctx, listener); err != nil {
			log.Error(err, "serving", "flag", flag)
		}
	}()
	return nil
}

const (
	maxScrapes    = 2               // at a time; others wait
	scrapeTimeout = 5 * time.Second // includes the wait
)

// metricsHandler serves /metrics. The server of controller-runtime limits neither connections nor the time of writes.
func metricsHandler(gatherer prometheus.Gatherer) http.Handler {
	metrics := promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError})
	slots := make(chan struct{}, maxScrapes)
	limited := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			metrics.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	})
	mux := http.NewServeMux()
	// The timeout handler buffers the answer, so that a client that does not read occupies no slot.
	mux.Handle("/metrics", http.TimeoutHandler(limited, scrapeTimeout, "too many scrapes at a time\n"))
	return mux
}
