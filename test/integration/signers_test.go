// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"text/template"

	"github.com/go-logr/logr"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer"
	"countersign.dev/countersign/test/harness"
	"countersign.dev/countersign/test/tutorial"
)

// grants are a policy for the signers of a domain and the RBAC of approver and signer for them, as in
// deploy/overlays/default/grants.yaml. Each Signer has its own Role for the Secrets of its CA.
var grants = template.Must(template.New("grants").Parse(`
apiVersion: countersign.dev/v1alpha1
kind: ApprovalPolicy
metadata: {name: {{.Domain}}}
spec:
  match: {signerNames: ["{{.Domain}}/*"]}
  rego: {builtin: pod-serving}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: {{.Domain}}-approver}
rules:
  - {apiGroups: [certificates.k8s.io], resources: [signers], resourceNames: ["{{.Domain}}/*"], verbs: [approve]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: {{.Domain}}-approver}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{.Domain}}-approver}
subjects: [{kind: ServiceAccount, name: countersign-approver, namespace: countersign-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: {{.Domain}}-signer}
rules:
  - {apiGroups: [certificates.k8s.io], resources: [signers], resourceNames: ["{{.Domain}}/*"], verbs: [sign]}
  - {apiGroups: [""], resources: [configmaps], resourceNames: [{{range .Names}}{{.}}, {{end}}], verbs: [get, list, watch, create, patch, delete]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: {{.Domain}}-signer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{.Domain}}-signer}
subjects: [{kind: ServiceAccount, name: countersign-signer, namespace: countersign-system}]
{{range .Names}}---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: {{.}}-ca, namespace: countersign-system}
rules:
  - {apiGroups: [""], resources: [secrets], resourceNames: [{{.}}, {{.}}-root], verbs: [get, list, watch]}
  - {apiGroups: [""], resources: [secrets], resourceNames: [{{.}}], verbs: [create, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: {{.}}-ca, namespace: countersign-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{.}}-ca}
subjects: [{kind: ServiceAccount, name: countersign-signer, namespace: countersign-system}]
{{end}}`))

// grant allows Signers with these names to serve a domain until the test ends.
func grant(t *testing.T, domain string, names ...string) {
	t.Helper()
	var manifest strings.Builder
	must(t, grants.Execute(&manifest, struct {
		Domain string
		Names  []string
	}{domain, names}))
	apply(t, manifest.String())
	t.Cleanup(func() {
		if _, err := world.Kubectl(context.Background(), strings.NewReader(manifest.String()), "delete", "-f", "-"); err != nil {
			t.Error(err)
		}
	})
}

// newClient returns a client of a cluster admin with the types of Countersign.
func newClient(t *testing.T) client.Client {
	t.Helper()
	log.SetLogger(logr.Discard()) // controller-runtime warns if no logger is set
	scheme, err := signer.NewScheme()
	must(t, err)
	c, err := client.New(world.Config(), client.Options{Scheme: scheme})
	must(t, err)
	return c
}

// newSigner creates a Signer until the test ends. It publishes its CA in the ConfigMap of its name in the namespace of
// the tutorial. A next CA signs as soon as it is published.
func newSigner(t *testing.T, c client.Client, domain, name string, from v1alpha1.SignerCA) {
	t.Helper()
	s := &v1alpha1.Signer{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.SignerSpec{
			SignerName: domain + "/" + name, CA: from,
			Trust: v1alpha1.Trust{
				ConfigMap: &v1alpha1.TrustConfigMap{Name: name, NamespaceSelector: metav1.LabelSelector{
					MatchLabels: map[string]string{corev1.LabelMetadataName: tutorial.Namespace},
				}},
				Propagation: &metav1.Duration{},
			},
		},
	}
	must(t, c.Create(t.Context(), s))
	t.Cleanup(func() {
		ctx := context.Background()
		must(t, c.Delete(ctx, s))
		for _, secret := range []string{name, name + "-root"} {
			must(t, deleteSecret(ctx, secret))
		}
	})
}

// storeSecret creates a Secret in the system namespace, or replaces it.
func storeSecret(ctx context.Context, secret corev1.Secret) error {
	secrets := world.Clientset().CoreV1().Secrets(harness.SystemNamespace)
	_, err := secrets.Create(ctx, &secret, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = secrets.Update(ctx, &secret, metav1.UpdateOptions{})
	}
	return err
}

func deleteSecret(ctx context.Context, name string) error {
	return client.IgnoreNotFound(world.Clientset().CoreV1().Secrets(harness.SystemNamespace).Delete(ctx, name, metav1.DeleteOptions{}))
}

// tlsSecret returns a CA for spec.ca.secretRef.
func tlsSecret(name string, crt, key []byte) corev1.Secret {
	return corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: harness.SystemNamespace}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: crt, corev1.TLSPrivateKeyKey: key},
	}
}

// awaitSigner waits for a state of a Signer.
func awaitSigner(t *testing.T, c client.Client, name string, reached func(*v1alpha1.Signer) error) *v1alpha1.Signer {
	t.Helper()
	var s v1alpha1.Signer
	must(t, harness.Eventually(t.Context(), enough, func() error {
		if err := c.Get(t.Context(), client.ObjectKey{Name: name}, &s); err != nil {
			return err
		}
		if err := reached(&s); err != nil {
			return fmt.Errorf("Signer %s: %w; %+v", name, err, s.Status.Conditions)
		}
		return nil
	}))
	return &s
}

// own returns a request that the Pod of the tutorial is allowed to make.
func own(signerName string) tutorial.Request {
	return tutorial.Request{
		SignerName: signerName, CommonName: "my-pod.my-namespace.pod.cluster.local",
		DNSNames: []string{"my-svc.my-namespace.svc.cluster.local", "my-pod.my-namespace.pod.cluster.local"},
		IPs:      []string{"192.0.2.24", "10.0.34.2"},
	}
}

// request creates a request as the Pod of the tutorial, and returns when it is approved.
func request(t *testing.T, name string, ask tutorial.Request) {
	t.Helper()
	token, err := world.PodToken(t.Context(), world.Pods[tutorial.PodName])
	must(t, err)
	_, _, err = ask.Create(t.Context(), world.TokenConfig(token), name)
	must(t, err)
	must(t, harness.Eventually(t.Context(), enough, func() error {
		csr, err := world.Clientset().CertificatesV1().CertificateSigningRequests().Get(t.Context(), name, metav1.GetOptions{})
		switch {
		case err != nil:
			return err
		case tutorial.Condition(csr, certificatesv1.CertificateApproved) == nil:
			return fmt.Errorf("%s is not approved: %+v", name, csr.Status.Conditions)
		}
		return nil
	}))
}

// bundle waits for the CA that a Signer of newSigner publishes, and returns it.
func bundle(t *testing.T, name string) []byte {
	t.Helper()
	var text string
	must(t, harness.Eventually(t.Context(), enough, func() error {
		configMap, err := world.Clientset().CoreV1().ConfigMaps(tutorial.Namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if text = configMap.Data["ca.crt"]; text == "" {
			return errors.New("ConfigMap " + name + " holds no CA")
		}
		return nil
	}))
	return []byte(text)
}
