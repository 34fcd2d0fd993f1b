// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"countersign.dev/countersign/test/harness"
	"countersign.dev/countersign/test/tutorial"
)

// TestFlood: ten thousand requests of one Pod do not keep back one of another. What is asserted is the
// order, that the one is issued while nearly all of the others still wait; how long it took is told.
func TestFlood(t *testing.T) {
	const count = 10000
	ctx := t.Context()
	config := func(pod string) *rest.Config {
		token, err := world.PodToken(ctx, world.Pods[pod])
		must(t, err)
		return world.TokenConfig(token)
	}
	mine, theirs := config(tutorial.PodName), config("other-pod")
	issue := func(name string) time.Duration {
		start := time.Now()
		_, _, err := tutorial.Request{DNSNames: []string{"my-pod.my-namespace.pod.cluster.local"}}.Create(ctx, mine, name)
		must(t, err)
		outcome(t, name, certificatesv1.CertificateApproved)
		return time.Since(start)
	}
	unloaded := time.Hour
	for i := range 3 {
		unloaded = min(unloaded, issue(fmt.Sprint("unloaded-", i)))
	}

	must(t, installation.Approver.Stop())
	requests := world.Clientset().CertificatesV1().CertificateSigningRequests()
	t.Cleanup(func() {
		// The API server gives a request a minute, which may not be enough; what is deleted stays so.
		if err := harness.Eventually(context.Background(), 2*enough, func() error {
			return requests.DeleteCollection(context.Background(), metav1.DeleteOptions{}, metav1.ListOptions{})
		}); err != nil {
			t.Error(err)
		}
	})
	var group errgroup.Group
	group.SetLimit(32)
	create, err := tutorial.NewCreator(theirs)
	must(t, err)
	for i := range count {
		group.Go(func() error {
			_, _, err := create(ctx, tutorial.Request{DNSNames: []string{"other-pod.my-namespace.pod.cluster.local"}}, fmt.Sprintf("flood-%05d", i))
			return err
		})
	}
	must(t, group.Wait())
	start(t, "approver")
	must(t, installation.Approver.Ready(ctx))
	must(t, harness.Eventually(ctx, enough, func() error { // it leads, and works on the flood
		if pendingOf(t, "other-pod") == count {
			return errors.New("the approver has not begun")
		}
		return nil
	}))

	loaded := issue("not-flooded")
	left := pendingOf(t, "other-pod")
	t.Logf("unloaded %s; with %d requests of another pending %s, a ratio of %.1f", unloaded.Round(time.Millisecond), left, loaded.Round(time.Millisecond), float64(loaded)/float64(unloaded))
	if left < count/2 {
		t.Errorf("only %d of %d requests of the other Pod still wait: this shows nothing", left, count)
	}
}

// pendingOf counts the requests of a Pod without a verdict.
func pendingOf(t *testing.T, pod string) int {
	t.Helper()
	uid := string(world.Pods[pod].UID)
	n := 0
	options := metav1.ListOptions{ResourceVersion: "0"}
	list, err := world.Clientset().CertificatesV1().CertificateSigningRequests().List(t.Context(), options)
	must(t, err)
	for i := range list.Items {
		csr := &list.Items[i]
		extra := csr.Spec.Extra["authentication.kubernetes.io/pod-uid"]
		if len(extra) == 1 && extra[0] == uid && tutorial.Condition(csr, certificatesv1.CertificateApproved, certificatesv1.CertificateDenied) == nil {
			n++
		}
	}
	return n
}
