// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package servingcert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/pem"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func TestDistrustReconciler(t *testing.T) {
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
		unserved  bool   // there is no certificate yet
		renewed   int
		requeue   time.Duration
	}{
		{name: "not published"},
		{name: "invalid bundle", published: "junk"},
		{name: "issued by the CA", published: string(ca.pem())},
		{name: "CA replaced", published: string(other.pem()), renewed: 1, requeue: time.Minute},
		{name: "both CAs published", published: string(other.pem()) + string(ca.pem())},
		{name: "no certificate yet", published: string(other.pem()), unserved: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			builder := fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme)
			if tc.published != "" {
				builder.WithObjects(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "webhook-ca"}, Data: map[string]string{"ca.crt": tc.published}})
			}
			renewed := 0
			r := &distrustReconciler{
				client: builder.Build(), configMap: types.NamespacedName{Namespace: "ns", Name: "webhook-ca"},
				served: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
					if tc.unserved {
						return nil, errNoCertificate
					}
					return served, nil
				},
				renew: func() (bool, error) { renewed++; return true, nil },
			}
			got, err := r.Reconcile(t.Context(), reconcile.Request{})
			if err != nil || renewed != tc.renewed || got.RequeueAfter != tc.requeue {
				t.Errorf("%d renewals, requeued after %s, error %v; want %d, %s", renewed, got.RequeueAfter, err, tc.renewed, tc.requeue)
			}
		})
	}
}
