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

// recovery is how soon after it was mended a Signer must issue again what waited meanwhile.
const recovery = 5 * time.Second

const wrongDomain = "wrong.example.com"

// wrongInput is something wrong with the CA of a Signer, and how it is mended.
type wrongInput struct {
	// from is where the CA comes from; the Secret of the Signer's name if nil.
	from func(name string) v1alpha1.SignerCA
	// before is done before there is a Signer; nil if nothing.
	before func(t *testing.T, c client.Client, name string)
	// breaks is done once the Signer is ready; nil if nothing, and it never was.
	breaks func(t *testing.T, c client.Client, name string)
	// mends is what a cluster admin does about it.
	mends func(t *testing.T, c client.Client, name string)

	// reason of the condition Ready, and the values that its message names.
	reason string
	values []string
	// rotation says that reason and values are of the condition Rotating instead: the Signer is ready
	// and goes on, and when it is mended its CA is replaced.
	rotation bool
}

// TestWrongInputs: whatever is wrong with a CA, its Signer says what, and how it is mended; requests wait
// meanwhile, and none fails; once it is mended they are issued within 5 s. The process goes on.
func TestWrongInputs(t *testing.T) {
	caDir := t.TempDir()
	tests := secretInputs(t)
	for more, table := range []map[string]wrongInput{managedInputs(t), fileInputs(t, caDir)} {
		for name, tc := range table {
			if _, twice := tests[name]; twice {
				t.Fatalf("table %d: there is a %s already", more, name)
			}
			tests[name] = tc
		}
	}
	var names []string
	for name := range tests {
		names = append(names, name)
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
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			tc.run(t, c, name)
			select {
			case <-process.Done():
				t.Fatalf("the signer has ended: %s", process.Tail())
			default:
			}
			if log := read(t, process.Log); bytes.Contains(log, []byte("panic")) {
				t.Fatalf("a panic in the signer: %s", log[bytes.Index(log, []byte("panic")):])
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
		bundle(t, name) // what is to be replaced is published
		w.breaks(t, c, name)
	}
	kind := v1alpha1.ConditionReady
	if w.rotation {
		kind = v1alpha1.ConditionRotating
	}
	s := awaitSigner(t, c, name, func(s *v1alpha1.Signer) error {
		if condition := meta.FindStatusCondition(s.Status.Conditions, kind); condition == nil || condition.Reason != w.reason {
			return fmt.Errorf("%s is not yet for %s", kind, w.reason)
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
		outcome(t, name, certificatesv1.CertificateApproved) // by the CA as it is
		if s := awaitSigner(t, c, name, isReady); s.Status.CA.Fingerprint != before {
			t.Error("the CA was replaced before that was possible")
		}
	} else if s := awaitSigner(t, c, name, func(*v1alpha1.Signer) error { return nil }); s.Status.CA != nil {
		t.Errorf("the status names a CA: %+v", s.Status.CA)
	}

	mended := time.Now()
	w.mends(t, c, name)
	if w.rotation {
		awaitSigner(t, c, name, func(s *v1alpha1.Signer) error {
			if err := isReady(s); err != nil || s.Status.CA.Fingerprint == before {
				return errors.Join(err, errors.New("its CA is not replaced"))
			}
			return nil
		})
	} else {
		outcome(t, name, certificatesv1.CertificateApproved)
	}
	took := time.Since(mended).Round(10 * time.Millisecond)
	t.Logf("recovered in %s", took)
	if took > recovery {
		t.Errorf("it took %s from the mending until it was as it should be, want %s at most", took, recovery)
	}

	s = awaitSigner(t, c, name, func(s *v1alpha1.Signer) error {
		_, asked := s.Annotations[v1alpha1.RotateAnnotation]
		if asked {
			return errors.New("the annotation is still there")
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
	roots, below := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle(t, name))
	issued := certificates(t, csr.Status.Certificate)
	for _, certificate := range issued[1:] {
		below.AddCert(certificate)
	}
	if _, err := issued[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: below}); err != nil {
		t.Errorf("by what is published: %v", err)
	}
}

// secretInputs are of spec.ca.secretRef.
func secretInputs(t *testing.T) map[string]wrongInput {
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
	mend := store(good.crt, good.key)
	return map[string]wrongInput{
		"key-of-another": {
			before: store(good.crt, newCA(t, nil).key), mends: mend, reason: v1alpha1.ReasonCAKeyMismatch,
			values: []string{"tls.key", "tls.crt", "CN=My CA"},
		},
		"expired": {
			before: store(expiredCA(t).pair()), mends: mend, reason: v1alpha1.ReasonCAExpired,
			values: []string{"CN=My CA", "2020-01-02T03:04:05Z"},
		},
		"not-yet-valid": {
			before: store(newCA(t, func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Date(2090, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
			}).pair()), mends: mend, reason: v1alpha1.ReasonCANotYetValid,
			values: []string{"CN=My CA", "2090-01-02T03:04:05Z"},
		},
		"leaf": {
			before: store(newCA(t, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature }).pair()), mends: mend, reason: v1alpha1.ReasonInvalidCA,
			values: []string{"CN=My CA", "basic constraints", "CA:TRUE"},
		},
		"key-encrypted":        {before: store(good.crt, read(t, encrypted)), mends: mend, reason: v1alpha1.ReasonInvalidCA, values: encryptedKey},
		"key-encrypted-legacy": {before: store(good.crt, read(t, legacy)), mends: mend, reason: v1alpha1.ReasonInvalidCA, values: encryptedKey},
		"certificate-garbage": {
			before: store([]byte("\x30\x82garbage\x00\xff"), good.key), mends: mend, reason: v1alpha1.ReasonInvalidCA,
			values: []string{"tls.crt", "PEM"},
		},
		"certificate-not-one": {
			before: store([]byte("-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE-----\n"), good.key), mends: mend, reason: v1alpha1.ReasonInvalidCA,
			values: []string{"certificate 1", "tls.crt", "x509: malformed certificate"},
		},
		"certificate-cut-off": {
			before: store(good.crt[:len(good.crt)/2], good.key), mends: mend, reason: v1alpha1.ReasonInvalidCA,
			values: []string{"tls.crt", "PEM"},
		},
		"key-garbage": {
			before: store(good.crt, []byte("-----BEGIN PRIVATE KEY-----\nZ2FyYmFnZQ==\n-----END PRIVATE KEY-----\n")), mends: mend, reason: v1alpha1.ReasonInvalidCA,
			values: []string{"tls.key", "RSA, ECDSA or Ed25519", "openssl pkey -in tls.key"},
		},
		"a-mebibyte": { // as near as the API server lets a Secret come
			before: store(tooLarge, good.key), mends: mend, reason: v1alpha1.ReasonInvalidCA,
			values: []string{"tls.crt", fmt.Sprint(len(tooLarge)), "65536"},
		},
		"no-secret": {
			mends: mend, reason: v1alpha1.ReasonSecretNotFound,
			values: []string{"Secret", "kubectl create secret tls no-secret --namespace=countersign-system --cert=ca.crt --key=ca.key"},
		},
		"secret-deleted": {
			before: mend, mends: mend, reason: v1alpha1.ReasonSecretNotFound,
			breaks: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				must(t, deleteSecret(t.Context(), name))
			},
			values: []string{"Secret", "kubectl create secret tls secret-deleted --namespace=countersign-system --cert=ca.crt --key=ca.key"},
		},
		"broken-while-in-use": {
			before: mend, breaks: store([]byte("garbage"), []byte("garbage")), mends: mend, reason: v1alpha1.ReasonInvalidCA,
			values: []string{"tls.crt", "PEM"},
		},
		"secret-may-not-be-read": {
			before: func(t *testing.T, c client.Client, name string) {
				t.Helper()
				mend(t, c, name)
				may(t, name)
			},
			mends: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				may(t, name, "list", "watch")
			},
			reason: v1alpha1.ReasonSecretNotFound,
			values: []string{"secret-may-not-be-read", "resourceNames", "list and watch"},
		},
		"immutable": { // and so mended only by another Secret of its name
			before: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				secret := tlsSecret(name, good.crt, []byte("garbage"))
				secret.Immutable = new(true)
				must(t, storeSecret(t.Context(), secret))
			},
			mends: func(t *testing.T, c client.Client, name string) {
				t.Helper()
				must(t, deleteSecret(t.Context(), name))
				mend(t, c, name)
			},
			reason: v1alpha1.ReasonInvalidCA,
			values: []string{"tls.key", "PEM"},
		},
	}
}

