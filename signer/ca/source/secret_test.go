// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"errors"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"countersign.dev/countersign/internal/watchset"
)

const (
	readForbidden = "the signer is not allowed to read Secret system/serving-ca: add its name to resourceNames in the signer's Role for secrets, with the verbs list and watch"
	doesNotExist  = "Secret system/serving-ca does not exist: create it with 'kubectl create secret tls serving-ca --namespace=system --cert=ca.crt --key=ca.key'"
)

func TestLoadSecret(t *testing.T) {
	root := newPair(t, "Root")
	secret := func(data map[string][]byte) map[types.NamespacedName]*Secret {
		return map[types.NamespacedName]*Secret{{Namespace: "system", Name: "serving-ca"}: {Found: true, Data: data}}
	}
	good := secret(map[string][]byte{"tls.crt": root.certPEM(), "tls.key": root.keyPEM(t)})
	bad := secret(map[string][]byte{"tls.crt": root.certPEM()})
	managed := map[types.NamespacedName]*Secret{{Namespace: "system", Name: "serving-ca"}: {Found: true, Type: "countersign.dev/managed-ca"}}
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "serving-ca", errors.New("no list"))
	refused := errors.New("connection refused")

	for _, test := range []struct {
		name  string
		state watchset.State[Secret]
		want  string // "" if it loads
	}{
		{"forbidden", watchset.State[Secret]{Err: forbidden}, "SecretNotFound: " + readForbidden},
		{"API server not reachable", watchset.State[Secret]{Err: refused}, "SecretNotFound: reading Secret system/serving-ca: connection refused"},
		{"missing", watchset.State[Secret]{Synced: true}, "SecretNotFound: " + doesNotExist},
		{"managed", watchset.State[Secret]{Synced: true, Objects: managed}, "NotManaged: Secret system/serving-ca contains the managed CA of a Signer, which no other Signer can use: use a Secret of type kubernetes.io/tls"},
		{"incomplete", watchset.State[Secret]{Synced: true, Objects: bad}, "InvalidCA: tls.key is missing or empty: both tls.crt and tls.key are required, as 'kubectl create secret tls' writes them"},
		{"valid", watchset.State[Secret]{Synced: true, Objects: good}, ""},
		{"API server unreachable after the first list: the CA stays", watchset.State[Secret]{Synced: true, Objects: good, Err: refused}, ""},
		{"permission removed", watchset.State[Secret]{Synced: true, Objects: good, Err: forbidden}, "SecretNotFound: " + readForbidden},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, problem, err := loadSecret("system", "serving-ca", test.state, now)
			if got := describe(problem); got != test.want || err != nil {
				t.Errorf("got %q, %v; want %q", got, err, test.want)
			}
			if transient := errors.Is(test.state.Err, refused); problem != nil && problem.Transient != transient {
				t.Errorf("transient: %v, want %v", problem.Transient, transient)
			}
		})
	}
	if _, _, err := loadSecret("system", "serving-ca", watchset.State[Secret]{}, now); !errors.Is(err, ErrPending) {
		t.Errorf("before the first list: got %v, want ErrPending", err)
	}
}

func TestSecrets_Keep(t *testing.T) {
	s := NewSecrets(nil, "system", nil)
	s.Keep(map[string]bool{"b": true}) // Start was not called: the nil client is not used
	for _, name := range []string{"a", "b"} {
		if _, _, err := s.load(name, now); !errors.Is(err, ErrPending) {
			t.Errorf("%s: got %v, want ErrPending", name, err)
		}
	}
}
