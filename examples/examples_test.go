// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package examples applies the examples to an API server with Countersign and its webhook installed.
package examples

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/test/harness"
)

const (
	deadline  = 60 * time.Second
	namespace = "example-web"
	podIP     = "10.0.60.7"
)

var installation *harness.Installation

func TestMain(m *testing.M) {
	harness.Main(m, 10*time.Minute, func(ctx context.Context, i *harness.Installation) error {
		installation = i
		if err := i.Cluster.CreateNode(ctx, "node-1"); err != nil {
			return err
		}
		return i.StartWebhook(ctx)
	})
}

// TestExamples applies each example in the order of README.md, and requests certificates from both Signers.
func TestExamples(t *testing.T) {
	apply(t, "signer-managed-ca")
	apply(t, "policy")
	apply(t, "workload")
	if err := installation.StoreCA(t.Context(), "corporate-ca", "Example Corporate CA"); err != nil {
		t.Fatal(err)
	}
	apply(t, "signer-secret")
	for _, signer := range []string{"internal", "corporate"} {
		await(t, "signer", signer, v1alpha1.ConditionReady, v1alpha1.ConditionTrustPublished)
	}
	for _, policy := range []string{"internal", "service-accounts", "corporate"} {
		await(t, "approvalpolicy", policy, v1alpha1.ConditionCompiled, v1alpha1.ConditionTestsPassed, v1alpha1.ConditionReady)
	}

	template := podTemplate(t)
	listed := template.Spec.ServiceAccountName
	for _, tc := range []struct {
		name, account, signerName string
		want                      string // part of what request.sh prints if it fails
	}{
		{"internal", listed, "example.com/internal", ""},
		{"corporate", listed, "example.com/corporate", ""},
		{"an-account-that-is-not-listed", "other", "example.com/internal", "service-account-not-listed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := request(t, template, tc.name, tc.account, tc.signerName)
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("request.sh: %v\n%s", err, out)
			case tc.want != "" && (err == nil || !strings.Contains(out, tc.want)):
				t.Errorf("request.sh: %v, want %q in\n%s", err, tc.want, out)
			}
		})
	}
}

func apply(t *testing.T, example string) {
	t.Helper()
	if _, err := installation.Cluster.Kubectl(t.Context(), nil, "apply", "--server-side", "-k", example); err != nil {
		t.Fatalf("kubectl apply --server-side -k %s: %v", example, err)
	}
}

// await waits until conditions of an object are True for the generation that is stored.
func await(t *testing.T, resource, name string, conditions ...string) {
	t.Helper()
	err := harness.Eventually(t.Context(), deadline, func() error {
		raw, err := installation.Cluster.Kubectl(t.Context(), nil, "get", resource, name, "-o", "json")
		if err != nil {
			return err
		}
		var object struct {
			Metadata metav1.ObjectMeta `json:"metadata"`
			Status   struct {
				ObservedGeneration int64              `json:"observedGeneration"`
				Conditions         []metav1.Condition `json:"conditions"`
			} `json:"status"`
		}
		if err := json.Unmarshal(raw, &object); err != nil {
			return err
		}
		for _, condition := range conditions {
			if !meta.IsStatusConditionTrue(object.Status.Conditions, condition) || object.Status.ObservedGeneration != object.Metadata.Generation {
				return fmt.Errorf("%s %s is not %s: %+v", resource, name, condition, object.Status)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// podTemplate is the template of the Deployment, as the API server stores it.
func podTemplate(t *testing.T) corev1.PodTemplateSpec {
	t.Helper()
	var deployment appsv1.Deployment
	raw, err := installation.Cluster.Kubectl(t.Context(), nil, "get", "deployment", "web", "-n", namespace, "-o", "json")
	if err == nil {
		err = json.Unmarshal(raw, &deployment)
	}
	if err != nil {
		t.Fatal(err)
	}
	return deployment.Spec.Template
}

// request runs the init container of the template as a Pod of a ServiceAccount, and verifies the certificate.
func request(t *testing.T, template corev1.PodTemplateSpec, pod, account, signerName string) (output string, err error) {
	t.Helper()
	c := installation.Cluster
	if account != template.Spec.ServiceAccountName {
		subject := "--serviceaccount=" + namespace + ":" + account
		_, err1 := c.Kubectl(t.Context(), nil, "create", "serviceaccount", account, "-n", namespace)
		_, err2 := c.Kubectl(t.Context(), nil, "create", "clusterrolebinding", "requester-"+account, "--clusterrole=example-web-requester", subject)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
	}
	template.Spec.ServiceAccountName = account
	created, err := c.RunPod(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: pod, Labels: template.Labels}, Spec: template.Spec,
	}, podIP)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.DeletePod(context.WithoutCancel(t.Context()), namespace, pod); err != nil {
			t.Error(err)
		}
	}()
	token, err := c.PodToken(t.Context(), created)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := c.WriteKubeconfig(kubeconfig, c.TokenConfig(token)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	command := exec.CommandContext(ctx, "sh", "workload/request.sh")
	command.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "PATH="+c.BinDir()+string(filepath.ListSeparator)+os.Getenv("PATH"))
	command.Env = append(command.Env, environment(t, template, created)...)
	command.Env = append(command.Env, "SIGNER_NAME="+signerName, "TLS_DIR="+dir)
	out, err := command.CombinedOutput()
	if err != nil {
		return string(out), err
	}
	return string(out), verify(t, filepath.Join(dir, "tls.crt"), signerName)
}

// environment is what a kubelet sets for the init container.
func environment(t *testing.T, template corev1.PodTemplateSpec, pod *corev1.Pod) (env []string) {
	t.Helper()
	container := template.Spec.InitContainers[0]
	if want := []string{"sh", "/scripts/request.sh"}; !slices.Equal(container.Command, want) {
		t.Fatalf("the init container runs %v, want %v", container.Command, want)
	}
	fields := map[string]string{"metadata.name": pod.Name, "metadata.namespace": pod.Namespace, "status.podIP": pod.Status.PodIP}
	for _, v := range container.Env {
		value := v.Value
		if v.ValueFrom != nil {
			value = fields[v.ValueFrom.FieldRef.FieldPath]
		}
		env = append(env, v.Name+"="+value)
	}
	return env
}

// verify verifies a certificate with the CA certificates that the Signer publishes.
func verify(t *testing.T, path, signerName string) error {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return fmt.Errorf("no certificate in %q", raw)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	name := strings.TrimPrefix(signerName, "example.com/") + "-trust"
	published, err := installation.Cluster.Kubectl(t.Context(), nil, "get", "configmap", name, "-n", namespace, "-o", `jsonpath={.data.ca\.crt}`)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bytes.TrimSpace(published)) {
		return fmt.Errorf("no certificate in ConfigMap %s: %q", name, published)
	}
	_, err1 := certificate.Verify(x509.VerifyOptions{Roots: roots, DNSName: "web." + namespace + ".svc"})
	return errors.Join(err1, certificate.VerifyHostname(podIP))
}