// managedInputs are of spec.ca.managed.
func managedInputs(t *testing.T) map[string]wrongInput {
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
	return map[string]wrongInput{
		"managed-garbage": {
			from: managed, mends: deleted, reason: v1alpha1.ReasonInvalidCA,
			breaks: func(t *testing.T, c client.Client, name string) {
				t.Helper()
				patch(t, c, name, func(secret *corev1.Secret) { secret.Data[corev1.TLSCertKey] = []byte("garbage") })
			},
			values: []string{"tls.crt", "PEM", "managed-garbage"},
		},
		"managed-key-of-another": {
			from: managed, mends: deleted, reason: v1alpha1.ReasonCAKeyMismatch,
			breaks: func(t *testing.T, c client.Client, name string) {
				t.Helper()
				patch(t, c, name, func(secret *corev1.Secret) { secret.Data[corev1.TLSPrivateKeyKey] = newCA(t, nil).key })
			},
			values: []string{"tls.key", "tls.crt", "CN=Managed", "managed-key-of-another"},
		},
		"managed-of-another-type": {
			from: managed, mends: deleted, reason: v1alpha1.ReasonNotManaged,
			before: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				must(t, storeSecret(t.Context(), tlsSecret(name, newCA(t, nil).crt, newCA(t, nil).key)))
			},
			values: []string{"managed-of-another-type", "kubernetes.io/tls", "countersign.dev/managed-ca", "spec.ca.managed.secretName", "spec.ca.secretRef"},
		},
		"managed-may-not-be-written": {
			from: managed, reason: v1alpha1.ReasonSecretReadOnly,
			before: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				may(t, name, "get", "list", "watch")
			},
			mends: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				may(t, name, "get", "list", "watch", "create", "patch")
			},
			values: []string{"managed-may-not-be-written", "resourceNames", "create and patch"},
		},
		"rotation-may-not-be-written": {
			from: managed, rotation: true, reason: v1alpha1.ReasonSecretReadOnly,
			breaks: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				may(t, name, "get", "list", "watch")
				rotate(t, name)
			},
			mends: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				may(t, name, "get", "list", "watch", "create", "patch")
			},
			values: []string{"rotation-may-not-be-written", "resourceNames", "create and patch"},
		},
		"rotation-immutable": {
			from: managed, rotation: true, mends: deleted, reason: v1alpha1.ReasonSecretReadOnly,
			breaks: func(t *testing.T, c client.Client, name string) {
				t.Helper()
				patch(t, c, name, func(secret *corev1.Secret) { secret.Immutable = new(true) })
				rotate(t, name)
			},
			values: []string{"rotation-immutable", "field is immutable when `immutable` is set"},
		},
		"root-expired": {
			from: rooted, reason: v1alpha1.ReasonRotationFailed,
			before: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				root := expiredCA(t)
				must(t, storeSecret(t.Context(), tlsSecret(name+"-root", root.crt, root.key)))
			},
			mends: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				root := newCA(t, nil)
				must(t, storeSecret(t.Context(), tlsSecret(name+"-root", root.crt, root.key)))
			},
			values: []string{"CN=My CA", "2020-01-02T03:04:05Z"},
		},
	}
}

