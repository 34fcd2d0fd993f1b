// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"countersign.dev/countersign/test/cluster"
	"countersign.dev/countersign/test/harness"
	"countersign.dev/countersign/test/tutorial"
)

// withoutApprover stops the approver until the test ends, so that it decides no request first.
func withoutApprover(t *testing.T) {
	t.Helper()
	must(t, installation.Approver.Stop())
	t.Cleanup(func() {
		if _, err := installation.Start(context.Background(), "approver"); err != nil {
			t.Error(err)
		}
	})
}

// grantApprover allows the approver to approve requests for signers.
func grantApprover(t *testing.T, name string, signers ...string) {
	t.Helper()
	apply(t, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: `+name+`}
rules:
  - {apiGroups: [certificates.k8s.io], resources: [signers], resourceNames: ["`+strings.Join(signers, `", "`)+`"], verbs: [approve]}
`)
	kubectl(t, "create", "clusterrolebinding", name, "--clusterrole="+name, "--serviceaccount="+harness.SystemNamespace+":countersign-approver")
	t.Cleanup(func() { remove(t, "clusterrole/"+name, "clusterrolebinding/"+name) })
}

// approveAs adds the condition Approved to a request with the credentials of config.
func approveAs(t *testing.T, config *rest.Config, name string) error {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	must(t, err)
	csr, err := world.Clientset().CertificatesV1().CertificateSigningRequests().Get(t.Context(), name, metav1.GetOptions{})
	must(t, err)
	csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Manual",
	})
	_, err = client.CertificatesV1().CertificateSigningRequests().UpdateApproval(t.Context(), name, csr, metav1.UpdateOptions{})
	return err
}

// TestGuardFollowsGrants checks that the API server calls the webhook for approvals of exactly those signers that the
// approver is allowed to approve. The webhook does not run, so that a call is an error.
func TestGuardFollowsGrants(t *testing.T) {
	withWebhook(t)
	withoutApprover(t)
	grantApprover(t, "guard-test", "example.org/exact", "example.net/*", certificatesv1.KubeAPIServerClientKubeletSignerName)
	must(t, installation.Webhook.Kill())

	admin := world.Config()
	as := func(user string, groups ...string) *rest.Config {
		config, err := world.ConfigFor(user, groups...)
		must(t, err)
		return config
	}
	kubelet := tutorial.Request{CommonName: "system:node:guard", Organization: "system:nodes", Usages: []certificatesv1.KeyUsage{"digital signature", "client auth"}}
	for _, tc := range []struct {
		name, signerName string
		as               *rest.Config
		guarded          bool
	}{
		{"granted-by-name", "example.org/exact", admin, true},
		{"granted-by-domain", "example.net/any", admin, true},
		{"granted-by-overlay", tutorial.SignerName, admin, true},
		{"not-granted", "example.org/other", admin, false},
		{"domain-not-granted", "example.io/exact", admin, false},
		{"longer-domain-not-granted", "www.example.net/any", admin, false},
		{"kubelet-client-by-a-user", certificatesv1.KubeAPIServerClientKubeletSignerName, admin, true},
		{"kubelet-client-by-kcm", certificatesv1.KubeAPIServerClientKubeletSignerName, as("system:kube-controller-manager", "system:masters"), false},
		{"kubelet-client-by-certificate-controller", certificatesv1.KubeAPIServerClientKubeletSignerName, as("system:serviceaccount:kube-system:certificate-controller"), false},
		{"other-signer-by-kcm", "example.org/exact", as("system:kube-controller-manager", "system:masters"), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ask := tutorial.Request{DNSNames: []string{"example.com"}}
			if tc.signerName == certificatesv1.KubeAPIServerClientKubeletSignerName {
				ask = kubelet
			}
			ask.SignerName = tc.signerName
			name := "guard-" + tc.name
			_, _, err := ask.Create(t.Context(), admin, name)
			must(t, err)
			t.Cleanup(func() { remove(t, "csr/"+name) })
			must(t, harness.Eventually(t.Context(), enough, func() error { // the authorizer needs a moment to see a grant
				err = approveAs(t, tc.as, name)
				called := apierrors.IsInternalError(err) && contains(err.Error(), "failed calling webhook") == nil
				switch {
				case tc.guarded && called, !tc.guarded && err == nil:
					return nil
				case err == nil:
					t.Fatal("approved without a call of the webhook")
				}
				return err
			}))
		})
	}
}

// TestKubeletServingIsGuarded checks that a grant for kubernetes.io/kubelet-serving is enough to guard manual approvals:
// a user with all verbs but override-policy cannot approve the name of another node.
func TestKubeletServingIsGuarded(t *testing.T) {
	root, err := cluster.Root()
	must(t, err)
	overlay := overlayOf(t, filepath.Join(root, "deploy/signers/kubelet-serving"), `patches:
  - target: {kind: ApprovalPolicy, name: kubelet-serving}
    patch: |
      - {op: add, path: /spec/parameters/ipPrefixes, value: [10.1.0.0/24]}
`)
	kubectl(t, "apply", "--server-side", "--force-conflicts", "-k", overlay)
	t.Cleanup(func() { remove(t, "-k", overlay) })
	withoutApprover(t)
	withWebhook(t) // is ready when it has loaded the policy
	must(t, world.CreateNode(t.Context(), "guarded-node", addresses("InternalIP", "10.1.0.77")...))
	config, err := world.ConfigFor("system:node:guarded-evil", "system:nodes")
	must(t, err)
	must(t, world.CreateNode(t.Context(), "guarded-evil", addresses("InternalIP", "10.1.0.78")...))
	apply(t, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: guard-kubelets}
rules:
  - {apiGroups: [certificates.k8s.io], resources: [certificatesigningrequests, certificatesigningrequests/approval], verbs: [get, update]}
  - {apiGroups: [certificates.k8s.io], resources: [signers], resourceNames: [kubernetes.io/kubelet-serving], verbs: [approve]}
`)
	kubectl(t, "create", "clusterrolebinding", "guard-kubelets", "--clusterrole=guard-kubelets", "--user=kubelets@example.com")
	t.Cleanup(func() { remove(t, "clusterrole/guard-kubelets", "clusterrolebinding/guard-kubelets") })
	user, err := world.ConfigFor("kubelets@example.com")
	must(t, err)
	ask := tutorial.Request{
		CommonName: "system:node:guarded-evil", Organization: "system:nodes", IPs: []string{"10.1.0.77"},
		SignerName: certificatesv1.KubeletServingSignerName, Usages: []certificatesv1.KeyUsage{"digital signature", "server auth"},
	}
	_, _, err = ask.Create(t.Context(), config, "guarded-evil")
	must(t, err)
	t.Cleanup(func() { remove(t, "csr/guarded-evil") })
	must(t, harness.Eventually(t.Context(), enough, func() error { // the authorizer needs a moment to see the grant of the user
		err := approveAs(t, user, "guarded-evil")
		if err == nil {
			t.Fatal("the approval went through")
		}
		return contains(err.Error(), `admission webhook "approvals.countersign.dev" denied the request`, "kubelet-serving", "ip-address-not-owned")
	}))
	approved := ask
	approved.IPs = []string{"10.1.0.78"}
	_, _, err = approved.Create(t.Context(), config, "guarded-honest")
	must(t, err)
	t.Cleanup(func() { remove(t, "csr/guarded-honest") })
	must(t, approveAs(t, user, "guarded-honest"))
}
