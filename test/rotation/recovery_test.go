// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/test/harness"
)

// These tests follow "Disaster recovery" in docs/operations.md.

// TestLostSecret deletes the Secret of a managed CA while no process has its key. Countersign creates another CA, which
// signs when clients have it. Certificates of the old CA stay trusted.
func TestLostSecret(t *testing.T) {
	c := newClient(t)
	one(t, c, "rotated")
	s := newServer(t, "lost-secret", "10.0.51.1", signerName)
	must(t, s.ask(t.Context()))
	trusts(t, s, bundleName)
	before := one(t, c, "rotated").Status.TrustAnchors[0]

	must(t, installation.Signer.Stop())
	kubectl(t, "delete", "secret", "rotated-ca", "-n", harness.SystemNamespace)
	startSigner(t)
	waits := signerWhen(t, c, "rotated", "the next CA waits", func(s *v1alpha1.Signer) error { return is(s, v1alpha1.ConditionReady, "CAPropagating") })
	trusts(t, s, bundleName)
	if got := phasesOf(waits); got != "Current Next" {
		t.Errorf("on record: %s", got)
	}
	must(t, s.ask(t.Context())) // when the next CA signs
	trusts(t, s, bundleName)
	after := signerWhen(t, c, "rotated", "the next CA signs", func(s *v1alpha1.Signer) error { return is(s, v1alpha1.ConditionReady, "CALoaded") })
	if got := after.Status.TrustAnchors; phasesOf(after) != "Current Retiring" || got[1].Fingerprint != before.Fingerprint || got[0].Fingerprint == before.Fingerprint {
		t.Errorf("on record: %+v", got)
	}
}

// TestCompromisedCA adds the fingerprint of a managed CA to spec.trust.distrusted. Another CA signs at once, and
// certificates of the old CA are not trusted.
func TestCompromisedCA(t *testing.T) {
	c := newClient(t)
	before := one(t, c, "rotated")
	s := newServer(t, "compromised", "10.0.51.2", signerName)
	must(t, s.ask(t.Context()))
	trusts(t, s, bundleName)

	fingerprint := before.Status.TrustAnchors[0].Fingerprint
	kubectl(t, "patch", "signer", "rotated", "--type=merge", "-p", fmt.Sprintf(`{"spec":{"trust":{"distrusted":[%q]}}}`, fingerprint))
	t.Cleanup(func() {
		kubectl(t, "patch", "signer", "rotated", "--type=merge", "-p", `{"spec":{"trust":{"distrusted":null}}}`)
	})
	after := signerWhen(t, c, "rotated", "another CA signs", func(s *v1alpha1.Signer) error {
		if err := is(s, v1alpha1.ConditionReady, "CALoaded"); err != nil || s.Status.CA.Fingerprint == fingerprint {
			return errors.Join(err, errors.New("the old CA signs"))
		}
		return is(s, v1alpha1.ConditionTrustPublished, "Published")
	})
	if phasesOf(after) != "Current" {
		t.Errorf("on record: %s", phasesOf(after))
	}
	must(t, harness.Eventually(t.Context(), enough, func() error {
		roots, err := pool(t.Context(), bundleName)
		if err == nil {
			_, err = s.handshake(t.Context(), roots)
		}
		if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); !unknown {
			return fmt.Errorf("with a certificate of the old CA: %w", err)
		}
		return nil
	}))
	must(t, s.ask(t.Context()))
	trusts(t, s, bundleName)
}

// TestLostKey loses the key of a CA in a Secret of the user, and replaces the CA. The new CA signs when clients have it.
// Certificates of the old CA stay trusted.
func TestLostKey(t *testing.T) {
	const name, bundle = "brought", "example.com:brought:brought"
	c := newClient(t)
	must(t, installation.StoreCA(t.Context(), "brought-ca", "Brought CA"))
	one(t, c, name)
	s := newServer(t, "lost-key", "10.0.51.3", "example.com/brought")
	must(t, s.ask(t.Context()))
	trusts(t, s, bundle)

	kubectl(t, "patch", "secret", "brought-ca", "-n", harness.SystemNamespace, "--type=merge", "-p", `{"data":{"tls.key":"bG9zdA=="}}`)
	broken := signerWhen(t, c, name, "the problem is reported", func(s *v1alpha1.Signer) error { return is(s, v1alpha1.ConditionReady, "InvalidCA") })
	if got := meta.FindStatusCondition(broken.Status.Conditions, v1alpha1.ConditionReady).Message; !strings.Contains(got, "tls.key") {
		t.Errorf("the message does not name tls.key: %q", got)
	}
	trusts(t, s, bundle)

	must(t, installation.Signer.Stop()) // otherwise it would use the key in its memory
	must(t, installation.StoreCA(t.Context(), "brought-ca", "Next CA"))
	startSigner(t)
	waits := signerWhen(t, c, name, "the next CA waits", func(s *v1alpha1.Signer) error { return is(s, v1alpha1.ConditionReady, "CAPropagating") })
	if message := meta.FindStatusCondition(waits.Status.Conditions, v1alpha1.ConditionReady).Message; !strings.Contains(message, "CN=Brought CA") || !strings.Contains(message, "CN=Next CA") {
		t.Errorf("the message is %q", message)
	}
	trusts(t, s, bundle)
	must(t, s.ask(t.Context()))
	trusts(t, s, bundle)
	after := signerWhen(t, c, name, "the next CA signs", func(s *v1alpha1.Signer) error { return is(s, v1alpha1.ConditionReady, "CALoaded") })
	if after.Status.CA.Subject != "CN=Next CA" {
		t.Errorf("%s signs", after.Status.CA.Subject)
	}
}

