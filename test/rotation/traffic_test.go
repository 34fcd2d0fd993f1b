// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"countersign.dev/countersign/test/harness"
	"countersign.dev/countersign/test/tutorial"
)

const (
	// renewEvery is the renewal interval of a server: a third of the lifetime of its certificate.
	renewEvery = 10 * time.Second
	// readEvery is the interval at which a client reads its bundle. It is well below spec.trust.propagation.
	readEvery = 500 * time.Millisecond
	// handshakeEvery is the interval at which each client connects to each server.
	handshakeEvery = 25 * time.Millisecond
)

// traffic is a set of servers and of clients that connect to them.
type traffic struct {
	cancel context.CancelFunc
	group  sync.WaitGroup

	handshakes, renewals atomic.Int64
	mu                   sync.Mutex
	failures             []string
	anchors              map[string]map[string]int // client -> fingerprint of the root that was verified -> handshakes
}

func startTraffic(t *testing.T) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	tr := &traffic{cancel: cancel, anchors: map[string]map[string]int{}}
	t.Cleanup(func() { cancel(); tr.group.Wait() })
	clientset := installation.Cluster.Clientset()
	bundles := map[string]func(context.Context) (string, error){
		"ClusterTrustBundle": func(ctx context.Context) (string, error) {
			b, err := clientset.CertificatesV1().ClusterTrustBundles().Get(ctx, bundleName, metav1.GetOptions{})
			if err != nil {
				return "", err
			}
			return b.Spec.TrustBundle, nil
		},
		"ConfigMap": func(ctx context.Context) (string, error) {
			m, err := clientset.CoreV1().ConfigMaps(namespace).Get(ctx, "rotated-ca", metav1.GetOptions{})
			if err != nil {
				return "", err
			}
			return m.Data["ca.crt"], nil
		},
	}
	var servers []*server
	for i := range 2 {
		s := newServer(t, fmt.Sprintf("server-%d", i), fmt.Sprintf("10.0.50.%d", i+1), signerName)
		must(t, s.ask(t.Context()))
		tr.group.Go(func() { s.renew(ctx, tr) })
		servers = append(servers, s)
	}
	for name, read := range bundles {
		tr.anchors[name] = map[string]int{}
		reader := &reader{name: name, read: read}
		must(t, reader.refresh(ctx))
		tr.group.Go(func() { reader.run(ctx, tr) })
		for _, s := range servers {
			tr.group.Go(func() { tr.shake(ctx, reader, s) })
		}
	}
	return tr
}

// stop stops the traffic. It asserts that no handshake failed, and that each client verified certificates of each CA.
func (tr *traffic) stop(t *testing.T, fingerprints []string) {
	t.Helper()
	tr.cancel()
	tr.group.Wait()
	t.Logf("%d handshakes, %d failed; %d renewals", tr.handshakes.Load(), len(tr.failures), tr.renewals.Load())
	for i, failure := range tr.failures {
		if i == 10 {
			break
		}
		t.Errorf("a handshake failed: %s", failure)
	}
	for name, met := range tr.anchors {
		for i, fingerprint := range fingerprints {
			if met[fingerprint] == 0 {
				t.Errorf("the client that reads the %s verified no certificate of CA %d", name, i+1)
			}
		}
		if len(met) != len(fingerprints) {
			t.Errorf("the client that reads the %s trusted %d CAs in turn, want %d", name, len(met), len(fingerprints))
		}
	}
}

func (tr *traffic) fail(format string, args ...any) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.failures = append(tr.failures, time.Now().Format(time.StampMilli)+" "+fmt.Sprintf(format, args...))
}

// shake connects to a server until ctx ends.
func (tr *traffic) shake(ctx context.Context, r *reader, s *server) {
	for sleep(ctx, handshakeEvery) {
		root, err := s.handshake(ctx, r.pool.Load())
		if ctx.Err() != nil {
			return
		}
		tr.handshakes.Add(1)
		if err != nil {
			tr.fail("client of the %s with %s: %v", r.name, s.name, err)
			continue
		}
		tr.mu.Lock()
		tr.anchors[r.name][root]++
		tr.mu.Unlock()
	}
}

