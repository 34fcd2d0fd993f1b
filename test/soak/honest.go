// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/test/tutorial"
)

// honest is the requester that must be served, and its results.
type honest struct {
	podClient
	mu      sync.Mutex
	results []result
	// api are the times of an update of a ConfigMap.
	api []time.Duration
}

// result is the result of one honest request.
type result struct {
	name  string
	after time.Duration // since the attacks began; negative before
	took  time.Duration
	// created and approved are parts of took; approved is 0 if that was not seen.
	created, approved time.Duration
	attacks           string
	failure           string
}

// patience is the longest time to wait for an honest request: after it, the result is a failure.
const patience = 30 * time.Second

// ask creates one honest request each second until ctx ends, and waits for those that are not issued yet.
func (w *world) ask(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		group.Go(func() {
			// A request that was created is awaited even if the soak ends.
			one, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
			defer cancel()
			r := w.askOnce(one, fmt.Sprintf("honest-%05d", n))
			w.honest.mu.Lock()
			w.honest.results = append(w.honest.results, r)
			w.honest.mu.Unlock()
			if r.failure != "" || r.took > w.settings.within {
				fmt.Fprintf(w.out, "!! %s took %s (created after %s, approved after %s) during %s %s\n", r.name, r.took.Round(time.Millisecond),
					r.created.Round(time.Millisecond), r.approved.Round(time.Millisecond), r.attacks, r.failure)
			}
		})
	}
}

func (w *world) askOnce(ctx context.Context, name string) result {
	r := result{name: name, after: time.Since(w.began), attacks: w.activeAttacks()}
	pkcs10, _, err := tutorial.Request{DNSNames: []string{"web.honest.svc", "web-0.honest.pod.cluster.local"}, IPs: []string{honestIP}}.PEM()
	if err != nil {
		r.failure = err.Error()
		return r
	}
	begin := time.Now()
	_, err = w.honest.client.CertificatesV1().CertificateSigningRequests().Create(ctx, request(name, tutorial.SignerName, pkcs10), metav1.CreateOptions{})
	r.created = time.Since(begin)
	if err == nil {
		w.mu.Lock()
		w.latest = pkcs10
		w.mu.Unlock()
		err = w.issued(ctx, name, func() { r.approved = time.Since(begin) })
	}
	if r.took = time.Since(begin); err != nil {
		r.failure = err.Error()
	}
	return r
}

// issued waits until a request has a certificate. It calls approved once when the request is approved and has none.
func (w *world) issued(ctx context.Context, name string, approved func()) error {
	once := sync.OnceFunc(approved)
	for {
		csr, err := w.Clientset().CertificatesV1().CertificateSigningRequests().Get(ctx, name, metav1.GetOptions{})
		if err == nil && len(csr.Status.Certificate) > 0 {
			return nil
		}
		if err == nil {
			if c := tutorial.Condition(csr, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed); c != nil {
				return fmt.Errorf("%s %s: %s", c.Type, c.Reason, c.Message)
			}
			if tutorial.Condition(csr, certificatesv1.CertificateApproved) != nil {
				once()
			}
			err = errors.New("no certificate")
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// measureAPI updates a ConfigMap once a second.
func (w *world) measureAPI(ctx context.Context) {
	maps := w.Clientset().CoreV1().ConfigMaps(honestNamespace)
	object, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "probe"}}, metav1.CreateOptions{})
	for tick := time.NewTicker(time.Second); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		if err != nil {
			object, err = maps.Get(ctx, "probe", metav1.GetOptions{})
			continue
		}
		begin := time.Now()
		object.Data = map[string]string{"at": begin.String()}
		object, err = maps.Update(ctx, object, metav1.UpdateOptions{})
		took := time.Since(begin)
		w.honest.mu.Lock()
		w.honest.api = append(w.honest.api, took)
		w.honest.mu.Unlock()
	}
}

// request returns a request for a serving certificate.
func request(name, signer string, pkcs10 []byte) *certificatesv1.CertificateSigningRequest {
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: pkcs10, SignerName: signer,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageServerAuth},
		},
	}
}

// quantile returns the q-quantile of durations, or 0 if there are none.
func quantile(durations []time.Duration, q float64) time.Duration {
	if len(durations) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(durations))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
