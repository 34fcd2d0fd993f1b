// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// testCA issues certificates with one key.
type testCA struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
}

func newTestCA(t *testing.T, name string) *testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &testCA{key: key}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}
	ca.certificate = template
	ca.certificate = ca.issue(t, template).Leaf
	return ca
}

// issue returns a certificate with the key of the CA.
func (ca *testCA) issue(t *testing.T, template *x509.Certificate) tls.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, ca.key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: ca.key, Leaf: leaf}
}

func leafTemplate(name string, usage x509.ExtKeyUsage) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
}

// testServer serves on loopback with the given bounds and client options, until the test ends.
type testServer struct {
	address string
	roots   *x509.CertPool
	clients *testCA
}

func newTestServer(t *testing.T, b bounds, o Options, handler http.HandlerFunc) testServer {
	t.Helper()
	servers, clients := newTestCA(t, "servers"), newTestCA(t, "clients")
	if o.ClientAuthentication == Required {
		o.ClientCAFile = filepath.Join(t.TempDir(), "ca.crt")
		if err := os.WriteFile(o.ClientCAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: clients.certificate.Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure, err := o.clients()
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{servers.issue(t, leafTemplate("server", x509.ExtKeyUsageServerAuth))}}
	configure(config)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{tls: config, bounds: b, handler: handler}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	roots := x509.NewCertPool()
	roots.AddCert(servers.certificate)
	return testServer{address: listener.Addr().String(), roots: roots, clients: clients}
}

// client returns a client that presents a certificate with a common name of a CA, or none.
func (s testServer) client(t *testing.T, ca *testCA, name string) *http.Client {
	t.Helper()
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: s.roots}
	if ca != nil {
		config.Certificates = []tls.Certificate{ca.issue(t, leafTemplate(name, x509.ExtKeyUsageClientAuth))}
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func (s testServer) post(client *http.Client, body io.Reader) (int, error) {
	response, err := client.Post("https://"+s.address+"/", "application/json", body) //nolint:noctx // the client has a timeout
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, errors.Join(err, response.Body.Close())
}

func read(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

func TestClientAuthentication(t *testing.T) {
	other := newTestCA(t, "other")
	for _, tc := range []struct {
		name      string
		options   Options
		ca, other bool
		as        string
		refused   bool
	}{
		{name: "none", options: Options{ClientAuthentication: None}},
		{name: "no certificate", options: Options{ClientAuthentication: Required}, refused: true},
		{name: "another CA", options: Options{ClientAuthentication: Required}, other: true, as: "front-proxy-client", refused: true},
		{name: "the CA, any name", options: Options{ClientAuthentication: Required}, ca: true, as: "anybody"},
		{name: "the CA, an accepted name", options: Options{ClientAuthentication: Required, ClientNames: []string{"x", "front-proxy-client"}}, ca: true, as: "front-proxy-client"},
		{name: "the CA, another name", options: Options{ClientAuthentication: Required, ClientNames: []string{"front-proxy-client"}}, ca: true, as: "kubelet", refused: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newTestServer(t, defaultBounds, tc.options, read)
			var ca *testCA
			switch {
			case tc.ca:
				ca = s.clients
			case tc.other:
				ca = other
			}
			status, err := s.post(s.client(t, ca, tc.as), strings.NewReader("{}"))
			if tc.refused != (err != nil) || err == nil && status != http.StatusOK {
				t.Errorf("status %d, error %v", status, err)
			}
		})
	}
}

func TestBodyBound(t *testing.T) {
	s := newTestServer(t, defaultBounds, Options{ClientAuthentication: None}, read)
	client := s.client(t, nil, "")
	for _, tc := range []struct {
		name string
		body io.Reader
		want int
	}{
		{"at the bound", bytes.NewReader(make([]byte, defaultBounds.body)), http.StatusOK},
		{"above the bound", bytes.NewReader(make([]byte, defaultBounds.body+1)), http.StatusRequestEntityTooLarge},
		{"without a length", io.MultiReader(bytes.NewReader(make([]byte, 1000))), http.StatusOK},
		{"without a length, above the bound", io.MultiReader(bytes.NewReader(make([]byte, defaultBounds.body+1))), http.StatusBadRequest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, err := s.post(client, tc.body); got != tc.want {
				t.Errorf("status %d, error %v; want %d", got, err, tc.want)
			}
		})
	}
}

// TestBodiesBound sends one more request than the bound allows at a time: it gets 503, and is served when one has ended.
func TestBodiesBound(t *testing.T) {
	b := defaultBounds
	b.bodies, b.minBody, b.queueTimeout = 4000, 1000, 200*time.Millisecond
	entered, leave := make(chan struct{}), make(chan struct{})
	s := newTestServer(t, b, Options{ClientAuthentication: None}, func(_ http.ResponseWriter, r *http.Request) {
		if r.ContentLength > 1 {
			entered <- struct{}{}
			<-leave
		}
	})
	client := s.client(t, nil, "")
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			if status, err := s.post(client, strings.NewReader("{}")); status != http.StatusOK {
				t.Errorf("status %d, error %v", status, err)
			}
		})
		<-entered
	}
	if status, err := s.post(client, strings.NewReader("x")); status != http.StatusServiceUnavailable {
		t.Errorf("at the bound: status %d, error %v", status, err)
	}
	leave <- struct{}{}
	for status := 0; status != http.StatusOK; {
		var err error
		if status, err = s.post(client, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	close(leave)
	running.Wait()
}

// zeros is a body without an end. It counts the bytes that are read.
type zeros struct{ sent atomic.Int64 }

func (z *zeros) Read(p []byte) (int, error) {
	clear(p)
	z.sent.Add(int64(len(p)))
	return len(p), nil
}

// TestUnreadBound checks that a connection buffers little of a body that no handler reads: 256 connections must fit in
// memory.
func TestUnreadBound(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	s := newTestServer(t, defaultBounds, Options{ClientAuthentication: None}, func(_ http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("got HTTP/%d", r.ProtoMajor)
		}
		close(entered)
		<-leave
	})
	body := &zeros{}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+s.address+"/", body)
	if err != nil {
		t.Fatal(err)
	}
	request.ContentLength = defaultBounds.body
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if response, err := s.client(t, nil, "").Do(request); err == nil {
			_ = response.Body.Close()
		}
	}()
	<-entered
	before := int64(-1)
	for sent := body.sent.Load(); sent != before; sent = body.sent.Load() { // until the client cannot send more
		before = sent
		time.Sleep(300 * time.Millisecond)
	}
	if limit := int64(256 << 10); before > limit { // twice the bound, since the client has buffers, too
		t.Errorf("the client sent %d bytes that are not read, want at most %d", before, limit)
	}
	close(leave)
	<-ended
}