// reader is a client that reads one bundle at an interval.
type reader struct {
	name string
	read func(context.Context) (string, error)
	pool atomic.Pointer[x509.CertPool]
}

func (r *reader) refresh(ctx context.Context) error {
	text, err := r.read(ctx)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(text)) {
		return errors.New("the bundle holds no certificate")
	}
	r.pool.Store(pool)
	return nil
}

func (r *reader) run(ctx context.Context, tr *traffic) {
	for sleep(ctx, readEvery) {
		if err := r.refresh(ctx); err != nil && ctx.Err() == nil {
			tr.fail("reading the %s: %v", r.name, err)
		}
	}
}

// server is a Pod that renews its certificate.
type server struct {
	name, dnsName string
	signerName    string
	create        tutorial.Creator
	clientset     kubernetes.Interface
	listener      net.Listener
	certificate   atomic.Pointer[tls.Certificate]
	asked         int
}

// newServer runs a Pod without a certificate.
func newServer(t *testing.T, name, ip, signerName string) *server {
	t.Helper()
	ctx := t.Context()
	pod, err := installation.Cluster.RunPod(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}, ip)
	must(t, err)
	token, err := installation.Cluster.PodToken(ctx, pod)
	must(t, err)
	config := installation.Cluster.TokenConfig(token)
	s := &server{name: name, dnsName: name + "." + namespace + ".pod.cluster.local", signerName: signerName}
	s.create, err = tutorial.NewCreator(config)
	must(t, err)
	s.clientset, err = kubernetes.NewForConfig(config)
	must(t, err)
	s.listener, err = net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed when the traffic stops
	must(t, err)
	go s.serve()
	t.Cleanup(func() { _ = s.listener.Close() })
	return s
}

// renew requests a new certificate at an interval. An unanswered request does not fail the test, but a handshake with an
// expired certificate does.
func (s *server) renew(ctx context.Context, tr *traffic) {
	for sleep(ctx, renewEvery) {
		if err := s.ask(ctx); err == nil {
			tr.renewals.Add(1)
		}
	}
}

func (s *server) ask(ctx context.Context) error {
	s.asked++
	csr, key, err := s.create(ctx, tutorial.Request{DNSNames: []string{s.dnsName}, SignerName: s.signerName}, fmt.Sprintf("%s-%d", s.name, s.asked))
	if err != nil {
		return err
	}
	return harness.Eventually(ctx, enough, func() error {
		csr, err = s.clientset.CertificatesV1().CertificateSigningRequests().Get(ctx, csr.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if denial := tutorial.Condition(csr, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed); denial != nil {
			return fmt.Errorf("%s: %s", denial.Type, denial.Message)
		}
		if len(csr.Status.Certificate) == 0 {
			return errors.New("no certificate yet")
		}
		certificate := &tls.Certificate{PrivateKey: key}
		for rest := csr.Status.Certificate; ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			certificate.Certificate = append(certificate.Certificate, block.Bytes)
		}
		s.certificate.Store(certificate)
		return nil
	})
}

func (s *server) serve() {
	config := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.certificate.Load(), nil },
	}
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()                       //nolint:errcheck // the client reports the error
			_ = tls.Server(conn, config).Handshake() //nolint:noctx // the client reports the error
		}()
	}
}

// handshake returns the fingerprint of the root that verified the server's certificate.
func (s *server) handshake(ctx context.Context, roots *x509.CertPool) (string, error) {
	dialer := &tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: s.dnsName}}
	conn, err := dialer.DialContext(ctx, "tcp", s.listener.Addr().String())
	if err != nil {
		return "", err
	}
	defer conn.Close() //nolint:errcheck // nothing is sent
	chain := conn.(*tls.Conn).ConnectionState().VerifiedChains[0]
	return fmt.Sprintf("%x", sha256.Sum256(chain[len(chain)-1].Raw)), nil
}

// sleep returns false if ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
