// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
)

// apiServer serves the Secrets of one namespace as far as a watcher needs it, and notes what it
// was asked for.
type apiServer struct {
	mu      sync.Mutex
	version int            // resourceVersion of the latest change
	refuse  *metav1.Status // what every request gets, if set
	secret  *corev1.Secret // the one Secret there is, or nil
	last    *corev1.Secret // the one there was, if any
	changed chan struct{}  // closed on change
	asked   map[string]bool
}

func (a *apiServer) set(refuse *metav1.Status, secret *corev1.Secret) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	a.refuse = refuse
	if a.secret = secret; secret != nil {
		secret.ResourceVersion = strconv.Itoa(a.version)
		a.last = secret
	}
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	a.mu.Lock()
	refuse := a.refuse
	list := corev1.SecretList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "SecretList"}}
	list.ResourceVersion = strconv.Itoa(a.version)
	if a.secret != nil {
		list.Items = append(list.Items, *a.secret)
	}
	a.asked[r.URL.Path+"?fieldSelector="+query.Get("fieldSelector")] = true
	a.mu.Unlock()

	w.Header().Set("Content-Type", "application/json")
	if refuse == nil && query.Get("sendInitialEvents") == "true" {
		refuse = &apierrors.NewInvalid(schema.GroupKind{Kind: "ListOptions"}, "", nil).ErrStatus // an API server without streamed lists
	}
	switch {
	case refuse != nil:
		w.WriteHeader(int(refuse.Code))
		_ = json.NewEncoder(w).Encode(refuse)
	case query.Get("watch") != "":
		since, _ := strconv.Atoi(query.Get("resourceVersion"))
		a.watch(w, r, since)
	default:
		_ = json.NewEncoder(w).Encode(list)
	}
}

// watch streams what changes after a version, until requests are refused.
func (a *apiServer) watch(w http.ResponseWriter, r *http.Request, since int) {
	stream := json.NewEncoder(w)
	for {
		a.mu.Lock()
		refuse, secret, last, version, changed := a.refuse, a.secret, a.last, a.version, a.changed
		a.mu.Unlock()
		if refuse != nil {
			return
		}
		if version > since {
			kind, object := "MODIFIED", last.DeepCopy()
			if secret == nil {
				kind = "DELETED"
			}
			object.APIVersion, object.Kind, object.ResourceVersion = "v1", "Secret", strconv.Itoa(version)
			_ = stream.Encode(map[string]any{"type": kind, "object": object})
			since = version
		}
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// TestSecrets_Start follows one Secret through everything that happens to Secrets.
func TestSecrets_Start(t *testing.T) {
	server := &apiServer{changed: make(chan struct{}), asked: map[string]bool{}}
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "", errors.New("no")).ErrStatus
	server.refuse = &forbidden
	listener := httptest.NewServer(server)
	t.Cleanup(listener.Close)
	t.Cleanup(listener.CloseClientConnections)

	one, two := newPair(t, "One"), newPair(t, "Two")
	secret := func(certificate, key *pair) *corev1.Secret {
		return &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "system", Name: "serving-ca"},
			Data:       map[string][]byte{"tls.crt": certificate.certPEM(), "tls.key": key.keyPEM(t)},
		}
	}

	changed := make(chan string, 100)
	ctx, stop := context.WithCancel(t.Context())
	w := NewSecrets(newClient(t, listener.URL), "system", func(_ context.Context, name string) { changed <- name })
	w.Keep(map[string]bool{"serving-ca": true})
	if _, _, err := w.load("serving-ca", now); !errors.Is(err, ErrPending) {
		t.Errorf("before it was read: %v", err)
	}
	stopped := make(chan error)
	go func() { stopped <- w.Start(ctx) }()

	steps := []struct {
		what    string
		do      func()
		subject string // of the CA
		problem *ca.Problem
	}{
		{"forbidden", func() {}, "", &ca.Problem{
			Reason:  v1alpha1.ReasonSecretNotFound,
			Message: readForbidden,
		}},
		{"allowed, but missing", func() { server.set(nil, nil) }, "", &ca.Problem{
			Reason:  v1alpha1.ReasonSecretNotFound,
			Message: doesNotExist,
		}},
		{"there", func() { server.set(nil, secret(one, one)) }, "CN=One", nil},
		{"half replaced", func() { server.set(nil, secret(two, one)) }, "", &ca.Problem{
			Reason:  v1alpha1.ReasonCAKeyMismatch,
			Message: `tls.key does not match the first certificate in tls.crt, "CN=Two": replace both together, and put the CA certificate before its issuers`,
		}},
		{"replaced", func() { server.set(nil, secret(two, two)) }, "CN=Two", nil},
		{"the right is withdrawn", func() { server.set(&forbidden, secret(two, two)) }, "", &ca.Problem{
			Reason:  v1alpha1.ReasonSecretNotFound,
			Message: readForbidden,
		}},
		{"and given back", func() { server.set(nil, secret(two, two)) }, "CN=Two", nil},
		{"deleted", func() { server.set(nil, nil) }, "", &ca.Problem{
			Reason:  v1alpha1.ReasonSecretNotFound,
			Message: doesNotExist,
		}},
	}
	for _, step := range steps {
		step.do()
		deadline := time.After(10 * time.Second)
		for done := false; !done; {
			select {
			case name := <-changed:
				if name != "serving-ca" {
					t.Fatalf("%s: change of %q", step.what, name)
				}
				authority, problem, _ := w.load(name, now)
				subject := ""
				if authority != nil {
					subject = authority.Status().Subject
				}
				done = subject == step.subject && cmp.Equal(step.problem, problem)
			case <-deadline:
				_, problem, err := w.load("serving-ca", now)
				t.Fatalf("%s: no change within 10 s; last: %v, %v", step.what, problem, err)
			}
		}
	}

	w.Keep(nil)
	if _, _, err := w.load("serving-ca", now); !errors.Is(err, ErrPending) {
		t.Errorf("a Secret that is no longer kept: %v", err)
	}
	stop()
	if err := <-stopped; err != nil {
		t.Errorf("stopping: %v", err)
	}
	want := map[string]bool{"/api/v1/namespaces/system/secrets?fieldSelector=metadata.name=serving-ca": true}
	if diff := cmp.Diff(want, server.asked); diff != "" {
		t.Errorf("asked for (-want +got):\n%s", diff)
	}
}

func newClient(t *testing.T, host string) client.WithWatch {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{corev1.SchemeGroupVersion})
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Secret"), meta.RESTScopeNamespace)
	c, err := client.NewWithWatch(&rest.Config{Host: host, QPS: -1}, client.Options{Scheme: scheme, Mapper: mapper})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