// TestSlowClients checks that a connection without a complete handshake, header or body is closed.
func TestSlowClients(t *testing.T) {
	b := defaultBounds
	b.HeaderTimeout, b.ReadTimeout, b.IdleTimeout = 200*time.Millisecond, 300*time.Millisecond, 200*time.Millisecond
	s := newTestServer(t, b, Options{ClientAuthentication: None}, read)
	for _, tc := range []struct {
		name string
		tls  bool
		sent string
	}{
		{"no handshake", false, ""},
		{"half a handshake", false, "\x16\x03\x01"},
		{"no header", true, ""},
		{"half a header", true, "POST / HTTP/1.1\r\nHost: x\r\n"},
		{"half a body", true, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{"},
		{"idle after a request", true, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			connection, err := net.Dial("tcp", s.address)
			if err != nil {
				t.Fatal(err)
			}
			defer connection.Close() //nolint:errcheck // closed by the server
			if tc.tls {
				connection = tls.Client(connection, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: s.roots, ServerName: "127.0.0.1"})
			}
			if _, err := io.WriteString(connection, tc.sent); err != nil {
				t.Fatal(err)
			}
			if err := connection.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			_, err = io.Copy(io.Discard, bufio.NewReader(connection))
			if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
				t.Error("the connection is open after 10 s")
			}
		})
	}
}

// TestConnectionsBound opens one more connection than the bound: it is served, and the oldest one is closed.
func TestConnectionsBound(t *testing.T) {
	b := defaultBounds
	b.Connections = 2
	s := newTestServer(t, b, Options{ClientAuthentication: None}, read)
	var connections []*tls.Conn
	for range 3 {
		connection, err := tls.Dial("tcp", s.address, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: s.roots, ServerName: "127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close() //nolint:errcheck // the end of the test
		connections = append(connections, connection)
	}
	for i, connection := range connections {
		if err := connection.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err := io.WriteString(connection, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if err == nil {
			var response *http.Response
			if response, err = http.ReadResponse(bufio.NewReader(connection), nil); err == nil {
				err = response.Body.Close()
			}
		}
		if open := err == nil; open != (i > 0) || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d: %v", i, err)
		}
	}
}
