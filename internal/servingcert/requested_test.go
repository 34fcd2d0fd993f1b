// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package servingcert

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	fakeclient "k8s.io/client-go/kubernetes/fake"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
	clientfake "sigs.k8s.io/controller-runtime/pkg/client/fake"
)

// authority is a CA.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert: cert, key: key}
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// issue returns a serving certificate in PEM.
func (a *authority) issue(public any, names []string, notAfter time.Time) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: notAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}

// signing returns a client of an API server where the authority approves and signs every request at once.
func (a *authority) signing(requests *[]certificatesv1.CertificateSigningRequestSpec) kubernetes.Interface {
	client := fakeclient.NewClientset()
	client.PrependReactor("create", "certificatesigningrequests", func(action clienttesting.Action) (bool, runtime.Object, error) {
		create, ok := action.(clienttesting.CreateAction)
		if !ok {
			return false, nil, nil
		}
		csr, ok := create.GetObject().(*certificatesv1.CertificateSigningRequest)
		if !ok {
			return false, nil, nil
		}
		*requests = append(*requests, csr.Spec)
		block, _ := pem.Decode(csr.Spec.Request)
		parsed, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			return true, nil, err
		}
		csr.Name = csr.GenerateName + "1"
		csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: "True"}}
		csr.Status.Certificate, err = a.issue(parsed.PublicKey, parsed.DNSNames, time.Now().Add(time.Hour))
		if err != nil {
			return true, nil, err
		}
		return true, csr, client.Tracker().Add(csr)
	})
	return client
}

