// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"countersign.dev/countersign/test/tutorial"
)

// requesterAttacks are those of a user that can create requests and has no other right.
func requesterAttacks() []*attack {
	return []*attack{
		{user: requesterUser, name: "large-labels", rate: 10, workers: 4, step: largeLabels},
		{user: requesterUser, name: "held-large", rate: 15, workers: 4, step: heldLarge},
		{user: requesterUser, name: "held-many", rate: 100, workers: 8, step: heldMany},
		{user: requesterUser, name: "many-names", rate: 50, workers: 4, step: manyNames},
		{user: requesterUser, name: "garbage", rate: 50, workers: 4, step: garbage},
		{user: requesterUser, name: "same-key", rate: 50, workers: 4, step: sameKey},
		{user: requesterUser, name: "small-flood", rate: 200, workers: 16, step: smallFlood},
		{user: requesterUser, name: "bait", rate: 10, workers: 4, step: bait},
	}
}

// attackKey signs the requests that do not need a key of their own.
var attackKey = sync.OnceValues(func() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) })

// create creates a request and remembers it for the cleaner.
func (w *world) create(ctx context.Context, as kubernetes.Interface, ask tutorial.Request, signer, prefix string, labels map[string]string) error {
	if ask.Key == nil && ask.PKCS10 == nil {
		key, err := attackKey()
		if err != nil {
			return err
		}
		ask.Key = key
	}
	pkcs10, _, err := ask.PEM()
	if err != nil {
		return err
	}
	csr := request(randomName(prefix), signer, pkcs10)
	csr.Labels = labels
	if _, err := as.CertificatesV1().CertificateSigningRequests().Create(ctx, csr, metav1.CreateOptions{}); err != nil {
		return err
	}
	w.created.add(csr.Name, csr.Size())
	return nil
}

// largeLabels creates requests with labels of 1.2 MB, for a signer of Countersign's and for others.
func largeLabels(ctx context.Context, w *world, n int) error {
	labels := w.settings.longLabels()
	if n%2 == 1 {
		labels = w.settings.shortLabels()
	}
	signer := tutorial.SignerName
	if n%4 > 1 {
		signer = "unrelated.example/x"
	}
	return w.create(ctx, w.requester, tutorial.Request{DNSNames: []string{"web.honest.svc"}}, signer, "large", labels)
}

// heldLarge creates requests of a Pod that has no address, with labels of 1.2 MB: they are held.
func heldLarge(ctx context.Context, w *world, n int) error {
	labels := w.settings.longLabels()
	if n%2 == 1 {
		labels = w.settings.shortLabels()
	}
	return w.create(ctx, w.pending.client, held(), tutorial.SignerName, "held-large", labels)
}

// held requests the address that the pending Pod does not have yet.
func held() tutorial.Request {
	return tutorial.Request{DNSNames: []string{"pending.editor.pod.cluster.local"}, IPs: []string{"10.0.35.99"}}
}

func heldMany(ctx context.Context, w *world, _ int) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ask := held()
	ask.Key = key
	return w.create(ctx, w.pending.client, ask, tutorial.SignerName, "held", nil)
}

// manyNames requests 64 names of other namespaces, or far more, which is too much.
func manyNames(ctx context.Context, w *world, n int) error {
	ask, names := tutorial.Request{}, 64
	if n%10 == 9 {
		names = 400
	}
	for i := range names {
		switch i % 3 {
		case 0:
			ask.IPs = append(ask.IPs, fmt.Sprintf("10.1.%d.%d", n&0xff, i&0xff))
		case 1:
			ask.DNSNames = append(ask.DNSNames, fmt.Sprintf("many-%d.editor.svc.cluster.local", n+i))
		default:
			ask.DNSNames = append(ask.DNSNames, fmt.Sprintf("web-%d-%d.honest.svc", n, i))
		}
	}
	as := w.requester
	if n%2 == 1 {
		as = w.running.client
	}
	return w.create(ctx, as, ask, tutorial.SignerName, "names", nil)
}

// garbage creates requests that the API server accepts, and no policy: other PEM blocks follow, names are malformed,
// the common name is long.
func garbage(ctx context.Context, w *world, n int) error {
	key, err := attackKey()
	if err != nil {
		return err
	}
	ask := tutorial.Request{Key: key, DNSNames: []string{"web.honest.svc"}}
	switch n % 4 {
	case 0:
		ask.DNSNames = []string{"a,DNS:b", "..", strings.Repeat("a.", 3000), "\x7f"}
	case 1:
		ask.CommonName = strings.Repeat("x", 100_000)
	case 2:
		ask.URIs = []string{"spiffe://a,b/" + strings.Repeat("c", 100_000)}
	}
	pkcs10, _, err := ask.PEM()
	if err != nil {
		return err
	}
	if n%4 == 3 {
		pkcs10 = append(pkcs10, bytes.Repeat([]byte("trailing text\n"), 70_000)...)
	}
	return w.create(ctx, w.requester, tutorial.Request{PKCS10: pkcs10}, tutorial.SignerName, "garbage", nil)
}

// sameKey copies the newest request of the honest requester.
func sameKey(ctx context.Context, w *world, n int) error {
	w.mu.Lock()
	pkcs10 := w.latest
	w.mu.Unlock()
	if pkcs10 == nil {
		return nil
	}
	as := w.requester
	if n%2 == 1 {
		as = w.pending.client
	}
	return w.create(ctx, as, tutorial.Request{PKCS10: pkcs10}, tutorial.SignerName, "copy", nil)
}

func smallFlood(ctx context.Context, w *world, n int) error {
	signer := tutorial.SignerName
	if n%3 == 2 {
		signer = fmt.Sprintf("unrelated-%d.example/x", n%100)
	}
	return w.create(ctx, w.requester, tutorial.Request{DNSNames: []string{"web.honest.svc"}}, signer, "small", nil)
}

// bait creates requests for the signers of the author, whose policies then run.
func bait(ctx context.Context, w *world, n int) error {
	return w.create(ctx, w.requester, tutorial.Request{DNSNames: []string{"web.honest.svc"}}, fmt.Sprintf("%s/bomb-%d", authorDomain, n%len(bombs)), "bait", nil)
}
