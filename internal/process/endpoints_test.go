// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"countersign.dev/countersign/internal/httpserver"
)

// freeAddress returns an address of loopback that no process listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return listener.Addr().String()
}

// get requests a URL from another client address than that of net.Dial.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}, Timeout: 5 * time.Second}
	response, err := client.Get(url) //nolint:noctx // the client has a timeout
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// TestSlowReaders opens many connections to the ports for metrics and probes, which send requests and read nothing. The
// connections that are served are bounded, and another client is served at once.
func TestSlowReaders(t *testing.T) {
	registry := prometheus.NewRegistry()
	many := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "many", Help: "Many series."}, []string{"n"})
	registry.MustRegister(many)
	for n := range 2000 { // more than the kernel buffers for a client
		many.WithLabelValues(fmt.Sprint(n, strings.Repeat("x", 100))).Set(1)
	}
	for _, tc := range []struct {
		name, path, want string
		handler          http.Handler
		bounds           httpserver.Bounds
	}{
		{"metrics", "/metrics", "# TYPE many gauge", metricsHandler(registry), metricsBounds},
		{"probes, ready", "/readyz", "ok", newReadyProbes().handler(), probeBounds},
		{"probes, healthy", "/healthz", "ok", newReadyProbes().handler(), probeBounds},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			address := freeAddress(t)
			before := runtime.NumGoroutine()
			if err := serveHTTP(ctx, "--flag", address, tc.handler, tc.bounds, logr.Discard()); err != nil {
				t.Fatal(err)
			}
			for range 300 {
				connection, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				defer connection.Close()                                                                             //nolint:errcheck // the end of the test
				_, _ = io.WriteString(connection, strings.Repeat("GET "+tc.path+" HTTP/1.1\r\nHost: x\r\n\r\n", 20)) // fails if it is closed already
			}
			if status, body := get(t, "http://"+address+tc.path); status != http.StatusOK || !strings.Contains(body, tc.want) {
				t.Errorf("status %d, body %q", status, body[:min(len(body), 200)])
			}
			limit, n := 2*tc.bounds.Connections+10, 0 // a connection has at most two goroutines
			for range 100 {
				if n = runtime.NumGoroutine() - before; n <= limit {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
			t.Errorf("%d goroutines, want at most %d", n, limit)
		})
	}
}

func newReadyProbes() *probes {
	p := newProbes(logr.Discard())
	p.set(checkStart, nil)
	return p
}

// TestServeHTTP_address checks that an address that is in use is an error with the flag, and that "0" is none.
func TestServeHTTP_address(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // the end of the test
	if err := serveHTTP(t.Context(), "--flag", listener.Addr().String(), nil, probeBounds, logr.Discard()); err == nil || !strings.HasPrefix(err.Error(), "--flag: ") {
		t.Errorf("in use: got %v", err)
	}
	if err := serveHTTP(t.Context(), "--flag", "0", nil, probeBounds, logr.Discard()); err != nil {
		t.Errorf("disabled: got %v", err)
	}
}

// TestHealthz checks that a check that a component adds to its manager fails /healthz.
func TestHealthz(t *testing.T) {
	p := newReadyProbes()
	failing := error(nil)
	if err := (probed{probes: p}).AddHealthzCheck("evaluations", func(*http.Request) error { return failing }); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	if err := serveHTTP(t.Context(), "--flag", address, p.handler(), probeBounds, logr.Discard()); err != nil {
		t.Fatal(err)
	}
	if status, body := get(t, "http://"+address+"/healthz"); status != http.StatusOK || body != "ok" {
		t.Errorf("status %d, body %q", status, body)
	}
	failing = errors.New("one does not end")
	if status, body := get(t, "http://"+address+"/healthz"); status != http.StatusInternalServerError || body != "[-]evaluations failed: one does not end\nhealthz check failed\n" {
		t.Errorf("status %d, body %q", status, body)
	}
}
