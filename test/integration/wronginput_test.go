// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/test/harness"
	"countersign.dev/countersign/test/tutorial"
)

// recovery is the time limit from the fix of a CA until its Signer has issued the requests that waited.
const recovery = 5 * time.Second

const wrongDomain = "wrong.example.com"

// wrongInput is a problem of the CA of a Signer, and its fix.
type wrongInput struct {
	name string
	// from returns spec.ca. If it is nil, the Signer uses the Secret of its name.
	from func(name string) v1alpha1.SignerCA
	// before runs before the Signer is created. It can be nil.
	before func(t *testing.T, c client.Client, name string)
	// breaks runs when the Signer is ready. If it is nil, the Signer never becomes ready before the fix.
	breaks func(t *testing.T, c client.Client, name string)
	// fixes does what a cluster admin does about the problem.
	fixes func(t *testing.T, c client.Client, name string)

	// reason of the condition Ready, and the values that its message names.
	reason string
	values []string
	// rotation is true if reason and values are those of the condition Rotating: the Signer stays ready, and after
	// the fix its CA is replaced.
	rotation bool
}

// TestWrongInputs checks for each problem of a CA that the Signer reports it. Requests stay pending and none fails. After
// the fix they are issued within 5 s. The process does not restart.
func TestWrongInputs(t *testing.T) {
	caDir := t.TempDir()
	tests := slices.Concat(secretInputs(t), managedInputs(t), fileInputs(t, caDir))
	var names []string
	for _, tc := range tests {
		if slices.Contains(names, tc.name) {
			t.Fatalf("duplicate test %s", tc.name)
		}
		names = append(names, tc.name)
	}
	grant(t, wrongDomain, names...)
	must(t, installation.Signer.Stop())
	_, err := installation.Start(t.Context(), "signer", "--ca-dir="+caDir)
	must(t, err)
	process := installation.Signer
	t.Cleanup(func() {
		must(t, process.Stop())
		_, err := installation.Start(context.Background(), "signer")
		must(t, err)
	})
	c := newClient(t)
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			tc.run(t, c, tc.name)
			select {
			case <-process.Done():
				t.Fatalf("the signer exited: %s", process.Tail())
			default:
			}
			if log := read(t, process.Log); bytes.Contains(log, []byte("panic")) {
				t.Fatalf("the signer panicked: %s", log[bytes.Index(log, []byte("panic")):])
			}
			must(t, process.Ready(t.Context()))
		})
	}
}