// TestRequested: a certificate is requested, and the current one is served while a new one is requested.
func TestRequested(t *testing.T) {
	before, after := newAuthority(t, "before"), newAuthority(t, "after")
	var requests []certificatesv1.CertificateSigningRequestSpec
	now, away := before, false
	r := &requested{signerName: "countersign.dev/webhook", dnsNames: []string{"countersign-webhook.my-namespace.svc"}}
	answering := make(chan struct{})
	r.clients = func(*tls.Certificate) (kubernetes.Interface, error) {
		if away {
			answering <- struct{}{}
			return nil, errors.New("connection refused")
		}
		return now.signing(&requests), nil
	}
	if _, err := r.GetCertificate(nil); !errors.Is(err, errNoCertificate) {
		t.Errorf("before it is started: %v", err)
	}
	if begun, err := r.renew(); begun || err != nil {
		t.Errorf("renewing before it is started: %v, %v", begun, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.Start(ctx) }()
	first := issuedBy(t, r, before)
	if want := []string{"countersign-webhook.my-namespace.svc"}; !slices.Equal(first.Leaf.DNSNames, want) {
		t.Errorf("DNS names %v, want %v", first.Leaf.DNSNames, want)
	}
	usages := []certificatesv1.KeyUsage{"digital signature", "key encipherment", "server auth"}
	if spec := requests[0]; spec.SignerName != "countersign.dev/webhook" || !slices.Equal(spec.Usages, usages) {
		t.Errorf("requested usages %v of %s", spec.Usages, spec.SignerName)
	}

	now, away = after, true
	if begun, err := r.renew(); !begun || err != nil {
		t.Fatal(begun, err)
	}
	<-answering // a request has failed
	if still, err := r.GetCertificate(nil); err != nil || still != first {
		t.Errorf("got %v, error %v while a request is pending, want the current certificate", still, err)
	}
	if begun, err := r.renew(); begun || err != nil {
		t.Errorf("renewing while a request is pending: %v, %v", begun, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestRequested_renew: renew requests a certificate of the new CA.
func TestRequested_renew(t *testing.T) {
	before, after := newAuthority(t, "before"), newAuthority(t, "after")
	var requests []certificatesv1.CertificateSigningRequestSpec
	clients := make(chan kubernetes.Interface, 2)
	clients <- before.signing(&requests)
	clients <- after.signing(&requests)
	r := &requested{signerName: "countersign.dev/webhook", dnsNames: []string{"x.y.svc"}, clients: func(*tls.Certificate) (kubernetes.Interface, error) { return <-clients, nil }}
	go func() { _ = r.Start(t.Context()) }()
	issuedBy(t, r, before)
	if begun, err := r.renew(); !begun || err != nil {
		t.Fatal(begun, err)
	}
	issuedBy(t, r, after)
	if len(requests) != 2 {
		t.Errorf("%d requests, want 2", len(requests))
	}
}

// issuedBy waits for a certificate of an authority.
func issuedBy(t *testing.T, r *requested, a *authority) *tls.Certificate {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if served, err := r.GetCertificate(nil); err == nil && served.Leaf.Issuer.CommonName == a.cert.Subject.CommonName {
			return served
		}
	}
	t.Fatalf("no certificate of %s in 30 s", a.cert.Subject.CommonName)
	return nil
}

func TestCheck(t *testing.T) {
	ca := newAuthority(t, "ca")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(time.Hour).Truncate(time.Second)
	chain, err := ca.issue(key.Public(), []string{"x"}, end)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(chain)
	good := &tls.Certificate{Certificate: [][]byte{block.Bytes}}
	for _, tc := range []struct {
		name    string
		served  *tls.Certificate
		err     error
		now     time.Time
		expires time.Time
		want    string
	}{
		{name: "valid", served: good, now: time.Now(), expires: end},
		{name: "none", now: time.Now(), want: "no serving certificate yet: check that its CertificateSigningRequest is approved and signed"},
		{name: "error", err: errors.New("no file"), now: time.Now(), want: "no file"},
		{name: "expired", served: good, now: end.Add(time.Second), expires: end, want: "the serving certificate expired at " + end.UTC().Format(time.RFC3339)},
		{name: "malformed", served: &tls.Certificate{Certificate: [][]byte{{1}}}, now: time.Now(), want: "x509: malformed certificate"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			expires, err := check(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return tc.served, tc.err }, tc.now)
			if (err == nil) != (tc.want == "") || err != nil && err.Error() != tc.want {
				t.Errorf("error %v, want %q", err, tc.want)
			}
			if !expires.Equal(tc.expires) {
				t.Errorf("expires %s, want %s", expires, tc.expires)
			}
		})
	}
}

// TestPendingRequest checks the reason of the readiness check at each stage of the request.
func TestPendingRequest(t *testing.T) {
	condition := func(kind certificatesv1.RequestConditionType, message string) certificatesv1.CertificateSigningRequestStatus {
		return certificatesv1.CertificateSigningRequestStatus{Conditions: []certificatesv1.CertificateSigningRequestCondition{{Type: kind, Status: corev1.ConditionTrue, Message: message}}}
	}
	for _, tc := range []struct {
		name   string
		none   bool // no request has been created
		cached bool
		status certificatesv1.CertificateSigningRequestStatus
		want   string
	}{
		{name: "not created", none: true, want: "waiting for a certificate: its CertificateSigningRequest has not been created yet, see the log"},
		{name: "not in the cache", want: "waiting for a certificate: CertificateSigningRequest csr-1 is pending: see its Events, and the policies for its signerName"},
		{name: "pending", cached: true, want: "waiting for a certificate: CertificateSigningRequest csr-1 is pending: see its Events, and the policies for its signerName"},
		{name: "approved", cached: true, status: condition(certificatesv1.CertificateApproved, ""), want: "waiting for a certificate: CertificateSigningRequest csr-1 is approved and not issued: see the Signer with its signerName"},
		{name: "denied", cached: true, status: condition(certificatesv1.CertificateDenied, "not allowed by webhook"), want: "waiting for a certificate: CertificateSigningRequest csr-1 is denied: not allowed by webhook"},
		{name: "failed", cached: true, status: condition(certificatesv1.CertificateFailed, "too long"), want: "waiting for a certificate: CertificateSigningRequest csr-1 failed: too long"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			csr := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "csr-1"}, Status: tc.status}
			c, err := New(Options{SignerName: "example.com/serving", DNSNames: []string{"x"}})
			if err != nil {
				t.Fatal(err)
			}
			if !tc.none {
				observed := c.requested.pending.observe(fakeclient.NewClientset())
				if _, err := observed.CertificatesV1().CertificateSigningRequests().Create(t.Context(), csr, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			builder := clientfake.NewClientBuilder().WithScheme(clientgoscheme.Scheme)
			if tc.cached {
				builder.WithObjects(csr)
			}
			if _, err := c.Check(t.Context(), builder.Build(), time.Now()); err == nil || err.Error() != tc.want {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}
