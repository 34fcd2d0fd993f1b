// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
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
	api.setRefuse(func(verb, _, namespace, name string) error { // the fake does not check immutability
		if verb == "apply" && namespace == "ns-3" {
			return apierrors.NewConflict(schema.GroupResource{Resource: "configmaps"}, name, errors.New("conflict"))
		}
		return nil
	})
	if err := api.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns-3", Name: mapped}}); err != nil {
		t.Fatal(err)
	}
	refused := newSigner(false)
	eventually(t, func() error {
		result := publish(t, p, refused, bundle)
		if !result.Refused || strings.Contains(result.Err.Error(), "conflict") { // the watch can lag behind
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
