// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package rotation tests that a CA is rotated without a failed handshake, even if the signer is killed at any step.
package rotation

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer"
	"countersign.dev/countersign/test/harness"
)

const (
	namespace  = "rotation"
	signerName = "example.com/rotated"
	bundleName = "example.com:rotated:rotated"
	objectName = "rotated" // of the Signer; its Secret and ConfigMaps are named rotated-ca

	// enough is the longest time that a step takes on a busy machine.
	enough = 3 * time.Minute
)

var installation *harness.Installation

// The tests share the Signers of rotated.yaml.
func TestMain(m *testing.M) {
	harness.Main(m, 20*time.Minute, func(ctx context.Context, i *harness.Installation) error {
		installation = i
		if err := i.Cluster.CreateNamespace(ctx, namespace, map[string]string{"rotation": "true"}); err != nil {
			return err
		}
		_, err := i.Cluster.Kubectl(ctx, nil, "apply", "--server-side", "-f", "rotated.yaml")
		return err
	})
}

// TestRotation rotates a managed CA twice, from the annotation until the old CA is no longer trusted. Meanwhile two servers
// renew certificates of 30 s with requests of their Pods. Two clients, one with the ClusterTrustBundle and one with the
// ConfigMap, connect to both. The signer is killed after each step. The editor of another namespace holds up its own ConfigMap.
func TestRotation(t *testing.T) {
	c := newClient(t)
	must(t, installation.Signer.Stop())
	startSigner(t)
	first := await(t, c, "the first CA", func(s *v1alpha1.Signer, _ *corev1.Secret) bool {
		return phasesOf(s) == "Current" && s.Status.TrustAnchors[0].PublishedAt != nil
	}).Status.TrustAnchors[0].Fingerprint

	holdUp(t)
	traffic := startTraffic(t)
	fingerprints := []string{first}
	for round := range 2 {
		current := fingerprints[round]
		annotate(t)
		steps := []struct {
			name    string
			reached func(*v1alpha1.Signer, *corev1.Secret) bool
		}{
			{"the next CA is created", func(_ *v1alpha1.Signer, secret *corev1.Secret) bool { return len(secret.Data["previous.key"]) > 0 }},
			{"it is in the status", func(s *v1alpha1.Signer, _ *corev1.Secret) bool { return phasesOf(s) == "Current Next" }},
			{"it is published", func(s *v1alpha1.Signer, _ *corev1.Secret) bool {
				return phasesOf(s) == "Current Next" && s.Status.TrustAnchors[1].PublishedAt != nil
			}},
			{"it signs", func(s *v1alpha1.Signer, _ *corev1.Secret) bool {
				return phasesOf(s) == "Current Retiring" && s.Status.TrustAnchors[1].Fingerprint == current
			}},
			{"the old key is dropped", func(s *v1alpha1.Signer, secret *corev1.Secret) bool {
				return phasesOf(s) == "Current Retiring" && len(secret.Data["previous.key"]) == 0
			}},
			{"the old CA is retired", func(s *v1alpha1.Signer, _ *corev1.Secret) bool { return phasesOf(s) == "Current" }},
		}
		for _, step := range steps {
			s := await(t, c, step.name, step.reached)
			t.Logf("round %d: %s: %s", round+1, step.name, phasesOf(s))
			must(t, installation.Signer.Kill())
			startSigner(t)
		}
		s := await(t, c, "one CA", func(s *v1alpha1.Signer, _ *corev1.Secret) bool { return phasesOf(s) == "Current" })
		if fingerprints = append(fingerprints, s.Status.TrustAnchors[0].Fingerprint); fingerprints[round+1] == current {
			t.Fatal("the CA was not replaced")
		}
		if _, annotated := s.Annotations[v1alpha1.RotateAnnotation]; annotated {
			t.Error("the annotation was not removed")
		}
	}
	traffic.stop(t, fingerprints)
}

// holdUp makes the ConfigMap of one namespace immutable, with other content and a finalizer, as its editor can. It can be
// neither changed nor replaced, and must not delay the rotation.
func holdUp(t *testing.T) {
	t.Helper()
	const hostile = "rotation-hostile"
	must(t, installation.Cluster.CreateNamespace(t.Context(), hostile, map[string]string{"rotation": "true"}))
	patch := func(ctx context.Context, patch string) error {
		_, err := installation.Cluster.Kubectl(ctx, nil, "patch", "configmap", "-n", hostile, "rotated-ca", "--type=merge", "-p", patch)
		return err
	}
	must(t, harness.Eventually(t.Context(), enough, func() error {
		return patch(t.Context(), `{"metadata": {"finalizers": ["example.com/mine"]}, "immutable": true, "data": {"ca.crt": "x"}}`)
	}))
	t.Cleanup(func() { must(t, patch(context.Background(), `{"metadata": {"finalizers": null}}`)) })
}

// phasesOf returns the phases of status.trustAnchors, such as "Current Next".
func phasesOf(s *v1alpha1.Signer) string {
	var phases []string
	for _, a := range s.Status.TrustAnchors {
		phases = append(phases, string(a.Phase))
	}
	return strings.Join(phases, " ")
}

func annotate(t *testing.T) {
	t.Helper()
	_, err := installation.Cluster.Kubectl(t.Context(), nil, "annotate", "signer", objectName, v1alpha1.RotateAnnotation+"=now")
	must(t, err)
}

// await waits for a state of the Signer and the Secret of its CA.
func await(t *testing.T, c client.Client, what string, reached func(*v1alpha1.Signer, *corev1.Secret) bool) *v1alpha1.Signer {
	t.Helper()
	var s v1alpha1.Signer
	err := harness.Eventually(t.Context(), enough, func() error {
		var secret corev1.Secret
		if err := c.Get(t.Context(), client.ObjectKey{Name: objectName}, &s); err != nil {
			return err
		}
		if err := c.Get(t.Context(), client.ObjectKey{Namespace: harness.SystemNamespace, Name: "rotated-ca"}, &secret); err != nil {
			return err
		}
		if !reached(&s, &secret) {
			return fmt.Errorf("%s; %+v", phasesOf(&s), s.Status.Conditions)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return &s
}

func newClient(t *testing.T) client.Client {
	t.Helper()
	scheme, err := signer.NewScheme()
	must(t, err)
	c, err := client.New(installation.Cluster.Config(), client.Options{Scheme: scheme})
	must(t, err)
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
