// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/test/harness"
)

// TestStartWithoutAPIServer starts each process while the API server does not run. It says so in readyz and in the log,
// and works once the API server runs.
func TestStartWithoutAPIServer(t *testing.T) {
	tokens := map[string]string{}
	for _, name := range []string{"approver", "signer"} {
		token, err := world.ServiceAccountToken(t.Context(), harness.SystemNamespace, "countersign-"+name)
		must(t, err)
		tokens[name] = token
	}
	must(t, world.StopAPIServer())
	running := true
	start := func() {
		if running {
			return
		}
		must(t, world.StartAPIServer(context.Background()))
		running = true
	}
	running = false
	t.Cleanup(start)
	started := map[string]*harness.Process{}
	for name, token := range tokens {
		p, err := installation.RunAs(t.Context(), name, "late", token)
		must(t, err)
		t.Cleanup(func() {
			if err := p.Stop(); err != nil {
				t.Error(err)
			}
		})
		started[name] = p
		must(t, harness.Eventually(t.Context(), enough, func() error {
			_, err := p.Probe(t.Context(), "/readyz")
			if err == nil {
				t.Fatalf("%s is ready without an API server", name)
			}
			return contains(err.Error(), "[-]apiserver failed: API server https://", "is not reachable: ", "connection refused")
		}))
		must(t, harness.Eventually(t.Context(), enough, func() error { return contains(p.Tail(), "the API server is not reachable, retrying") }))
	}
	start()
	restartExited(t) // leaders that could not renew their Lease have exited
	for _, p := range started {
		must(t, p.Ready(t.Context()))
	}
}

// TestNotReadyEvent checks that a webhook that waits for its certificate says so in readyz and in an Event about its Pod.
// No Signer serves the signerName of its certificate.
func TestNotReadyEvent(t *testing.T) {
	installation.Env = map[string][]string{"webhook": {"POD_UID=11111111-2222-4333-8444-555555555555"}}
	t.Cleanup(func() { installation.Env = nil })
	p, err := installation.Run(t.Context(), "webhook", "countersign-webhook-waiting", "--webhook-bind-address=127.0.0.1:19443")
	must(t, err)
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	var message string
	must(t, harness.Eventually(t.Context(), enough, func() error {
		_, err := p.Probe(t.Context(), "/readyz")
		if err == nil {
			t.Fatal("ready without a certificate")
		}
		if err := contains(err.Error(), "[-]certificate failed: waiting for a certificate: CertificateSigningRequest csr-", " is pending"); err != nil {
			return err
		}
		events, err := world.Clientset().CoreV1().Events(harness.SystemNamespace).List(t.Context(), metav1.ListOptions{
			FieldSelector: "involvedObject.name=countersign-webhook-waiting,reason=NotReady",
		})
		if err != nil {
			return err
		}
		if len(events.Items) == 0 {
			return errors.New("no Event")
		}
		message = events.Items[0].Message
		return nil
	}))
	if err := contains(message, "certificate: waiting for a certificate: CertificateSigningRequest csr-"); err != nil {
		t.Error(fmt.Errorf("the Event: %w", err))
	}
}
