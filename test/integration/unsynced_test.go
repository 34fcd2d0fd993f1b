// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"path/filepath"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/test/cluster"
	"countersign.dev/countersign/test/tutorial"
)

// TestUnsyncedCache checks that an approver that is not allowed to list Pods decides nothing and is not ready. When it is
// allowed, it decides the pending requests.
func TestUnsyncedCache(t *testing.T) {
	ctx := t.Context()
	root, err := cluster.Root()
	must(t, err)
	must(t, installation.Approver.Stop())
	roles := world.Clientset().RbacV1().ClusterRoles()
	role, err := roles.Get(ctx, "countersign-approver", metav1.GetOptions{})
	must(t, err)
	for i := range role.Rules {
		if role.Rules[i].Resources[0] == "pods" {
			role.Rules[i].Resources = role.Rules[i].Resources[1:]
		}
	}
	_, err = roles.Update(ctx, role, metav1.UpdateOptions{})
	must(t, err)
	start(t, "approver")
	token, err := world.PodToken(ctx, world.Pods[tutorial.PodName])
	must(t, err)
	_, _, err = tutorial.Request{DNSNames: []string{"other-pod.my-namespace.pod.cluster.local"}}.Create(ctx, world.TokenConfig(token), "unsynced")
	must(t, err)
	for range 20 { // readyz takes up to a second each time
		if _, err := installation.Approver.Probe(ctx, "/readyz"); err == nil {
			t.Fatal("the approver is ready and cannot list Pods")
		}
	}
	csr, err := world.Clientset().CertificatesV1().CertificateSigningRequests().Get(ctx, "unsynced", metav1.GetOptions{})
	must(t, err)
	if len(csr.Status.Conditions) > 0 {
		t.Errorf("decided without the cache of Pods: %+v", csr.Status.Conditions)
	}
	must(t, installation.Approver.Stop())
	_, err = world.Kubectl(ctx, nil, "apply", "--server-side", "--force-conflicts", "-k", filepath.Join(root, "deploy/overlays/default"))
	must(t, err)
	remove(t, "validatingwebhookconfiguration/countersign") // as harness.Install does
	start(t, "approver")
	must(t, installation.Approver.Ready(ctx))
	outcome(t, "unsynced", certificatesv1.CertificateDenied)
}