// startSigner starts a signer without leader election, which would take up to 7 s.
func startSigner(t *testing.T) {
	t.Helper()
	_, err := installation.Start(t.Context(), "signer", "--leader-elect=false")
	must(t, err)
}

// one waits until a Signer has exactly one trusted CA.
func one(t *testing.T, c client.Client, name string) *v1alpha1.Signer {
	t.Helper()
	return signerWhen(t, c, name, "one CA", func(s *v1alpha1.Signer) error {
		if phasesOf(s) != "Current" || s.Status.TrustAnchors[0].PublishedAt == nil {
			return errors.New(phasesOf(s))
		}
		return is(s, v1alpha1.ConditionReady, "CALoaded")
	})
}

// is returns nil if a condition has a reason.
func is(s *v1alpha1.Signer, kind, reason string) error {
	c := meta.FindStatusCondition(s.Status.Conditions, kind)
	if c == nil || c.Reason != reason || c.ObservedGeneration != s.Generation {
		return fmt.Errorf("%s, and not %s: %+v", kind, reason, s.Status.Conditions)
	}
	return nil
}

func signerWhen(t *testing.T, c client.Client, name, what string, reached func(*v1alpha1.Signer) error) *v1alpha1.Signer {
	t.Helper()
	s := &v1alpha1.Signer{}
	err := harness.Eventually(t.Context(), enough, func() error {
		if err := c.Get(t.Context(), client.ObjectKey{Name: name}, s); err != nil {
			return err
		}
		return reached(s)
	})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return s
}

// trusts asserts that a client with a ClusterTrustBundle trusts a server. It waits for the bundle, which is created again
// when Signers are restored.
func trusts(t *testing.T, s *server, bundle string) {
	t.Helper()
	err := harness.Eventually(t.Context(), enough, func() error {
		roots, err := pool(t.Context(), bundle)
		if err == nil {
			_, err = s.handshake(t.Context(), roots)
		}
		return err
	})
	if err != nil {
		t.Errorf("%s is not trusted: %v", s.name, err)
	}
}

func pool(ctx context.Context, bundle string) (*x509.CertPool, error) {
	b, err := installation.Cluster.Clientset().CertificatesV1().ClusterTrustBundles().Get(ctx, bundle, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(b.Spec.TrustBundle)) {
		return nil, errors.New("the bundle holds no certificate")
	}
	return roots, nil
}

func kubectl(t *testing.T, args ...string) {
	t.Helper()
	_, err := installation.Cluster.Kubectl(context.WithoutCancel(t.Context()), nil, args...)
	must(t, err)
}

// TestRestore restores Signers from a copy with their status. A retiring CA stays trusted.
func TestRestore(t *testing.T) {
	ctx := t.Context()
	c := newClient(t)
	one(t, c, "rotated")
	s := newServer(t, "restored", "10.0.51.4", signerName)
	must(t, s.ask(ctx)) // by the CA that retires next
	annotate(t)
	before := signerWhen(t, c, "rotated", "the next CA signs", func(s *v1alpha1.Signer) error {
		if phasesOf(s) != "Current Retiring" {
			return errors.New(phasesOf(s))
		}
		return is(s, v1alpha1.ConditionTrustPublished, "Published")
	})
	// As in docs/operations.md, with a process instead of the Deployment.
	must(t, installation.Signer.Stop())
	copied, err := installation.Cluster.Kubectl(ctx, nil, "get", "signers", "-o", "json")
	must(t, err)
	var list unstructured.UnstructuredList
	must(t, list.UnmarshalJSON(copied))
	for i := range list.Items {
		for _, field := range []string{"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"} {
			unstructured.RemoveNestedField(list.Items[i].Object, "metadata", field)
		}
	}
	stripped, err := list.MarshalJSON()
	must(t, err)
	file := filepath.Join(t.TempDir(), "restored.json")
	must(t, os.WriteFile(file, stripped, 0o600))
	kubectl(t, "delete", "signers", "--all")
	kubectl(t, "apply", "--server-side", "-f", file)
	kubectl(t, "replace", "--subresource=status", "-f", file)
	startSigner(t)
	after := signerWhen(t, c, "rotated", "it goes on", func(s *v1alpha1.Signer) error {
		return errors.Join(is(s, v1alpha1.ConditionReady, "CALoaded"), is(s, v1alpha1.ConditionTrustPublished, "Published"))
	})
	if phasesOf(after) != "Current Retiring" || after.Status.TrustAnchors[1].Fingerprint != before.Status.TrustAnchors[1].Fingerprint {
		t.Errorf("on record: %s", phasesOf(after))
	}
	trusts(t, s, bundleName)
}
