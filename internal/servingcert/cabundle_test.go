// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package servingcert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
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
	const url, elsewhere = "https://example.com/", "a Service of another namespace"
	for _, tc := range []struct {
		name      string
		published string   // empty: not yet
		bundles   []string // of webhooks that call a Service of the namespace; url and elsewhere are webhooks that do not
		none      bool     // there is no configuration
		apiError  error
		want      []string
		patches   int
		err       string
	}{
		{name: "not published", bundles: []string{"", "x"}, want: []string{"", "x"}},
		{name: "invalid bundle", published: "junk", bundles: []string{"", "x"}, want: []string{"", "x"}},
		{name: "new bundle", published: string(ca.pem()), bundles: []string{"", "x"}, want: []string{string(ca.pem()), string(ca.pem())}, patches: 1},
		{name: "unchanged", published: string(ca.pem()), bundles: []string{string(ca.pem())}, want: []string{string(ca.pem())}},
		{name: "no configuration", published: string(ca.pem()), none: true},
		{name: "CA replaced", published: string(other.pem()), bundles: []string{string(ca.pem())}, want: []string{string(other.pem())}, patches: 1},
		{name: "both CAs published", published: string(other.pem()) + string(ca.pem()), bundles: []string{""}, want: []string{string(other.pem()) + string(ca.pem())}, patches: 1},
		{name: "webhooks of others", published: string(ca.pem()), bundles: []string{url, "", elsewhere}, want: []string{"", string(ca.pem()), ""}, patches: 1},
		{name: "only webhooks of others", published: string(ca.pem()), bundles: []string{url, elsewhere}, want: []string{"", ""}},
		{
			name: "API error", published: string(ca.pem()), bundles: []string{""}, apiError: errors.New("connection refused"), want: []string{""}, patches: 1,
			err: `updating caBundle of ValidatingWebhookConfiguration "countersign": connection refused`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "countersign"}}
			for i, bundle := range tc.bundles {
				path := "/"
				calls := admissionregistrationv1.WebhookClientConfig{
					Service: &admissionregistrationv1.ServiceReference{Namespace: "ns", Name: "countersign-webhook", Path: &path}, CABundle: []byte(bundle),
				}
				switch bundle {
				case url:
					calls = admissionregistrationv1.WebhookClientConfig{URL: new(url)}
				case elsewhere:
					calls.Service.Namespace, calls.CABundle = "elsewhere", nil
				}
				configuration.Webhooks = append(configuration.Webhooks, admissionregistrationv1.ValidatingWebhook{Name: string(rune('a'+i)) + ".countersign.dev", ClientConfig: calls})
			}
			patches := 0
			builder := fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).WithInterceptorFuncs(interceptor.Funcs{
				Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
					patches++
					if tc.apiError != nil {
						return tc.apiError
					}
					onlyBundles(t, object, patch)
					return c.Patch(ctx, object, patch, options...)
				},
			})
			if !tc.none {
				builder.WithObjects(configuration)
			}
			if tc.published != "" {
				builder.WithObjects(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "countersign-webhook-ca"}, Data: map[string]string{"ca.crt": tc.published}})
			}
			c := builder.Build()
			r := &bundleReconciler{options: CABundle{Namespace: "ns", ConfigMap: "countersign-webhook-ca", Configuration: "countersign"}, live: c, client: c}
			got, err := r.Reconcile(t.Context(), reconcile.Request{})
			if (err == nil) != (tc.err == "") || err != nil && err.Error() != tc.err {
				t.Errorf("error %v, want %q", err, tc.err)
			}
			if patches != tc.patches || got.RequeueAfter != 0 {
				t.Errorf("%d patches, requeued after %s; want %d, 0", patches, got.RequeueAfter, tc.patches)
			}
			if tc.none {
				return
			}
			var after admissionregistrationv1.ValidatingWebhookConfiguration
			if err := c.Get(t.Context(), types.NamespacedName{Name: "countersign"}, &after); err != nil {
				t.Fatal(err)
			}
			var bundles []string
			for i := range after.Webhooks {
				bundles = append(bundles, string(after.Webhooks[i].ClientConfig.CABundle))
			}
			if diff := cmp.Diff(tc.want, bundles); diff != "" {
				t.Errorf("caBundles (-want +got):\n%s", diff)
			}
		})
	}
}

// onlyBundles checks that a patch has a resourceVersion, and changes only the caBundle of webhooks. The order of the
// webhooks is a directive of strategic merge patches and changes nothing.
func onlyBundles(t *testing.T, object client.Object, patch client.Patch) {
	t.Helper()
	raw, err := patch.Data(object)
	if err != nil {
		t.Fatal(err)
	}
	var fields struct {
		Metadata map[string]any
		Order    []map[string]string `json:"$setElementOrder/webhooks"`
		Webhooks []struct {
			Name         string
			ClientConfig struct {
				CABundle []byte `json:"caBundle"`
			} `json:"clientConfig"`
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&fields); err != nil || len(fields.Metadata) != 1 || fields.Metadata["resourceVersion"] == "" {
		t.Errorf("patch %s: %v", raw, err)
	}
}
