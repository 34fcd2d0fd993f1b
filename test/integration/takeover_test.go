// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/test/harness"
	"countersign.dev/countersign/test/tutorial"
)

// TestTakeover kills the leader while a standby replica runs, and measures the time until a request that is created
// after the kill has a certificate. The limit is 8 s on a machine that is not busy; the test allows 12 s.
func TestTakeover(t *testing.T) {
	const (
		rounds = 2
		limit  = 12 * time.Second
	)
	for name, leader := range map[string]**harness.Process{"approver": &installation.Approver, "signer": &installation.Signer} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			for round := range rounds {
				standby, err := installation.Run(ctx, name, fmt.Sprintf("takeover-%d", round))
				must(t, err)
				must(t, standby.Ready(ctx))
				awaitRenewals(t, "countersign-"+name)
				must(t, (*leader).Kill())
				killed := time.Now()
				*leader = standby
				requestName := fmt.Sprintf("takeover-%s-%d", name, round)
				request(t, requestName, own(tutorial.SignerName))
				outcome(t, requestName, certificatesv1.CertificateApproved)
				took := time.Since(killed)
				t.Logf("%s: %.1f s from the kill of the leader to the next certificate", name, took.Seconds())
				if took > limit {
					t.Errorf("the leader was replaced after %v, want at most %v", took, limit)
				}
			}
		})
	}
}

// awaitRenewals waits until the holder of a Lease has renewed it twice, so that a replica that has just started can have
// read it.
func awaitRenewals(t *testing.T, lease string) {
	t.Helper()
	var first time.Time
	must(t, harness.Eventually(t.Context(), enough, func() error {
		l, err := world.Clientset().CoordinationV1().Leases(harness.SystemNamespace).Get(t.Context(), lease, metav1.GetOptions{})
		switch {
		case err != nil:
			return err
		case first.IsZero():
			first = l.Spec.RenewTime.Time
		case l.Spec.RenewTime.Sub(first) > 5*time.Second:
			return nil
		}
		return fmt.Errorf("renewed at %v", l.Spec.RenewTime)
	}))
}
