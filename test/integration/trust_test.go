// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"countersign.dev/countersign/test/cluster"
	"countersign.dev/countersign/test/harness"
	"countersign.dev/countersign/test/tutorial"
)

const (
	bundleName    = "example.com:serving:serving"
	configMapName = "example-serving-ca"

	// watchTimeout is less than the 50 s after which a Signer is reconciled without an event.
	watchTimeout = 40 * time.Second
)

// soonThat waits for a change that a watch triggers.
func soonThat(t *testing.T, try func() error) {
	t.Helper()
	must(t, harness.Eventually(t.Context(), watchTimeout, try))
}

// published reads the ConfigMap that is published in a namespace, or the ClusterTrustBundle if namespace is empty. It
// returns the data and the UIDs of the owners.
func published(t *testing.T, namespace, name string) (data map[string]string, owners []types.UID, _ error) {
	t.Helper()
	var o metav1.Object
	if namespace == "" {
		bundle, err := world.Clientset().CertificatesV1().ClusterTrustBundles().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return nil, nil, err
		}
		o, data = bundle, map[string]string{bundle.Spec.SignerName: bundle.Spec.TrustBundle}
	} else {
		configMap, err := world.Clientset().CoreV1().ConfigMaps(namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return nil, nil, err
		}
		o, data = configMap, configMap.Data
	}
	for _, owner := range o.GetOwnerReferences() {
		owners = append(owners, owner.UID)
	}
	return data, owners, nil
}

// holds returns an error unless an object has exactly this content and is owned by the Signer.
func holds(t *testing.T, namespace, name, key, content string) error {
	t.Helper()
	data, owners, err := published(t, namespace, name)
	if err != nil {
		return err
	}
	if diff := cmp.Diff(map[string]string{key: content}, data); diff != "" {
		return fmt.Errorf("%s/%s (-want +got):\n%s", namespace, name, diff)
	}
	if want := signerUID(t); len(owners) != 1 || string(owners[0]) != want {
		return fmt.Errorf("%s/%s: owners %v, want %s", namespace, name, owners, want)
	}
	return nil
}

func absent(t *testing.T, namespace, name string) error {
	t.Helper()
	_, _, err := published(t, namespace, name)
	if err == nil {
		return fmt.Errorf("%s/%s exists", namespace, name)
	}
	if !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}

func signerUID(t *testing.T) string {
	t.Helper()
	return kubectl(t, "get", "signer", "serving", "-o", "jsonpath={.metadata.uid}")
}

// trustPublished returns an error unless the condition TrustPublished of a Signer has this status and reason, and its
// message names these values.
func trustPublished(t *testing.T, signer string, status metav1.ConditionStatus, reason string, values ...string) error {
	t.Helper()
	got := kubectl(t, "get", "signer", signer, "-o",
		`jsonpath={range .status.conditions[?(@.type=="TrustPublished")]}{.status} {.reason}: {.message}{end}`)
	if want := fmt.Sprintf("%s %s: ", status, reason); !strings.HasPrefix(got, want) {
		return fmt.Errorf("TrustPublished of Signer %s is %q, want %q", signer, got, want)
	}
	return contains(got, values...)
}

// bundlePublished returns an error unless the Signer "serving" publishes its ClusterTrustBundle, and its ConfigMap in this
// many namespaces.
func bundlePublished(t *testing.T, configMap string, namespaces int) error {
	t.Helper()
	return trustPublished(t, "serving", metav1.ConditionTrue, "Published", bundleName, configMap, fmt.Sprintf(" %d namespace", namespaces))
}

func patchSigner(t *testing.T, patch string) {
	t.Helper()
	kubectl(t, "patch", "signer", "serving", "--type=merge", "-p", patch)
}

