// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package httpserver

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
)

// start serves on loopback until the test ends, and returns the address.
func start(t *testing.T, b Bounds, handler http.HandlerFunc) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	s := &Server{Handler: handler, Bounds: b, Log: logr.Discard()}
	go func() { ended <- s.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// dial connects from 127.0.0.host.
func dial(t *testing.T, address string, host byte) net.Conn {
	t.Helper()
	connection, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, host)}}).Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

// isOpen sends a request and reports whether it is answered.
func isOpen(t *testing.T, connection net.Conn) bool {
	t.Helper()
	if _, err := io.WriteString(connection, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return false
	}
	if err := connection.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is neither served nor closed")
	}
	if err != nil {
		return false
	}
	return response.Body.Close() == nil
}

var testBounds = Bounds{
	Connections: 4, Header: 4 << 10, HeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second,
	IdleTimeout: time.Minute, DrainTimeout: time.Second,
}

// TestConnections opens connections of several client addresses in this order, and checks which ones stay open.
func TestConnections(t *testing.T) {
	for _, tc := range []struct {
		name    string
		clients []byte
		open    []bool
	}{
		{"at the bound", []byte{1, 1, 1, 2}, []bool{true, true, true, true}},
		{"one client above the bound", []byte{1, 1, 1, 1, 1}, []bool{false, true, true, true, true}},
		{"another client with few is served", []byte{1, 1, 1, 1, 2}, []bool{false, true, true, true, true}},
		{"a client with few is not replaced", []byte{2, 1, 1, 1, 1, 1, 1}, []bool{true, false, false, false, true, true, true}},
		{"many clients, the oldest is replaced", []byte{1, 2, 3, 4, 5}, []bool{false, true, true, true, true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			address := start(t, testBounds, func(http.ResponseWriter, *http.Request) {})
			var connections []net.Conn
			for _, host := range tc.clients {
				connection := dial(t, address, host)
				if !isOpen(t, connection) {
					t.Fatalf("a new connection of 127.0.0.%d is not served", host)
				}
				connections = append(connections, connection)
			}
			for i, connection := range connections {
				if got := isOpen(t, connection); got != tc.open[i] {
					t.Errorf("connection %d of 127.0.0.%d: open %v, want %v", i, tc.clients[i], got, tc.open[i])
				}
			}
		})
	}
}

// TestConnections_closed checks that closed connections do not count.
func TestConnections_closed(t *testing.T) {
	address := start(t, testBounds, func(http.ResponseWriter, *http.Request) {})
	first := dial(t, address, 1)
	if !isOpen(t, first) {
		t.Fatal("not served")
	}
	for range 3 * testBounds.Connections {
		connection := dial(t, address, 2)
		if !isOpen(t, connection) {
			t.Fatal("not served")
		}
		if err := connection.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !isOpen(t, first) {
		t.Error("the first connection was closed")
	}
}

// TestContext checks that a request ends with its connection, also if the client has sent another request behind it.
func TestContext(t *testing.T) {
	b := testBounds
	b.Connections = 1
	begun, ended := make(chan struct{}), make(chan struct{})
	address := start(t, b, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			begun <- struct{}{}
			<-r.Context().Done()
			ended <- struct{}{}
		}
	})
	if _, err := io.WriteString(dial(t, address, 1), strings.Repeat("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n", 2)); err != nil {
		t.Fatal(err)
	}
	<-begun
	if !isOpen(t, dial(t, address, 2)) {
		t.Error("a further connection is not served")
	}
	<-ended
}

// TestKeepAlive checks that a connection ends with its request if there is no time for idle connections.
func TestKeepAlive(t *testing.T) {
	for _, idle := range []time.Duration{0, time.Minute} {
		b := testBounds
		b.IdleTimeout = idle
		connection := dial(t, start(t, b, func(http.ResponseWriter, *http.Request) {}), 1)
		if !isOpen(t, connection) {
			t.Fatal("not served")
		}
		if got, want := isOpen(t, connection), idle > 0; got != want {
			t.Errorf("idle timeout %v: open %v", idle, got)
		}
	}
}

// TestHeader checks the bound of the header. net/http adds 4 KiB to it.
func TestHeader(t *testing.T) {
	address := start(t, testBounds, func(http.ResponseWriter, *http.Request) {})
	for _, tc := range []struct{ size, want int }{{testBounds.Header, http.StatusOK}, {testBounds.Header + 8<<10, http.StatusRequestHeaderFieldsTooLarge}} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X", strings.Repeat("x", tc.size))
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil || response.StatusCode != tc.want {
			t.Errorf("%d bytes: status %d, error %v; want %d", tc.size, response.StatusCode, err, tc.want)
		}
	}
}
