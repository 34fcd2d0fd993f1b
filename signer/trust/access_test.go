// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"errors"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestPublish_forbidden checks whether a Forbidden answer counts as a missing permission, which makes the publication
// incomplete, or as a refusal by the namespace, which does not delay a rotation.
func TestPublish_forbidden(t *testing.T) {
	for _, tc := range []struct {
		name     string
		denied   string // the verb that a review denies; "" for none
		answers  int    // of how many writes are Forbidden
		complete bool
		failed   bool
		content  string
		reviews  int
	}{
		{"the authorizer denies patch", "patch", 100, false, true, "[ca.crt:old] managed-by countersign of signer-uid", 1},
		{"the authorizer denies delete", "delete", 100, false, true, "[ca.crt:old] managed-by countersign of signer-uid", 4},
		{"an admission plugin refuses", "", 100, true, true, "[ca.crt:old] managed-by countersign of signer-uid", 4},
		{"the permission was granted meanwhile", "", 1, true, false, current, 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			api := newAPI(t, namespace("one", "a"), namespace("two", "a"))
			p, _ := start(t, api)
			signer := newSigner(false)
			if result := publish(t, p, signer, "old"); !result.Complete || result.Err != nil {
				t.Fatalf("first publication: %+v", result)
			}
			signer.Status.Published = nil
			left := tc.answers
			api.mu.Lock()
			api.reviews = 0
			api.review = func(verb string) bool { return verb != tc.denied }
			api.refuse = func(verb, kind, namespace, name string) error {
				if verb != "apply" || kind != kindConfigMap || namespace != "one" || left == 0 {
					return nil
				}
				left--
				// The text is that of the authorizer in all cases: it must not matter.
				return apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, name, errors.New(`User "signer" cannot patch it`))
			}
			api.mu.Unlock()
			result := publish(t, p, signer, bundle)
			if result.Complete != tc.complete || (result.Err != nil) != tc.failed {
				t.Errorf("complete %v, error %v; want %v, an error: %v", result.Complete, result.Err, tc.complete, tc.failed)
			}
			if got := there(t, api)["one/"+mapped]; got != tc.content {
				t.Errorf("the ConfigMap is %q, want %q", got, tc.content)
			}
			if api.reviews != tc.reviews {
				t.Errorf("%d access reviews, want %d", api.reviews, tc.reviews)
			}
		})
	}
}
