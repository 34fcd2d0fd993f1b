// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

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
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	fakeclient "k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
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

// issue signs a serving certificate, in PEM.
func (a *authority) issue(public any, names []string, notAfter time.Time) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: notAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}

// signing is a client of an API server where the authority approves and signs every request at once.
func (a *authority) signing(asked *[]certificatesv1.CertificateSigningRequestSpec) kubernetes.Interface {
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
		*asked = append(*asked, csr.Spec)
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

// TestACertificateIsAskedFor, and asked for again when it must be; what is served meanwhile is the old one.
func TestACertificateIsAskedFor(t *testing.T) {
	before, after := newAuthority(t, "before"), newAuthority(t, "after")
	var asked []certificatesv1.CertificateSigningRequestSpec
	now, away := before, false
	i := &issued{signerName: "countersign.dev/webhook", dnsName: "countersign-webhook.countersign-system.svc"}
	answering := make(chan struct{})
	i.clients = func(*tls.Certificate) (kubernetes.Interface, error) {
		if away {
			answering <- struct{}{}
			return nil, errors.New("connection refused")
		}
		return now.signing(&asked), nil
	}
	if _, err := i.GetCertificate(nil); !errors.Is(err, errNoCertificate) {
		t.Errorf("before it is started: %v", err)
	}
	if asked, err := i.renew(); asked || err != nil {
		t.Errorf("renewing before it is started: %v, %v", asked, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- i.Start(ctx) }()
	first := by(t, i, before)
	if want := []string{"countersign-webhook.countersign-system.svc"}; !slices.Equal(first.Leaf.DNSNames, want) {
		t.Errorf("for %v, want %v", first.Leaf.DNSNames, want)
	}
	usages := []certificatesv1.KeyUsage{"digital signature", "key encipherment", "server auth"}
	if spec := asked[0]; spec.SignerName != "countersign.dev/webhook" || !slices.Equal(spec.Usages, usages) {
		t.Errorf("asked for %v of %s", spec.Usages, spec.SignerName)
	}

	now, away = after, true
	if asked, err := i.renew(); !asked || err != nil {
		t.Fatal(asked, err)
	}
	<-answering // the API server is asked, and away
	if still, err := i.GetCertificate(nil); err != nil || still != first {
		t.Errorf("%v is served while another is asked for: %v", still, err)
	}
	if asked, err := i.renew(); asked || err != nil {
		t.Errorf("renewing while one is being asked for: %v, %v", asked, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestAnotherCertificate: after the CA was replaced.
func TestAnotherCertificate(t *testing.T) {
	before, after := newAuthority(t, "before"), newAuthority(t, "after")
	var asked []certificatesv1.CertificateSigningRequestSpec
	clients := make(chan kubernetes.Interface, 2)
	clients <- before.signing(&asked)
	clients <- after.signing(&asked)
	i := &issued{signerName: "countersign.dev/webhook", dnsName: "x.y.svc", clients: func(*tls.Certificate) (kubernetes.Interface, error) { return <-clients, nil }}
	go func() { _ = i.Start(t.Context()) }()
	by(t, i, before)
	if asked, err := i.renew(); !asked || err != nil {
		t.Fatal(asked, err)
	}
	by(t, i, after)
	if len(asked) != 2 {
		t.Errorf("asked %d times", len(asked))
	}
}

// by waits for a certificate of an authority.
func by(t *testing.T, i *issued, a *authority) *tls.Certificate {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if served, err := i.GetCertificate(nil); err == nil && served.Leaf.Issuer.CommonName == a.cert.Subject.CommonName {
			return served
		}
	}
	t.Fatalf("no certificate by %s came", a.cert.Subject.CommonName)
	return nil
}

func TestUsable(t *testing.T) {
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
	for name, tc := range map[string]struct {
		served *tls.Certificate
		err    error
		now    time.Time
		want   string
	}{
		"good":   {served: good, now: time.Now()},
		"none":   {now: time.Now(), want: "there is no serving certificate yet: is the request for it approved and signed?"},
		"error":  {err: errors.New("no file"), now: time.Now(), want: "no file"},
		"ended":  {served: good, now: end.Add(time.Second), want: "the serving certificate ended at " + end.UTC().Format(time.RFC3339)},
		"broken": {served: &tls.Certificate{Certificate: [][]byte{{1}}}, now: time.Now(), want: "x509: malformed certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			err := usable(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return tc.served, tc.err }, tc.now)
			if (err == nil) != (tc.want == "") || err != nil && err.Error() != tc.want {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}
