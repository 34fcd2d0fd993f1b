// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/elliptic"
	"errors"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/internal/watchset"
)

// TestLoad_states goes through what can be known of a Secret.
func TestLoad_states(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	secret := func(data map[string][]byte) map[types.NamespacedName]*Secret {
		return map[types.NamespacedName]*Secret{{Namespace: "system", Name: "serving-ca"}: {Found: true, Data: data}}
	}
	cert := certPEM(issue(t, "Root", key, nil, nil))
	good := secret(map[string][]byte{"tls.crt": cert, "tls.key": keyPEM(t, key)})
	bad := secret(map[string][]byte{"tls.crt": cert})
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "serving-ca", errors.New("no list"))
	away := errors.New("connection refused")
	const mayNotBeRead = "Secret system/serving-ca may not be read: add its name to resourceNames in the signer's Role for secrets, with the verbs list and watch"

	for name, tc := range map[string]struct {
		state   watchset.State[Secret]
		message string // "" if it loads
	}{
		"refused":                            {watchset.State[Secret]{Err: forbidden}, mayNotBeRead},
		"the API server is away":             {watchset.State[Secret]{Err: away}, "Secret system/serving-ca cannot be read: connection refused"},
		"missing":                            {watchset.State[Secret]{Synced: true}, "Secret system/serving-ca does not exist: make it with 'kubectl create secret tls serving-ca --namespace=system --cert=ca.crt --key=ca.key'"},
		"incomplete":                         {watchset.State[Secret]{Synced: true, Objects: bad}, "tls.key is missing or empty: put both tls.crt and tls.key there, as 'kubectl create secret tls' does"},
		"good":                               {watchset.State[Secret]{Synced: true, Objects: good}, ""},
		"away since: what was read counts":   {watchset.State[Secret]{Synced: true, Objects: good, Err: away}, ""},
		"the right to read it was withdrawn": {watchset.State[Secret]{Synced: true, Objects: good, Err: forbidden}, mayNotBeRead},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadFound("system", "serving-ca", tc.state, now)
			if got := message(err); got != tc.message {
				t.Errorf("got %q, want %q", got, tc.message)
			}
			var problem *Problem
			if err != nil && (!errors.As(err, &problem) || problem.Reason != v1alpha1.ReasonSecretNotFound && problem.Reason != v1alpha1.ReasonInvalidCA) {
				t.Errorf("got %#v, want a *Problem", err)
			}
		})
	}
	if _, err := loadFound("system", "serving-ca", watchset.State[Secret]{}, now); !errors.Is(err, ErrPending) {
		t.Errorf("before the first answer: got %v, want ErrPending", err)
	}
}

func TestWatcher_Keep(t *testing.T) {
	w := NewWatcher(nil, "system", nil)
	w.Keep(map[string]bool{"b": true}) // Start was not called: nothing is asked of the nil client
	for _, name := range []string{"a", "b"} {
		if _, err := w.Load(name, now); !errors.Is(err, ErrPending) {
			t.Errorf("%s: got %v, want ErrPending", name, err)
		}
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