func (w wrongInput) run(t *testing.T, c client.Client, name string) {
	t.Helper()
	from := v1alpha1.SignerCA{SecretRef: &v1alpha1.LocalObjectReference{Name: name}}
	if w.from != nil {
		from = w.from(name)
	}
	if w.before != nil {
		w.before(t, c, name)
	}
	newSigner(t, c, wrongDomain, name, from)
	before := ""
	if w.breaks != nil {
		before = awaitSigner(t, c, name, isReady).Status.CA.Fingerprint
		bundle(t, name) // wait until the CA is published
		w.breaks(t, c, name)
	}
	kind := v1alpha1.ConditionReady
	if w.rotation {
		kind = v1alpha1.ConditionRotating
	}
	s := awaitSigner(t, c, name, func(s *v1alpha1.Signer) error {
		if condition := meta.FindStatusCondition(s.Status.Conditions, kind); condition == nil || condition.Reason != w.reason {
			return fmt.Errorf("%s does not have the reason %s", kind, w.reason)
		}
		return nil
	})
	condition := meta.FindStatusCondition(s.Status.Conditions, kind)
	if condition.Status != metav1.ConditionFalse || meta.IsStatusConditionTrue(s.Status.Conditions, v1alpha1.ConditionReady) != w.rotation {
		t.Errorf("conditions %+v", s.Status.Conditions)
	}
	if err := contains(condition.Message, w.values...); err != nil {
		t.Errorf("the message of %s: %v", kind, err)
	}

	request(t, name, own(wrongDomain+"/"+name))
	if w.rotation {
		outcome(t, name, certificatesv1.CertificateApproved) // by the CA before the rotation
		if s := awaitSigner(t, c, name, isReady); s.Status.CA.Fingerprint != before {
			t.Error("the CA was replaced before the fix")
		}
	} else if s := awaitSigner(t, c, name, func(*v1alpha1.Signer) error { return nil }); s.Status.CA != nil {
		t.Errorf("status.ca is set: %+v", s.Status.CA)
	}

	fixed := time.Now()
	w.fixes(t, c, name)
	if w.rotation {
		awaitSigner(t, c, name, func(s *v1alpha1.Signer) error {
			if err := isReady(s); err != nil || s.Status.CA.Fingerprint == before {
				return errors.Join(err, errors.New("the CA is not replaced"))
			}
			return nil
		})
	} else {
		outcome(t, name, certificatesv1.CertificateApproved)
	}
	took := time.Since(fixed).Round(10 * time.Millisecond)
	t.Logf("recovered in %s", took)
	if took > recovery {
		t.Errorf("the Signer recovered %s after the fix, want %s at most", took, recovery)
	}

	s = awaitSigner(t, c, name, func(s *v1alpha1.Signer) error {
		_, annotated := s.Annotations[v1alpha1.RotateAnnotation]
		if annotated {
			return errors.New("the annotation was not removed")
		}
		return isReady(s)
	})
	condition = meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReady)
	if err := contains(condition.Message, s.Status.CA.Subject, s.Status.CA.NotAfter.UTC().Format(time.RFC3339)); err != nil || condition.Reason != v1alpha1.ReasonCALoaded {
		t.Errorf("Ready has reason %s: %v", condition.Reason, err)
	}
	csr := outcome(t, name, certificatesv1.CertificateApproved)
	if failed := tutorial.Condition(csr, certificatesv1.CertificateFailed); failed != nil || len(csr.Status.Conditions) != 1 {
		t.Errorf("conditions of the request: %+v", csr.Status.Conditions)
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle(t, name))
	issued := certificates(t, csr.Status.Certificate)
	for _, certificate := range issued[1:] {
		intermediates.AddCert(certificate)
	}
	if _, err := issued[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates}); err != nil {
		t.Errorf("verifying with the published CA: %v", err)
	}
}

