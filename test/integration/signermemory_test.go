// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/test/tutorial"
)

// TestApprovedRequestsDoNotFillMemory checks that the labels of requests, which a requester chooses, do not stay in the
// memory of the signer while no CA can issue. A request with too many is refused when one can.
func TestApprovedRequestsDoNotFillMemory(t *testing.T) {
	const (
		requests = 60
		limit    = 80 << 10 // KiB of peak RSS. The signer took 104 MiB when it stored these labels, and 56 without.
	)
	ctx := t.Context()
	c := newClient(t)
	grant(t, "heavy.example", "heavy")
	labels := map[string]string{}
	for i := range 6000 {
		labels[fmt.Sprintf("label-%06d", i)] = strings.Repeat("x", 63)
	}
	clientset := world.Clientset().CertificatesV1().CertificateSigningRequests()
	t.Cleanup(func() {
		for i := range requests {
			must(t, clientset.Delete(context.Background(), fmt.Sprint("heavy-", i), metav1.DeleteOptions{}))
		}
	})
	must(t, installation.Approver.Stop()) // it would decide them first
	var group errgroup.Group
	group.SetLimit(4)
	for i := range requests {
		group.Go(func() error {
			ask := own("heavy.example/heavy")
			pem, _, err := ask.PEM()
			if err != nil {
				return err
			}
			csr, err := clientset.Create(ctx, &certificatesv1.CertificateSigningRequest{
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("heavy-", i), Labels: labels},
				Spec:       certificatesv1.CertificateSigningRequestSpec{Request: pem, SignerName: ask.SignerName, Usages: []certificatesv1.KeyUsage{"digital signature", "server auth"}},
			}, metav1.CreateOptions{})
			if err != nil {
				return err
			}
			csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: "True", Reason: "Test"}}
			_, err = clientset.UpdateApproval(ctx, csr.Name, csr, metav1.UpdateOptions{})
			return err
		})
	}
	must(t, group.Wait())
	start(t, "approver")

	newSigner(t, c, "heavy.example", "heavy", v1alpha1.SignerCA{SecretRef: &v1alpha1.LocalObjectReference{Name: "heavy"}}) // no such Secret
	must(t, installation.Signer.Stop())
	start(t, "signer")
	must(t, installation.Signer.Ready(ctx))
	request(t, "not-heavy", own(tutorial.SignerName))
	outcome(t, "not-heavy", certificatesv1.CertificateApproved)
	peak := peakRSS(t, installation.Signer.PID())
	t.Logf("peak RSS of the signer: %d MiB", peak>>10)
	if peak > limit {
		t.Errorf("peak RSS of the signer is %d KiB, want at most %d", peak, limit)
	}
}
