// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package servingcert

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func TestBundleReconciler(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ca.issue(key.Public(), []string{"x"}, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(chain)
	served := &tls.Certificate{Certificate: [][]byte{block.Bytes}}
	for _, tc := range []struct {
		name      string
		published string // empty: not yet
		bundles   []string
		none      bool // there is no configuration
		files     bool // the certificate is in files
		unserved  bool // there is no certificate yet
		apiError  error
		want      []string
		patches   int
		renewed   int
		requeue   time.Duration
		err       string
	}{
		{name: "not published", bundles: []string{"", "x"}, want: []string{"", "x"}},
		{name: "invalid bundle", published: "junk", bundles: []string{"", "x"}, want: []string{"", "x"}},
		{name: "new bundle", published: string(ca.pem()), bundles: []string{"", "x"}, want: []string{string(ca.pem()), string(ca.pem())}, patches: 1},
		{name: "unchanged", published: string(ca.pem()), bundles: []string{string(ca.pem())}, want: []string{string(ca.pem())}},
		{name: "no configuration", published: string(ca.pem()), none: true},
		{name: "CA replaced", published: string(other.pem()), bundles: []string{string(ca.pem())}, want: []string{string(other.pem())}, patches: 1, renewed: 1, requeue: time.Minute},
		{name: "both CAs published", published: string(other.pem()) + string(ca.pem()), bundles: []string{""}, want: []string{string(other.pem()) + string(ca.pem())}, patches: 1},
		{name: "files, other CA", published: string(other.pem()), bundles: []string{""}, files: true, want: []string{string(other.pem())}, patches: 1},
		{name: "no certificate yet", published: string(other.pem()), bundles: []string{""}, unserved: true, want: []string{string(other.pem())}, patches: 1},
		{
			name: "API error", published: string(ca.pem()), bundles: []string{""}, apiError: errors.New("connection refused"), want: []string{""}, patches: 1,
			err: `updating caBundle of ValidatingWebhookConfiguration "countersign": connection refused`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "countersign"}}
			for i, bundle := range tc.bundles {
				configuration.Webhooks = append(configuration.Webhooks, admissionregistrationv1.ValidatingWebhook{
					Name: string(rune('a'+i)) + ".countersign.dev", ClientConfig: admissionregistrationv1.WebhookClientConfig{CABundle: []byte(bundle)},
				})
			}
			patches, renewed := 0, 0
			builder := fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).WithInterceptorFuncs(interceptor.Funcs{
				Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
					patches++
					if tc.apiError != nil {
						return tc.apiError
					}
					return c.Patch(ctx, object, patch, options...)
				},
			})
			if !tc.none {
				builder.WithObjects(configuration)
			}
			if tc.published != "" {
				builder.WithObjects(&corev1.ConfigMap{
					ObjectMeta: metav1.ObjectMeta{Namespace: "countersign-system", Name: "countersign-webhook-ca"}, Data: map[string]string{"ca.crt": tc.published},
				})
			}
			r := &bundleReconciler{
				client: builder.Build(), configMap: types.NamespacedName{Namespace: "countersign-system", Name: "countersign-webhook-ca"}, target: ValidatingWebhooks("countersign"),
				served: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
					if tc.unserved {
						return nil, errNoCertificate
					}
					return served, nil
				},
				renew: func() (bool, error) { renewed++; return true, nil },
			}
			if tc.files {
				r.renew = nil
			}
			got, err := r.Reconcile(t.Context(), reconcile.Request{})
			if (err == nil) != (tc.err == "") || err != nil && err.Error() != tc.err {
				t.Errorf("error %v, want %q", err, tc.err)
			}
			if patches != tc.patches || renewed != tc.renewed || got.RequeueAfter != tc.requeue {
				t.Errorf("%d patches, %d renewals, requeued after %s; want %d, %d, %s", patches, renewed, got.RequeueAfter, tc.patches, tc.renewed, tc.requeue)
			}
			if tc.none {
				return
			}
			var after admissionregistrationv1.ValidatingWebhookConfiguration
			if err := r.client.Get(t.Context(), types.NamespacedName{Name: "countersign"}, &after); err != nil {
				t.Fatal(err)
			}
			for i := range after.Webhooks {
				if bundle := string(after.Webhooks[i].ClientConfig.CABundle); bundle != tc.want[i] {
					t.Errorf("caBundle of webhook %d: %q, want %q", i, bundle, tc.want[i])
				}
			}
		})
	}
}