// secretInputs returns problems of spec.ca.secretRef.
func secretInputs(t *testing.T) []wrongInput {
	t.Helper()
	good := newCA(t, nil)
	tooLarge := bytes.Repeat(good.crt, (corev1.MaxSecretSize-len(good.key))/len(good.crt))
	key := file(t, "tls.key", good.key)
	encrypted, legacy := file(t, "encrypted.key", nil), file(t, "legacy.key", nil)
	for _, args := range [][]string{
		{"pkcs8", "-topk8", "-in", key, "-out", encrypted, "-passout", "pass:secret"},
		{"ec", "-aes256", "-in", key, "-out", legacy, "-passout", "pass:secret"},
	} {
		if out, err := openssl(t, args...); err != nil {
			t.Fatalf("openssl %s: %v\n%s", args, err, out)
		}
	}
	encryptedKey := []string{"tls.key", "encrypted", "openssl pkey"}
	store := func(crt, key []byte) func(*testing.T, client.Client, string) {
		return func(t *testing.T, _ client.Client, name string) {
			t.Helper()
			must(t, storeSecret(t.Context(), tlsSecret(name, crt, key)))
		}
	}
	fix := store(good.crt, good.key)
	return []wrongInput{
		{
			name:   "key-of-another",
			before: store(good.crt, newCA(t, nil).key), fixes: fix, reason: v1alpha1.ReasonCAKeyMismatch,
			values: []string{"tls.key", "tls.crt", "CN=My CA"},
		},
		{
			name:   "expired",
			before: store(expiredCA(t).pair()), fixes: fix, reason: v1alpha1.ReasonCAExpired,
			values: []string{"CN=My CA", "2020-01-02T03:04:05Z"},
		},
		{
			name: "not-yet-valid",
			before: store(newCA(t, func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Date(2090, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
			}).pair()), fixes: fix, reason: v1alpha1.ReasonCANotYetValid,
			values: []string{"CN=My CA", "2090-01-02T03:04:05Z"},
		},
		{
			name:   "leaf",
			before: store(newCA(t, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature }).pair()), fixes: fix, reason: v1alpha1.ReasonInvalidCA,
			values: []string{"CN=My CA", "basic constraints", "CA:TRUE"},
		},
		{name: "key-encrypted", before: store(good.crt, read(t, encrypted)), fixes: fix, reason: v1alpha1.ReasonInvalidCA, values: encryptedKey},
		{name: "key-encrypted-legacy", before: store(good.crt, read(t, legacy)), fixes: fix, reason: v1alpha1.ReasonInvalidCA, values: encryptedKey},
		{
			name:   "certificate-garbage",
			before: store([]byte("\x30\x82garbage\x00\xff"), good.key), fixes: fix, reason: v1alpha1.ReasonInvalidCA,
			values: []string{"tls.crt", "PEM"},
		},
		{
			name:   "certificate-not-one",
			before: store([]byte("-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE-----\n"), good.key), fixes: fix, reason: v1alpha1.ReasonInvalidCA,
			values: []string{"certificate 1", "tls.crt", "x509: malformed certificate"},
		},
		{
			name:   "certificate-cut-off",
			before: store(good.crt[:len(good.crt)/2], good.key), fixes: fix, reason: v1alpha1.ReasonInvalidCA,
			values: []string{"tls.crt", "PEM"},
		},
		{
			name:   "key-garbage",
			before: store(good.crt, []byte("-----BEGIN PRIVATE KEY-----\nZ2FyYmFnZQ==\n-----END PRIVATE KEY-----\n")), fixes: fix, reason: v1alpha1.ReasonInvalidCA,
			values: []string{"tls.key", "RSA, ECDSA or Ed25519", "openssl pkey -in tls.key"},
		},
		{ // the largest Secret that the API server accepts
			name:   "a-mebibyte",
			before: store(tooLarge, good.key), fixes: fix, reason: v1alpha1.ReasonInvalidCA,
			values: []string{"tls.crt", fmt.Sprint(len(tooLarge)), "65536"},
		},
		{
			name:  "no-secret",
			fixes: fix, reason: v1alpha1.ReasonSecretNotFound,
			values: []string{"Secret", "kubectl create secret tls no-secret --namespace=countersign-system --cert=ca.crt --key=ca.key"},
		},
		{
			name:   "secret-deleted",
			before: fix, fixes: fix, reason: v1alpha1.ReasonSecretNotFound,
			breaks: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				must(t, deleteSecret(t.Context(), name))
			},
			values: []string{"Secret", "kubectl create secret tls secret-deleted --namespace=countersign-system --cert=ca.crt --key=ca.key"},
		},
		{
			name:   "broken-while-in-use",
			before: fix, breaks: store([]byte("garbage"), []byte("garbage")), fixes: fix, reason: v1alpha1.ReasonInvalidCA,
			values: []string{"tls.crt", "PEM"},
		},
		{
			name: "secret-may-not-be-read",
			before: func(t *testing.T, c client.Client, name string) {
				t.Helper()
				fix(t, c, name)
				allowSecret(t, name)
			},
			fixes: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				allowSecret(t, name, "list", "watch")
			},
			reason: v1alpha1.ReasonSecretNotFound,
			values: []string{"secret-may-not-be-read", "resourceNames", "list and watch"},
		},
		{ // the fix is another Secret with the same name
			name: "immutable",
			before: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				secret := tlsSecret(name, good.crt, []byte("garbage"))
				secret.Immutable = new(true)
				must(t, storeSecret(t.Context(), secret))
			},
			fixes: func(t *testing.T, c client.Client, name string) {
				t.Helper()
				must(t, deleteSecret(t.Context(), name))
				fix(t, c, name)
			},
			reason: v1alpha1.ReasonInvalidCA,
			values: []string{"tls.key", "PEM"},
		},
	}
}

