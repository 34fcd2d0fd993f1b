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
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/test/harness"
	"countersign.dev/countersign/test/tutorial"
)

// TestFlood checks that 10,000 requests of one Pod do not delay a request of another Pod: it is issued while nearly all
// others are pending. The test logs the latency and does not assert it.
func TestFlood(t *testing.T) {
	const count = 10000
	ctx := t.Context()
	config := func(pod string) *rest.Config {
		token, err := world.PodToken(ctx, world.Pods[pod])
		must(t, err)
		return world.TokenConfig(token)
	}
	own, flooding := config(tutorial.PodName), config("other-pod")
	issue := func(name string) time.Duration {
		start := time.Now()
		_, _, err := tutorial.Request{DNSNames: []string{"my-pod.my-namespace.pod.cluster.local"}}.Create(ctx, own, name)
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
		// Each by itself: the API server deletes a collection one object at a time, and in a minute at most.
		ctx := context.Background()
		if err := harness.Eventually(ctx, 2*enough, func() error {
			list, err := requests.List(ctx, metav1.ListOptions{})
			if err != nil {
				return err
			}
			var group errgroup.Group
			group.SetLimit(32)
			for i := range list.Items {
				group.Go(func() error {
					return client.IgnoreNotFound(requests.Delete(ctx, list.Items[i].Name, metav1.DeleteOptions{}))
				})
			}
			return group.Wait()
		}); err != nil {
			t.Error(err)
		}
	})
	var group errgroup.Group
	group.SetLimit(32)
	create, err := tutorial.NewCreator(flooding)
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
	must(t, harness.Eventually(ctx, enough, func() error { // the approver leads and has started to decide
		if pendingOf(t, "other-pod") == count {
			return errors.New("the approver has decided no request")
		}
		return nil
	}))

	loaded := issue("not-flooded")
	left := pendingOf(t, "other-pod")
	t.Logf("unloaded %s; with %d requests of another pending %s, a ratio of %.1f", unloaded.Round(time.Millisecond), left, loaded.Round(time.Millisecond), float64(loaded)/float64(unloaded))
	if left < count/2 {
		t.Errorf("only %d of %d requests of the other Pod are pending: the test is not conclusive", left, count)
	}
}

// pendingOf returns the number of requests of a Pod that have no verdict.
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