// fileInputs are of spec.ca.file, in folders below dir.
func fileInputs(t *testing.T, dir string) map[string]wrongInput {
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
	mend := put(good.crt, good.key)
	missing := func(name string) []string {
		return []string{"open " + filepath.Join(dir, name, corev1.TLSCertKey) + ": no such file or directory", "tls.key"}
	}
	return map[string]wrongInput{
		"file-missing": {from: from, mends: mend, reason: v1alpha1.ReasonFileNotFound, values: missing("file-missing")},
		"file-removed": {
			from: from, before: mend, mends: mend, reason: v1alpha1.ReasonFileNotFound, values: missing("file-removed"),
			breaks: func(t *testing.T, _ client.Client, name string) {
				t.Helper()
				must(t, os.RemoveAll(filepath.Join(dir, name)))
			},
		},
		"file-empty": {
			from: from, before: put(nil, good.key), mends: mend, reason: v1alpha1.ReasonInvalidCA,
			values: []string{"tls.crt", "tls.key"},
		},
		"file-expired": {
			from: from, mends: mend, reason: v1alpha1.ReasonCAExpired,
			before: put(expiredCA(t).pair()),
			values: []string{"CN=My CA", "2020-01-02T03:04:05Z"},
		},
	}
}

// may lets the signer do only this with the Secret of a Signer.
func may(t *testing.T, name string, verbs ...string) {
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