// managedInputs returns problems of spec.ca.managed.
func managedInputs(t *testing.T) []wrongInput {
	t.Helper()
	managed := func(name string) v1alpha1.SignerCA {
		return v1alpha1.SignerCA{Managed: &v1alpha1.ManagedCA{SecretName: name, CommonName: "Managed"}}
	}
	rooted := func(name string) v1alpha1.SignerCA {
		from := managed(name)
		from.Managed.RootRef = &v1alpha1.LocalObjectReference{Name: name + "-root"}
		return from
	}
	deleted := func(t *testing.T, _ client.Client, name string) {
		t.Helper()
		must(t, deleteSecret(t.Context(), name))
	}
	patch := func(t *testing.T, c client.Client, name string, change func(*corev1.Secret)) {
		t.Helper()
		var secret corev1.Secret
		must(t, c.Get(t.Context(), client.ObjectKey{Namespace: harness.SystemNamespace, Name: name}, &secret))
		base := secret.DeepCopy()
		change(&secret)
		must(t, c.Patch(t.Context(), &secret, client.MergeFrom(base)))
	}
	return []wrongInput{
		{
			name: "managed-garbage",
			from: managed, fixes: deleted, reason: v1alpha1.ReasonInvalidCA,
			breaks: func(t *testing.T, c client.Client, name string) {
				t.Helper()
				patch(t, c, name, func(secret *corev1.Secret) { secret.Data[corev1.TLSCertKey] = []byte("garbage") })
			},
			values: []string{"tls.crt", "PEM", "managed-garbage"},
		},
		{
			name: "managed-key-of-another",
			from: managed, fixes: deleted, reason: v1alpha1.ReasonCAKeyMismatch,
			breaks: func(t *testing.T, c client.Client, name string) {
				t.Helper()
				patch(t, c, name, func(secret *corev1.Secret) { secret.Data[corev1.TLSPrivateKeyKey] = newCA(t, nil).key })
			},
			values: []string{"tls.key", "tls.crt", "CN=Managed", "managed-key-of-another"},
		},
		{
			name: "managed-of-another-type",
			from: managed, fixes: deleted, reason: v1alpha1.ReasonNotManaged,
			before: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				must(t, storeSecret(t.Context(), tlsSecret(name, newCA(t, nil).crt, newCA(t, nil).key)))
			},
			values: []string{"managed-of-another-type", "kubernetes.io/tls", "countersign.dev/managed-ca", "spec.ca.managed.secretName", "spec.ca.secretRef"},
		},
		{
			name: "managed-may-not-be-written",
			from: managed, reason: v1alpha1.ReasonSecretReadOnly,
			before: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				allowSecret(t, name, "get", "list", "watch")
			},
			fixes: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				allowSecret(t, name, "get", "list", "watch", "create", "patch")
			},
			values: []string{"managed-may-not-be-written", "resourceNames", "create and patch"},
		},
		{
			name: "rotation-may-not-be-written",
			from: managed, rotation: true, reason: v1alpha1.ReasonSecretReadOnly,
			breaks: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				allowSecret(t, name, "get", "list", "watch")
				rotate(t, name)
			},
			fixes: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				allowSecret(t, name, "get", "list", "watch", "create", "patch")
			},
			values: []string{"rotation-may-not-be-written", "resourceNames", "create and patch"},
		},
		{
			name: "rotation-immutable",
			from: managed, rotation: true, fixes: deleted, reason: v1alpha1.ReasonSecretReadOnly,
			breaks: func(t *testing.T, c client.Client, name string) {
				t.Helper()
				patch(t, c, name, func(secret *corev1.Secret) { secret.Immutable = new(true) })
				rotate(t, name)
			},
			values: []string{"rotation-immutable", "field is immutable when `immutable` is set"},
		},
		{
			name: "root-expired",
			from: rooted, reason: v1alpha1.ReasonRotationFailed,
			before: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				root := expiredCA(t)
				must(t, storeSecret(t.Context(), tlsSecret(name+"-root", root.crt, root.key)))
			},
			fixes: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				root := newCA(t, nil)
				must(t, storeSecret(t.Context(), tlsSecret(name+"-root", root.crt, root.key)))
			},
			values: []string{"CN=My CA", "2020-01-02T03:04:05Z"},
		},
	}
}

