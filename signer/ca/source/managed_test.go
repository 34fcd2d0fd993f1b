// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
)

func TestSecretKeys(t *testing.T) {
	bits := func(key crypto.PublicKey) string {
		switch key := key.(type) {
		case *ecdsa.PublicKey:
			return fmt.Sprintf("ECDSA %d", key.Params().BitSize)
		case *rsa.PublicKey:
			return fmt.Sprintf("RSA %d", key.N.BitLen())
		case ed25519.PublicKey:
			return "Ed25519"
		}
		return "unknown"
	}
	for _, test := range []struct {
		algorithm v1alpha1.KeyAlgorithm
		want      string
	}{
		{"", "ECDSA 256"},
		{v1alpha1.KeyECDSAP256, "ECDSA 256"},
		{v1alpha1.KeyECDSAP384, "ECDSA 384"},
		{v1alpha1.KeyEd25519, "Ed25519"},
		{v1alpha1.KeyRSA2048, "RSA 2048"},
		{v1alpha1.KeyRSA3072, "RSA 3072"},
		{"DSA", `InvalidCA: spec.ca.managed.keyAlgorithm is "DSA": use one of [ECDSA-P256 ECDSA-P384 Ed25519 RSA-2048 RSA-3072 RSA-4096]`},
	} {
		key, reference, problem, err := SecretKeys{}.Create(t.Context(), test.algorithm)
		if err != nil {
			t.Fatal(err)
		}
		if problem != nil {
			if got := describe(problem); got != test.want {
				t.Errorf("%q: got %q, want %q", test.algorithm, got, test.want)
			}
			continue
		}
		opened, problem, err := SecretKeys{}.Open(t.Context(), reference)
		if problem != nil || err != nil {
			t.Fatal(problem, err)
		}
		if got := bits(opened.Public()); got != test.want || bits(key.Public()) != test.want {
			t.Errorf("%q: got %q, want %q", test.algorithm, got, test.want)
		}
	}
}

func TestManaged_open(t *testing.T) {
	one := newPair(t, "One")
	cert, key := one.certPEM(), one.keyPEM(t)
	for _, test := range []struct {
		name string
		data map[string][]byte
		want string
	}{
		{"empty", nil, ""},
		{"complete", map[string][]byte{corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key}, ""},
		{"no key", map[string][]byte{corev1.TLSCertKey: cert}, "InvalidCA: tls.key is missing or empty: both tls.crt and tls.key are required, as 'kubectl create secret tls' writes them"},
		{"invalid certificate", map[string][]byte{corev1.TLSCertKey: []byte("x"), corev1.TLSPrivateKeyKey: key}, "InvalidCA: tls.crt contains no PEM block: check that it is not DER, and not encoded in base64 twice"},
		{"invalid previous certificate", map[string][]byte{corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key, previousCert: []byte("x")}, "InvalidCA: reading previous.crt and previous.key as tls.crt and tls.key: tls.crt contains no PEM block: check that it is not DER, and not encoded in base64 twice"},
		{"no previous key", map[string][]byte{corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key, previousCert: cert}, "InvalidCA: reading previous.crt and previous.key as tls.crt and tls.key: tls.key is missing or empty: both tls.crt and tls.key are required, as 'kubectl create secret tls' writes them"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := &Managed{Keys: SecretKeys{}}
			if _, problem, err := m.open(t.Context(), test.data); describe(problem) != test.want || err != nil {
				t.Errorf("got %q, %v; want %q", describe(problem), err, test.want)
			}
		})
	}
}

// remoteKeys is a KeyStore whose keys cannot be exported: a reference is a name.
type remoteKeys struct {
	keys       map[string]crypto.Signer
	created    int
	destroyErr error
}

func (r *remoteKeys) Create(_ context.Context, algorithm v1alpha1.KeyAlgorithm) (crypto.Signer, KeyReference, *ca.Problem, error) {
	key, problem, err := generateKey(algorithm)
	r.created++
	name := fmt.Sprintf("key-%d", r.created)
	r.keys[name] = key
	return key, KeyReference(name), problem, err
}

func (r *remoteKeys) Open(_ context.Context, reference KeyReference) (crypto.Signer, *ca.Problem, error) {
	key := r.keys[string(reference)]
	if key == nil {
		return nil, nil, errors.New("no such key")
	}
	return key, nil, nil
}

func (r *remoteKeys) Destroy(_ context.Context, reference KeyReference) error {
	if r.destroyErr != nil {
		return r.destroyErr
	}
	delete(r.keys, string(reference))
	return nil
}

