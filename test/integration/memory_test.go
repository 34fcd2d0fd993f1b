// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"countersign.dev/countersign/test/tutorial"
)

// TestHostileObjectsDoNotFillMemory creates objects as large as the API server accepts: Services by a user that can edit
// a namespace, and requests by a Pod. An approver that starts among them stays small, and issues an honest request.
func TestHostileObjectsDoNotFillMemory(t *testing.T) {
	const (
		namespace = "hostile"
		services  = 6
		requests  = 30
		limit     = 200 << 10 // KiB of peak RSS
	)
	ctx := t.Context()
	clientset := world.Clientset()
	_, err := clientset.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	must(t, err)
	token, err := world.PodToken(ctx, world.Pods["other-pod"])
	must(t, err)
	hostile, err := kubernetes.NewForConfig(world.TokenConfig(token))
	must(t, err)
	must(t, installation.Approver.Stop())
	t.Cleanup(func() {
		ctx := context.Background()
		for i := range services {
			must(t, clientset.CoreV1().Services(namespace).Delete(ctx, fmt.Sprint("large-", i), metav1.DeleteOptions{}))
		}
		for i := range requests {
			must(t, clientset.CertificatesV1().CertificateSigningRequests().Delete(ctx, fmt.Sprint("large-", i), metav1.DeleteOptions{}))
		}
		must(t, clientset.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{}))
	})

	addresses := make([]string, 85000)
	for i := range addresses {
		addresses[i] = fmt.Sprintf("10.%d.%d.%d", i>>16+1, i>>8&255, i&255)
	}
	labels := map[string]string{}
	for i := range 13000 {
		labels[fmt.Sprintf("label-%06d", i)] = strings.Repeat("x", 63)
	}
	var group errgroup.Group
	group.SetLimit(4)
	for i := range services {
		group.Go(func() error {
			_, err := clientset.CoreV1().Services(namespace).Create(ctx, &corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("large-", i)},
				Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 443}}, ExternalIPs: addresses},
			}, metav1.CreateOptions{})
			return err
		})
	}
	for i := range requests {
		group.Go(func() error {
			// A name of its own that does not exist yet: the request is held.
			pem, _, err := tutorial.Request{DNSNames: []string{fmt.Sprintf("late-%d.my-namespace.svc.cluster.local", i)}}.PEM()
			if err != nil {
				return err
			}
			_, err = hostile.CertificatesV1().CertificateSigningRequests().Create(ctx, &certificatesv1.CertificateSigningRequest{
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("large-", i), Labels: labels},
				Spec: certificatesv1.CertificateSigningRequestSpec{
					Request: pem, SignerName: tutorial.SignerName, Usages: []certificatesv1.KeyUsage{"digital signature", "server auth"},
				},
			}, metav1.CreateOptions{})
			return err
		})
	}
	must(t, group.Wait())

	start(t, "approver")
	must(t, installation.Approver.Ready(ctx))
	began := time.Now()
	request(t, "not-hostile", own(tutorial.SignerName))
	t.Logf("an honest request was approved after %s", time.Since(began).Round(time.Millisecond))
	peak := peakRSS(t, installation.Approver.PID())
	t.Logf("peak RSS of the approver: %d MiB", peak>>10)
	if peak > limit {
		t.Errorf("peak RSS of the approver is %d KiB, want at most %d", peak, limit)
	}
}

// peakRSS returns the peak resident memory of a process in KiB, from proc(5). It skips the test on other systems.
func peakRSS(t *testing.T, pid int) int {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skip("reading the memory of a process: ", err)
	}
	for line := range strings.Lines(string(raw)) {
		var kib int
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib
		}
	}
	t.Skip("no peak of the memory of a process")
	return 0
}