// fileInputs returns problems of spec.ca.file, in directories below dir.
func fileInputs(t *testing.T, dir string) []wrongInput {
	t.Helper()
	good := newCA(t, nil)
	from := func(name string) v1alpha1.SignerCA {
		return v1alpha1.SignerCA{File: &v1alpha1.FileCA{Directory: name}}
	}
	put := func(crt, key []byte) func(*testing.T, client.Client, string) {
		return func(t *testing.T, _ client.Client, name string) {
			t.Helper()
			folder := filepath.Join(dir, name)
			must(t, os.MkdirAll(folder, 0o700))
			must(t, os.WriteFile(filepath.Join(folder, corev1.TLSCertKey), crt, 0o600))
			must(t, os.WriteFile(filepath.Join(folder, corev1.TLSPrivateKeyKey), key, 0o600))
		}
	}
	fix := put(good.crt, good.key)
	missing := func(name string) []string {
		return []string{"open " + filepath.Join(dir, name, corev1.TLSCertKey) + ": no such file or directory", "tls.key"}
	}
	return []wrongInput{
		{name: "file-missing", from: from, fixes: fix, reason: v1alpha1.ReasonFileNotFound, values: missing("file-missing")},
		{
			name: "file-removed",
			from: from, before: fix, fixes: fix, reason: v1alpha1.ReasonFileNotFound, values: missing("file-removed"),
			breaks: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				must(t, os.RemoveAll(filepath.Join(dir, name)))
			},
		},
		{
			name: "file-empty",
			from: from, before: put(nil, good.key), fixes: fix, reason: v1alpha1.ReasonInvalidCA,
			values: []string{"tls.crt", "tls.key"},
		},
		{
			name: "file-expired",
			from: from, fixes: fix, reason: v1alpha1.ReasonCAExpired,
			before: put(expiredCA(t).pair()),
			values: []string{"CN=My CA", "2020-01-02T03:04:05Z"},
		},
	}
}

// allowSecret allows the signer only these verbs on the Secret of a Signer.
func allowSecret(t *testing.T, name string, verbs ...string) {
	t.Helper()
	roles := world.Clientset().RbacV1().Roles(harness.SystemNamespace)
	role, err := roles.Get(t.Context(), name+"-ca", metav1.GetOptions{})
	must(t, err)
	role.Rules = nil
	if len(verbs) > 0 {
		role.Rules = []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{name}, Verbs: verbs}}
	}
	_, err = roles.Update(t.Context(), role, metav1.UpdateOptions{})
	must(t, err)
}

func rotate(t *testing.T, name string) {
	t.Helper()
	kubectl(t, "annotate", "signer", name, v1alpha1.RotateAnnotation+"=now")
}

// newCA returns a CA named "My CA". If edit is not nil, it edits the certificate before it is signed.
func newCA(t *testing.T, edit func(*x509.Certificate)) toolCA {
	t.Helper()
	ca, err := harness.NewCA("My CA", edit)
	must(t, err)
	return toolCA{ca.CertificatePEM, ca.KeyPEM}
}

// expiredCA returns a CA that expired at 2020-01-02T03:04:05Z.
func expiredCA(t *testing.T) toolCA {
	t.Helper()
	return newCA(t, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	})
}

func (c toolCA) pair() (crt, key []byte) { return c.crt, c.key }
