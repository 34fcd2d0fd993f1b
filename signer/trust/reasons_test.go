// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/signer/internal/signertest"
)

// TestReasons_examples compares the examples in the API documentation with the messages of this package.
func TestReasons_examples(t *testing.T) {
	var namespaces []client.Object
	for i := range 12 {
		namespaces = append(namespaces, namespace(fmt.Sprintf("ns-%d", i), "a"))
	}
	api := newAPI(t, namespaces...)
	p, _ := start(t, api)
	produced := map[string]string{"Published": publish(t, p, newSigner(true), bundle).Message}

	update(t, api, "ns-3", func(o *corev1.ConfigMap) {
		o.Immutable, o.Data, o.Finalizers = new(true), map[string]string{"ca.crt": "x"}, []string{"example.com/mine"}
	})
	if err := api.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns-3", Name: mapped}}); err != nil {
		t.Fatal(err)
	}
	refused := newSigner(false)
	eventually(t, func() error {
		result := publish(t, p, refused, bundle)
		if !result.Refused {
			return fmt.Errorf("%+v", result)
		}
		produced["PublishRefused"] = result.Message + "; not in " + result.Err.Error()
		return nil
	})
	examples := signertest.SignerReasons(t)
	for _, reason := range signertest.TrustReasons {
		signertest.CheckExample(t, examples, reason, produced[reason])
	}
}