// TestManaged_keyStore rotates a CA whose keys are not in its Secret. A key is destroyed only after the Secret has
// dropped its reference.
func TestManaged_keyStore(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	signer := &v1alpha1.Signer{ObjectMeta: metav1.ObjectMeta{Name: "serving"}}
	signer.Spec.CA.Managed = &v1alpha1.ManagedCA{SecretName: "serving-ca", CommonName: "Example"}
	server := fake.NewClientBuilder().WithScheme(scheme).WithObjects(signer).Build()
	keys := &remoteKeys{keys: map[string]crypto.Signer{}}
	recorder := events.NewFakeRecorder(10)
	m := &Managed{
		Writer: &SecretWriter{Client: server, Namespace: "system"}, Keys: keys, Signers: server, Events: recorder,
	}
	read := func() *state {
		t.Helper()
		s := &state{signer: signer, situation: ca.Situation{Spec: signer.Spec.CA.Managed}}
		var secret corev1.Secret
		switch err := server.Get(t.Context(), client.ObjectKey{Namespace: "system", Name: "serving-ca"}, &secret); {
		case client.IgnoreNotFound(err) != nil:
			t.Fatal(err)
		case err == nil:
			s.secret = Secret{Found: true, Type: secret.Type, ResourceVersion: secret.ResourceVersion, Data: secret.Data}
		}
		var problem *ca.Problem
		var err error
		if s.cas, problem, err = m.open(t.Context(), s.secret.Data); problem != nil || err != nil {
			t.Fatal(problem, err)
		}
		return s
	}
	var anchor string
	for _, step := range []struct {
		name    string
		at      time.Time
		settled bool // the newest CA signs
		want    []string
	}{
		{"first CA", now, false, []string{"key-1"}},
		{"next CA", now.AddDate(1, 0, -1), true, []string{"key-1", "key-2"}},
		{"next CA awaits propagation", now.AddDate(1, 0, -1), false, []string{"key-1", "key-2"}},
		{"next CA signs", now.AddDate(1, 0, -1), true, []string{"key-2"}},
	} {
		s := read()
		if step.settled {
			anchor = s.cas.Newest.Fingerprint()
		}
		s.situation.Current, s.situation.Signs = anchor, anchor
		if _, problem, err := m.advance(t.Context(), step.at, s); problem != nil || err != nil {
			t.Fatalf("%s: %v, %v", step.name, problem, err)
		}
		if got := slices.Sorted(maps.Keys(keys.keys)); !slices.Equal(got, step.want) {
			t.Errorf("%s: keys %v, want %v", step.name, got, step.want)
		}
		if got := string(read().secret.Data[corev1.TLSPrivateKeyKey]); got != step.want[len(step.want)-1] {
			t.Errorf("%s: tls.key is %q", step.name, got)
		}
	}
	keys.destroyErr = errors.New("store not reachable")
	m.destroy(t.Context(), read(), KeyReference("key-2"))
	for _, want := range []string{
		"Normal CAMade created a new CA, because there was no CA",
		`Normal CAMade created a new CA, because "CN=Example" expires at 2027-03-01T12:00:00Z`,
		"Warning KeyRemains delete a private key that is not used from its store: store not reachable",
	} {
		if got := <-recorder.Events; got != want {
			t.Errorf("Event %q, want %q", got, want)
		}
	}
}

// remoteKey is a key whose signatures fail.
type remoteKey struct {
	crypto.Signer
	err error
}

func (k remoteKey) SignMessageContext(context.Context, io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, k.err
}

// failingKeys is a KeyStore whose keys cannot sign.
type failingKeys struct {
	remoteKeys
	err error
}

func (f *failingKeys) Create(ctx context.Context, algorithm v1alpha1.KeyAlgorithm) (crypto.Signer, KeyReference, *ca.Problem, error) {
	key, reference, problem, err := f.remoteKeys.Create(ctx, algorithm)
	return remoteKey{key, f.err}, reference, problem, err
}

// TestManaged_createFails checks that a key is destroyed if no Secret can refer to it, and kept if one may.
func TestManaged_createFails(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	unavailable := errors.New("the key store is unavailable")
	resource := schema.GroupResource{Resource: "secrets"}
	conflict := apierrors.NewConflict(resource, "serving-ca", nil)
	for _, tc := range []struct {
		name       string
		write, use error // of the Secret, and of the key
		wantErr    error
		wantReason string
		wantKeys   int
	}{
		{name: "conflict", write: conflict, wantErr: conflict, wantKeys: 1},
		{name: "forbidden", write: apierrors.NewForbidden(resource, "serving-ca", nil), wantReason: v1alpha1.ReasonSecretReadOnly},
		{name: "timeout", write: context.DeadlineExceeded, wantErr: context.DeadlineExceeded, wantKeys: 1},
		{name: "the key cannot sign, which does not make the spec invalid", use: unavailable, wantErr: unavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			signer := &v1alpha1.Signer{ObjectMeta: metav1.ObjectMeta{Name: "serving"}}
			signer.Spec.CA.Managed = &v1alpha1.ManagedCA{SecretName: "serving-ca", CommonName: "Example"}
			server := fake.NewClientBuilder().WithScheme(scheme).WithObjects(signer).WithInterceptorFuncs(interceptor.Funcs{
				Patch: func(ctx context.Context, c client.WithWatch, o client.Object, patch client.Patch, options ...client.PatchOption) error {
					if _, ok := o.(*corev1.Secret); ok && tc.write != nil {
						return tc.write
					}
					return c.Patch(ctx, o, patch, options...)
				},
			}).Build()
			keys := &remoteKeys{keys: map[string]crypto.Signer{}}
			m := &Managed{
				Writer: &SecretWriter{Client: server, Namespace: "system"}, Keys: keys, Signers: server, Events: events.NewFakeRecorder(10),
			}
			if tc.use != nil {
				m.Keys = &failingKeys{*keys, tc.use}
			}
			created, problem, err := m.advance(t.Context(), now, &state{signer: signer, situation: ca.Situation{Spec: signer.Spec.CA.Managed}})
			if created {
				t.Error("a CA counts as created")
			}
			if !errors.Is(err, tc.wantErr) {
				t.Errorf("error %v, want %v", err, tc.wantErr)
			}
			if tc.wantReason == "" && problem != nil || tc.wantReason != "" && (problem == nil || problem.Reason != tc.wantReason) {
				t.Errorf("problem %v, want reason %q", problem, tc.wantReason)
			}
			if len(keys.keys) != tc.wantKeys {
				t.Errorf("%d keys are left, want %d", len(keys.keys), tc.wantKeys)
			}
		})
	}
}
