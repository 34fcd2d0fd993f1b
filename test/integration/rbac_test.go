// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applycertificatesv1 "k8s.io/client-go/applyconfigurations/certificates/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"

	"countersign.dev/countersign/test/harness"
	"countersign.dev/countersign/test/tutorial"
)

// TestSignerIsRefused sends requests with the signer's token that must be forbidden, and for each a similar one that must
// be allowed. Writes are dry runs, which the API server authorizes and admits like other writes.
func TestSignerIsRefused(t *testing.T) {
	ctx := t.Context()
	token, err := world.ServiceAccountToken(ctx, harness.SystemNamespace, "countersign-signer")
	must(t, err)
	signer, err := kubernetes.NewForConfig(world.TokenConfig(token))
	must(t, err)
	secret, err := world.Clientset().CoreV1().Secrets(harness.SystemNamespace).Get(ctx, "serving-ca", metav1.GetOptions{})
	must(t, err)
	certificate := string(secret.Data[corev1.TLSCertKey])
	other := secret.DeepCopy()
	other.ObjectMeta = metav1.ObjectMeta{Name: "not-named"}
	_, err = world.Clientset().CoreV1().Secrets(harness.SystemNamespace).Create(ctx, other, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() { remove(t, "secret/not-named", "-n", harness.SystemNamespace) })
	// RBAC allows these, so that only the admission plugin can refuse them.
	kubectl(t, "create", "clusterrole", "other-bundles", "--resource=clustertrustbundles.certificates.k8s.io", "--resource-name=example.com:other:serving", "--verb=create,patch")
	kubectl(t, "create", "clusterrolebinding", "other-bundles", "--clusterrole=other-bundles", "--serviceaccount="+harness.SystemNamespace+":countersign-signer")
	t.Cleanup(func() { remove(t, "clusterrole/other-bundles", "clusterrolebinding/other-bundles") })

	soonThat(t, func() error { // an object that exists can be deleted
		_, _, err := published(t, "default", configMapName)
		return err
	})

	request := func(name, signerName string) *certificatesv1.CertificateSigningRequest {
		_, _, err := tutorial.Request{DNSNames: []string{"example.com"}, CA: true, SignerName: signerName}.Create(ctx, world.Config(), name)
		must(t, err)
		t.Cleanup(func() { remove(t, "csr/"+name) })
		if signerName == tutorial.SignerName {
			verdict(t, name) // the approver does not write to it after that
		}
		csr, err := world.Clientset().CertificatesV1().CertificateSigningRequests().Get(ctx, name, metav1.GetOptions{})
		must(t, err)
		return csr
	}
	ours, foreign := request("rbac-ours", tutorial.SignerName), request("rbac-foreign", "example.com/unserved")

	dryRun := []string{metav1.DryRunAll}
	applied := metav1.ApplyOptions{FieldManager: "countersign-signer", Force: true, DryRun: dryRun}
	core, certificates := signer.CoreV1(), signer.CertificatesV1()
	list := func(name string) metav1.ListOptions {
		if name == "" {
			return metav1.ListOptions{}
		}
		return metav1.ListOptions{FieldSelector: "metadata.name=" + name}
	}
	getSecret := func(name string) error {
		_, err := core.Secrets(harness.SystemNamespace).Get(ctx, name, metav1.GetOptions{})
		return err
	}
	listSecrets := func(name string) error {
		_, err := core.Secrets(harness.SystemNamespace).List(ctx, list(name))
		return err
	}
	listConfigMaps := func(name string) error {
		_, err := core.ConfigMaps("").List(ctx, list(name))
		return err
	}
	watchConfigMaps := func(name string) error {
		w, err := core.ConfigMaps("").Watch(ctx, list(name))
		if err == nil {
			w.Stop()
		}
		return err
	}
	applyConfigMap := func(namespace, name string) error {
		_, err := core.ConfigMaps(namespace).Apply(ctx, applycorev1.ConfigMap(name, namespace).WithData(map[string]string{"ca.crt": "x"}), applied)
		return err
	}
	applyBundle := func(signerName, name string) error {
		_, err := certificates.ClusterTrustBundles().Apply(ctx, applycertificatesv1.ClusterTrustBundle(strings.ReplaceAll(signerName, "/", ":")+":"+name).
			WithSpec(applycertificatesv1.ClusterTrustBundleSpec().WithSignerName(signerName).WithTrustBundle(certificate)), applied)
		return err
	}
	deleteConfigMap := func(namespace, name string) error {
		return core.ConfigMaps(namespace).Delete(ctx, name, metav1.DeleteOptions{DryRun: dryRun})
	}
	approve := func() error {
		csr := foreign.DeepCopy()
		csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test",
		})
		_, err := certificates.CertificateSigningRequests().UpdateApproval(ctx, csr.Name, csr, metav1.UpdateOptions{DryRun: dryRun})
		return err
	}
	sign := func(csr *certificatesv1.CertificateSigningRequest) error {
		patch, err := json.Marshal([]map[string]any{{"op": "add", "path": "/status/certificate", "value": []byte(certificate)}})
		must(t, err)
		_, err = certificates.CertificateSigningRequests().Patch(ctx, csr.Name, types.JSONPatchType, patch, metav1.PatchOptions{DryRun: dryRun}, "status")
		return err
	}

	for _, tc := range []struct {
		what    string
		refused error
		says    string // part of it
		beside  string // what is allowed
		allowed error
	}{
		{"reading a Secret that is not named", getSecret("not-named"), `cannot get resource "secrets"`, "one that is", getSecret("serving-ca")},
		{"listing all Secrets", listSecrets(""), `cannot list resource "secrets"`, "by the name", listSecrets("serving-ca")},
		{"listing all ConfigMaps", listConfigMaps(""), `cannot list resource "configmaps"`, "by the name", listConfigMaps(configMapName)},
		{"watching all ConfigMaps", watchConfigMaps(""), `cannot watch resource "configmaps"`, "by the name", watchConfigMaps("countersign-webhook-ca")},
		{"approving", approve(), `cannot update resource "certificatesigningrequests/approval"`, "signing", sign(ours)},
		{"signing for another signerName", sign(foreign), `user not permitted to sign requests with signerName "example.com/unserved"`, "for ours", sign(ours)},
		{"attesting for another signerName", applyBundle("example.com/other", "serving"), `user not permitted to attest for signerName "example.com/other"`, "for ours", applyBundle("example.com/serving", "serving")},
		{"a ClusterTrustBundle of another name", applyBundle("example.com/serving", "other"), `cannot patch resource "clustertrustbundles"`, "of ours", applyBundle("example.com/serving", "serving")},
		{"a ConfigMap of another name", applyConfigMap("default", "other"), `cannot patch resource "configmaps"`, "of ours", applyConfigMap("default", configMapName)},
		{"the webhook's ConfigMap elsewhere", applyConfigMap("default", "countersign-webhook-ca"), `cannot patch resource "configmaps"`, "in its namespace", applyConfigMap(harness.SystemNamespace, "countersign-webhook-ca")},
		{"deleting another ConfigMap", deleteConfigMap("default", "kube-root-ca.crt"), `cannot delete resource "configmaps"`, "ours", deleteConfigMap("default", configMapName)},
	} {
		if !apierrors.IsForbidden(tc.refused) || !strings.Contains(tc.refused.Error(), tc.says) {
			t.Errorf("%s: got %v, want Forbidden: %s", tc.what, tc.refused, tc.says)
		}
		if tc.allowed != nil {
			t.Errorf("%s, beside %s: %v", tc.beside, tc.what, tc.allowed)
		}
	}
}

// TestOnlySignerWritesConfiguration checks that the webhook can neither read nor change webhook configurations, and that
// the signer can patch the one of the webhook only. Writes are dry runs.
func TestOnlySignerWritesConfiguration(t *testing.T) {
	patch := func(account, name string) error {
		token, err := world.ServiceAccountToken(t.Context(), harness.SystemNamespace, "countersign-"+account)
		must(t, err)
		client, err := kubernetes.NewForConfig(world.TokenConfig(token))
		must(t, err)
		_, err = client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Patch(t.Context(), name, types.StrategicMergePatchType,
			[]byte(`{"webhooks": [{"name": "approvals.countersign.dev", "clientConfig": {"caBundle": ""}}]}`), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	for _, account := range []string{"webhook", "approver"} {
		if err := patch(account, "countersign"); !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v, want Forbidden", account, err)
		}
	}
	if err := patch("signer", "other"); !apierrors.IsForbidden(err) {
		t.Errorf("the signer, another configuration: got %v, want Forbidden", err)
	}
	if err := patch("signer", "countersign"); err != nil && !apierrors.IsNotFound(err) { // the tests delete it
		t.Errorf("the signer: %v", err)
	}
}