// TestTrust checks what the signer publishes when objects, the Signer and RBAC change. The steps build on each other.
func TestTrust(t *testing.T) {
	ctx := t.Context()
	root, err := cluster.Root()
	must(t, err)
	serving := filepath.Join(root, "deploy/signers/serving")
	reset := func(ctx context.Context) error {
		_, err := world.Kubectl(ctx, nil, "apply", "--server-side", "--force-conflicts", "-k", serving)
		return err
	}
	t.Cleanup(func() {
		if err := reset(context.Background()); err != nil {
			t.Error(err)
		}
	})
	secret, err := world.Clientset().CoreV1().Secrets(harness.SystemNamespace).Get(ctx, "serving-ca", metav1.GetOptions{})
	must(t, err)
	ca := string(secret.Data[corev1.TLSCertKey])
	// Other tests replaced the CA. Remove the retiring CAs, which are published too.
	if retiring := strings.Fields(kubectl(t, "get", "signer", "serving", "-o", `jsonpath={.status.trustAnchors[?(@.phase=="Retiring")].fingerprint}`)); len(retiring) > 0 {
		patchSigner(t, fmt.Sprintf(`{"spec": {"trust": {"distrusted": ["%s"]}}}`, strings.Join(retiring, `", "`)))
		soonThat(t, func() error {
			if phases := kubectl(t, "get", "signer", "serving", "-o", "jsonpath={.status.trustAnchors[*].phase}"); phases != "Current" {
				return errors.New(phases)
			}
			return nil
		})
		patchSigner(t, `{"spec": {"trust": {"distrusted": null}}}`)
	}
	must(t, world.CreateNamespace(ctx, "trust-a", map[string]string{"team": "trust"}))
	must(t, world.CreateNamespace(ctx, "trust-b", map[string]string{"team": "other"}))
	configMaps := func(namespace string) interface {
		Create(context.Context, *corev1.ConfigMap, metav1.CreateOptions) (*corev1.ConfigMap, error)
		Delete(context.Context, string, metav1.DeleteOptions) error
	} {
		return world.Clientset().CoreV1().ConfigMaps(namespace)
	}
	bundles := world.Clientset().CertificatesV1().ClusterTrustBundles()
	inAll := func() error {
		namespaces, err := world.Clientset().CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, namespace := range namespaces.Items {
			if err := holds(t, namespace.Name, configMapName, "ca.crt", ca); err != nil {
				return err
			}
		}
		return errors.Join(
			holds(t, "", bundleName, "example.com/serving", ca),
			bundlePublished(t, configMapName, len(namespaces.Items)),
		)
	}

	step := func(name string, run func(t *testing.T)) {
		if !t.Failed() {
			t.Run(name, run)
		}
	}
	step("published", func(t *testing.T) {
		soonThat(t, inAll)
		got := kubectl(t, "get", "signer", "serving", "-o", "jsonpath={.status.published}")
		if want := `{"clusterTrustBundle":"example.com:serving:serving","configMap":"example-serving-ca"}`; got != want {
			t.Errorf("status.published is %s, want %s", got, want)
		}
	})
	step("edited", func(t *testing.T) {
		evil := ca + ca // invalid in a ClusterTrustBundle
		kubectl(t, "patch", "configmap", "-n", "trust-a", configMapName, "--type=merge", "-p", fmt.Sprintf(`{"data": {"ca.crt": %q}}`, evil))
		began := time.Now()
		soonThat(t, func() error { return holds(t, "trust-a", configMapName, "ca.crt", ca) })
		t.Logf("restored in %s", time.Since(began).Round(time.Millisecond))
		kubectl(t, "patch", "clustertrustbundle", bundleName, "--type=merge", "-p", fmt.Sprintf(`{"spec": {"trustBundle": %q}}`, "# mine\n"+ca))
		soonThat(t, func() error { return holds(t, "", bundleName, "example.com/serving", ca) })
	})
	step("locked by an edit", func(t *testing.T) {
		kubectl(t, "patch", "configmap", "-n", "trust-a", configMapName, "--type=merge", "-p", `{"immutable": true, "data": {"ca.crt": "x"}}`)
		soonThat(t, func() error { return holds(t, "trust-a", configMapName, "ca.crt", ca) })
	})
	step("locked by an edit, and kept by a finalizer", func(t *testing.T) {
		kubectl(t, "patch", "configmap", "-n", "trust-a", configMapName, "--type=merge", "-p",
			`{"metadata": {"finalizers": ["example.com/mine"]}, "immutable": true, "data": {"ca.crt": "x"}}`)
		soonThat(t, func() error {
			return trustPublished(t, "serving", metav1.ConditionFalse, "PublishRefused", "trust-a/example-serving-ca", "remove the finalizer")
		})
		must(t, holds(t, "trust-b", configMapName, "ca.crt", ca))
		kubectl(t, "patch", "configmap", "-n", "trust-a", configMapName, "--type=merge", "-p", `{"metadata": {"finalizers": null}}`)
		soonThat(t, inAll)
	})
	step("deleted", func(t *testing.T) {
		must(t, configMaps("trust-a").Delete(ctx, configMapName, metav1.DeleteOptions{}))
		must(t, bundles.Delete(ctx, bundleName, metav1.DeleteOptions{}))
		soonThat(t, inAll)
	})
	step("only in selected namespaces", func(t *testing.T) {
		patchSigner(t, `{"spec": {"trust": {"configMap": {"namespaceSelector": {"matchLabels": {"team": "trust"}}}}}}`)
		soonThat(t, func() error {
			return errors.Join(
				bundlePublished(t, configMapName, 1),
				holds(t, "trust-a", configMapName, "ca.crt", ca),
				absent(t, "trust-b", configMapName), absent(t, tutorial.Namespace, configMapName), absent(t, "kube-system", configMapName),
			)
		})
	})
	step("under another key", func(t *testing.T) {
		patchSigner(t, `{"spec": {"trust": {"configMap": {"key": "roots.pem"}}}}`)
		soonThat(t, func() error { return holds(t, "trust-a", configMapName, "roots.pem", ca) })
		patchSigner(t, `{"spec": {"trust": {"configMap": {"key": "ca.crt"}}}}`)
		soonThat(t, func() error { return holds(t, "trust-a", configMapName, "ca.crt", ca) })
	})
	step("a namespace is relabelled", func(t *testing.T) {
		kubectl(t, "label", "namespace", "trust-a", "--overwrite", "team=other")
		soonThat(t, func() error { return absent(t, "trust-a", configMapName) })
		kubectl(t, "label", "namespace", "trust-a", "--overwrite", "team=trust")
		soonThat(t, func() error { return holds(t, "trust-a", configMapName, "ca.crt", ca) })
	})
	step("a ConfigMap that Countersign does not manage", func(t *testing.T) {
		theirs, err := world.Clientset().CoreV1().ConfigMaps("trust-b").Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: configMapName}, Data: map[string]string{"theirs": "x"},
		}, metav1.CreateOptions{})
		must(t, err)
		kubectl(t, "label", "namespace", "trust-b", "--overwrite", "team=trust")
		soonThat(t, func() error {
			return trustPublished(t, "serving", metav1.ConditionFalse, "PublishRefused",
				"trust-b/example-serving-ca", "app.kubernetes.io/managed-by=countersign", "spec.trust.configMap")
		})
		kubectl(t, "label", "namespace", "trust-b", "--overwrite", "team=other")
		soonThat(t, func() error {
			return bundlePublished(t, configMapName, 1)
		})
		after, err := world.Clientset().CoreV1().ConfigMaps("trust-b").Get(ctx, configMapName, metav1.GetOptions{})
		must(t, err)
		if after.ResourceVersion != theirs.ResourceVersion {
			t.Errorf("the signer wrote to it: %+v", after)
		}
		kubectl(t, "label", "namespace", "trust-b", "--overwrite", "team=trust")
		must(t, configMaps("trust-b").Delete(ctx, configMapName, metav1.DeleteOptions{}))
		soonThat(t, func() error { return holds(t, "trust-b", configMapName, "ca.crt", ca) })
	})
	step("the ClusterTrustBundle is disabled; one that Countersign does not manage", func(t *testing.T) {
		patchSigner(t, `{"spec": {"trust": {"clusterTrustBundle": false}}}`)
		soonThat(t, func() error {
			return errors.Join(absent(t, "", bundleName), trustPublished(t, "serving", metav1.ConditionTrue, "Published", configMapName, " 2 namespaces"))
		})
		theirs, err := bundles.Create(ctx, &certificatesv1.ClusterTrustBundle{
			ObjectMeta: metav1.ObjectMeta{Name: bundleName},
			Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: "example.com/serving", TrustBundle: "# theirs\n" + ca},
		}, metav1.CreateOptions{})
		must(t, err)
		patchSigner(t, `{"spec": {"trust": {"clusterTrustBundle": true}}}`)
		soonThat(t, func() error {
			return trustPublished(t, "serving", metav1.ConditionFalse, "PublishFailed",
				bundleName, "app.kubernetes.io/managed-by=countersign", "spec.trust.clusterTrustBundle")
		})
		after, err := bundles.Get(ctx, bundleName, metav1.GetOptions{})
		must(t, err)
		if after.ResourceVersion != theirs.ResourceVersion {
			t.Errorf("the signer wrote to it: %+v", after)
		}
		must(t, bundles.Delete(ctx, bundleName, metav1.DeleteOptions{}))
		soonThat(t, func() error { return holds(t, "", bundleName, "example.com/serving", ca) })
	})
	step("another name that RBAC does not allow yet", func(t *testing.T) {
		patchSigner(t, `{"spec": {"trust": {"configMap": {"name": "renamed-serving-ca"}}}}`)
		soonThat(t, func() error {
			return errors.Join(
				trustPublished(t, "serving", metav1.ConditionFalse, "PublishFailed", `resourceNames ["renamed-serving-ca"]`, "list and watch", "ClusterRole"),
				holds(t, "trust-a", configMapName, "ca.crt", ca), // until the new one is published
			)
		})
		kubectl(t, "create", "clusterrole", "renamed-serving-ca", "--resource=configmaps", "--resource-name=renamed-serving-ca", "--verb=get,list,watch,create,patch,delete")
		kubectl(t, "create", "clusterrolebinding", "renamed-serving-ca", "--clusterrole=renamed-serving-ca", "--serviceaccount="+harness.SystemNamespace+":countersign-signer")
		t.Cleanup(func() { remove(t, "clusterrole/renamed-serving-ca", "clusterrolebinding/renamed-serving-ca") })
		began := time.Now()
		soonThat(t, func() error {
			return errors.Join(
				holds(t, "trust-a", "renamed-serving-ca", "ca.crt", ca), holds(t, "trust-b", "renamed-serving-ca", "ca.crt", ca),
				absent(t, "trust-a", configMapName), absent(t, "trust-b", configMapName),
				bundlePublished(t, "renamed-serving-ca", 2),
			)
		})
		t.Logf("noticed in %s", time.Since(began).Round(time.Millisecond))
		patchSigner(t, `{"spec": {"trust": {"configMap": {"name": "example-serving-ca"}}}}`)
		soonThat(t, func() error {
			return errors.Join(holds(t, "trust-a", configMapName, "ca.crt", ca), absent(t, "trust-a", "renamed-serving-ca"))
		})
	})
	step("by another Signer, where a Role allows it", func(t *testing.T) {
		const name = "countersign-webhook-ca" // read in all namespaces, written in one
		apply(t, `{"apiVersion": "countersign.dev/v1alpha1", "kind": "Signer", "metadata": {"name": "elsewhere"}, "spec": {
			"signerName": "example.com/elsewhere", "ca": {"secretRef": {"name": "serving-ca"}},
			"trust": {"configMap": {"name": "countersign-webhook-ca", "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "countersign-system"}}}}}}`)
		t.Cleanup(func() { remove(t, "signer/elsewhere") })
		soonThat(t, func() error {
			return trustPublished(t, "elsewhere", metav1.ConditionTrue, "Published", name, " 1 namespace")
		})
		if data, _, err := published(t, harness.SystemNamespace, name); err != nil || data["ca.crt"] != ca {
			t.Errorf("got %v, %v", data, err)
		}
		kubectl(t, "patch", "signer", "elsewhere", "--type=merge", "-p", `{"spec": {"trust": {"configMap": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "trust-a"}}}}}}`)
		soonThat(t, func() error {
			return errors.Join(
				absent(t, harness.SystemNamespace, name),
				trustPublished(t, "elsewhere", metav1.ConditionFalse, "PublishFailed", "trust-a/countersign-webhook-ca",
					`User "system:serviceaccount:countersign-system:countersign-signer" cannot get resource "configmaps" in API group "" in the namespace "trust-a"`,
					`resourceNames ["countersign-webhook-ca"]`),
			)
		})
	})
	step("the Signer is deleted and created again", func(t *testing.T) {
		kubectl(t, "delete", "signer", "serving")
		soonThat(t, func() error {
			return errors.Join(absent(t, "", bundleName), absent(t, "trust-a", configMapName), absent(t, "trust-b", configMapName))
		})
		must(t, reset(ctx))
		soonThat(t, inAll)
	})
	step("a ConfigMap of an earlier version", func(t *testing.T) {
		kubectl(t, "delete", "signer", "serving")
		soonThat(t, func() error { return absent(t, "trust-a", configMapName) })
		_, err := configMaps("trust-a").Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: configMapName, Labels: map[string]string{"app.kubernetes.io/managed-by": "countersign"}},
			Data:       map[string]string{"ca.crt": strings.Repeat("x", 10)},
		}, metav1.CreateOptions{})
		must(t, err)
		must(t, reset(ctx))
		soonThat(t, inAll)
	})
}
