// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/test/harness"
	"countersign.dev/countersign/test/tutorial"
)

// TestApprovalAge checks that a Signer with a maxApprovalAge of one hour does not sign a request that a user approved
// two hours ago. The request gets a condition and an Event, and is issued when the Signer allows a higher age.
func TestApprovalAge(t *testing.T) {
	ctx := t.Context()
	apply(t, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: late-signer}
rules:
  - {apiGroups: [certificates.k8s.io], resources: [signers], resourceNames: [example.com/late], verbs: [sign]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: late-signer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: late-signer}
subjects:
  - {kind: ServiceAccount, name: countersign-signer, namespace: countersign-system}
---
apiVersion: countersign.dev/v1alpha1
kind: Signer
metadata: {name: late}
spec:
  signerName: example.com/late
  ca: {secretRef: {name: serving-ca}}
`)
	t.Cleanup(func() { remove(t, "signer/late", "clusterrole/late-signer", "clusterrolebinding/late-signer") })

	requests := world.Clientset().CertificatesV1().CertificateSigningRequests()
	token, err := world.PodToken(ctx, world.Pods[tutorial.PodName])
	must(t, err)
	_, _, err = tutorial.Request{DNSNames: []string{"my-pod.my-namespace.pod.cluster.local"}, SignerName: "example.com/late"}.Create(ctx, world.TokenConfig(token), "late")
	must(t, err)
	csr, err := requests.Get(ctx, "late", metav1.GetOptions{})
	must(t, err)
	csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Manual", Message: "two hours ago",
		LastUpdateTime: metav1.NewTime(time.Now().Add(-2 * time.Hour)),
	}}
	_, err = requests.UpdateApproval(ctx, "late", csr, metav1.UpdateOptions{})
	must(t, err)

	must(t, harness.Eventually(ctx, enough, func() error {
		return contains(kubectl(t, "get", "csr", "late", "-o", "jsonpath={.status}"), `"type":"ApprovalTooOld"`, "spec.maxApprovalAge")
	}))
	must(t, harness.Eventually(ctx, enough, func() error {
		events, err := world.Events(ctx, "late")
		if err != nil {
			return err
		}
		return contains(strings.Join(events, " "), v1alpha1.ConditionApprovalTooOld)
	}))
	csr, err = requests.Get(ctx, "late", metav1.GetOptions{})
	must(t, err)
	if got := tutorial.OutcomeOf(csr); got.Condition != certificatesv1.CertificateApproved || got.Certificate {
		t.Errorf("got %+v, want approved and no certificate", got)
	}

	kubectl(t, "patch", "signer", "late", "--type=merge", "-p", `{"spec":{"maxApprovalAge":"24h"}}`)
	csr = outcome(t, "late", certificatesv1.CertificateApproved)
	if len(csr.Status.Conditions) != 1 {
		t.Errorf("conditions of an issued request: %+v", csr.Status.Conditions)
	}
}

// TestSignerOfADomain checks that a Signer with a signerName pattern is rejected.
func TestSignerOfADomain(t *testing.T) {
	_, err := world.Kubectl(t.Context(), strings.NewReader(`
apiVersion: countersign.dev/v1alpha1
kind: Signer
metadata: {name: domain}
spec:
  signerName: example.com/*
  ca: {secretRef: {name: serving-ca}}
`), "apply", "-f", "-")
	if err == nil {
		remove(t, "signer/domain")
	}
	if err == nil || !strings.Contains(err.Error(), "spec.signerName") {
		t.Errorf("got %v, want an error about spec.signerName", err)
	}
}
