// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	certificatesv1client "k8s.io/client-go/kubernetes/typed/certificates/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"countersign.dev/countersign/signer/issuance"
)

// requests keeps, whole, the requests that are to be signed by the Signers there are, and of others
// nothing. Each signerName is watched by itself, so that requests for others are never sent. It is
// safe for concurrent use, and what it returns must not be changed.
type requests struct {
	all func(signerName string) cache.ListerWatcher

	mu      sync.RWMutex
	ctx     context.Context // of Start; nil before
	changed func(*certificatesv1.CertificateSigningRequest)
	watched map[string]*watchedRequests // by signerName
}

// watchedRequests are those of one signerName. A reflector fills it.
type watchedRequests struct {
	of         *requests
	signerName string
	stop       context.CancelFunc // nil before Start
	read       bool
	due        map[string]*certificatesv1.CertificateSigningRequest // by name
}

// newRequests makes a requests of those in all, such as [allRequests], that watches nothing yet.
func newRequests(all func(signerName string) cache.ListerWatcher) *requests {
	return &requests{
		all: all, watched: map[string]*watchedRequests{},
		changed: func(*certificatesv1.CertificateSigningRequest) {},
	}
}

// allRequests are those of a cluster.
func allRequests(cfg *rest.Config, http *http.Client) (func(signerName string) cache.ListerWatcher, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.ContentType = runtime.ContentTypeProtobuf
	client, err := certificatesv1client.NewForConfigAndClient(cfg, http)
	if err != nil {
		return nil, fmt.Errorf("making a client for certificate requests: %w", err)
	}
	return func(signerName string) cache.ListerWatcher {
		return cache.NewListWatchFromClient(client.RESTClient(), "certificatesigningrequests", metav1.NamespaceAll,
			fields.OneTermEqualSelector("spec.signerName", signerName))
	}, nil
}

// NeedLeaderElection is false: who is not elected has its requests ready, too.
func (*requests) NeedLeaderElection() bool { return false }

// Start watches until ctx ends.
func (r *requests) Start(ctx context.Context) error {
	r.mu.Lock()
	r.ctx = ctx
	for _, w := range r.watched {
		w.run(ctx)
	}
	r.mu.Unlock()
	<-ctx.Done()
	return nil
}

// keep makes signerNames those that are watched: the requests of others are dropped.
func (r *requests) keep(signerNames map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.watched, func(signerName string, w *watchedRequests) bool {
		if !signerNames[signerName] && w.stop != nil {
			w.stop()
		}
		return !signerNames[signerName]
	})
	for signerName := range signerNames {
		if r.watched[signerName] != nil {
			continue
		}
		w := &watchedRequests{of: r, signerName: signerName, due: map[string]*certificatesv1.CertificateSigningRequest{}}
		r.watched[signerName] = w
		if r.ctx != nil {
			w.run(r.ctx)
		}
	}
}

// synced says whether all that is watched now has been read once.
func (r *requests) synced() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, w := range r.watched {
		if !w.read {
			return false
		}
	}
	return true
}

// tell has changed called with every request that is due, now and after each change of it. It must not block.
func (r *requests) tell(changed func(*certificatesv1.CertificateSigningRequest)) {
	r.mu.Lock()
	r.changed = changed
	var due []*certificatesv1.CertificateSigningRequest
	for _, w := range r.watched {
		due = slices.AppendSeq(due, maps.Values(w.due))
	}
	r.mu.Unlock()
	for _, csr := range due {
		changed(csr)
	}
}

// get returns the request of a name if it is due, or else nil.
func (r *requests) get(name string) *certificatesv1.CertificateSigningRequest {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var found *certificatesv1.CertificateSigningRequest
	for _, w := range r.watched {
		// There are two if it was deleted and made again for another Signer, whose watch is ahead.
		if csr := w.due[name]; csr != nil && (found == nil || newer(csr, found)) {
			found = csr
		}
	}
	return found
}

func newer(a, b *certificatesv1.CertificateSigningRequest) bool {
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err == nil && order > 0
}

// of returns the requests of a signerName that are due.
func (r *requests) of(signerName string) []*certificatesv1.CertificateSigningRequest {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if w := r.watched[signerName]; w != nil {
		return slices.Collect(maps.Values(w.due))
	}
	return nil
}

// run starts to watch until stop is called, or ctx of Start ends. mu is held.
func (w *watchedRequests) run(ctx context.Context) {
	ctx, w.stop = context.WithCancel(ctx)
	reflector := cache.NewReflectorWithOptions(w.of.all(w.signerName), &certificatesv1.CertificateSigningRequest{}, w,
		cache.ReflectorOptions{Name: "requests for " + w.signerName})
	go reflector.RunWithContext(ctx)
}

// kept is what is kept of a request: the whole, since it is written back, or nil if it is not due.
func kept(csr *certificatesv1.CertificateSigningRequest) *certificatesv1.CertificateSigningRequest {
	if !issuance.IsDue(csr) {
		return nil
	}
	csr.ManagedFields = nil // left out of an update they stay as they are
	return csr
}

// Transformer has a reflector collect no more of the first requests than is kept of them: of one that is not due a
// stub, which is not due either, since client-go wants an object.
func (*watchedRequests) Transformer() cache.TransformFunc {
	return func(object any) (any, error) {
		csr, err := requestOf(object)
		if err != nil {
			return nil, err
		}
		if now := kept(csr); now != nil {
			return now, nil
		}
		return &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: csr.Name, ResourceVersion: csr.ResourceVersion}}, nil
	}
}

// Add puts a request in the place of the one before.
func (w *watchedRequests) Add(object any) error {
	csr, err := requestOf(object)
	if err != nil {
		return err
	}
	now := kept(csr)
	w.of.mu.Lock()
	if now != nil {
		w.due[now.Name] = now
	} else {
		delete(w.due, csr.Name)
	}
	changed := w.of.changed
	w.of.mu.Unlock()
	if now != nil {
		changed(now)
	}
	return nil
}

// Update is Add.
func (w *watchedRequests) Update(object any) error { return w.Add(object) }

// Delete drops a request.
func (w *watchedRequests) Delete(object any) error {
	csr, err := requestOf(object)
	if err != nil {
		return err
	}
	w.of.mu.Lock()
	delete(w.due, csr.Name)
	w.of.mu.Unlock()
	return nil
}

// Replace puts all requests that there are in the place of those before.
func (w *watchedRequests) Replace(objects []any, _ string) error {
	all := map[string]*certificatesv1.CertificateSigningRequest{}
	for _, object := range objects {
		csr, err := requestOf(object)
		if err != nil {
			return err
		}
		if now := kept(csr); now != nil {
			all[now.Name] = now
		}
	}
	w.of.mu.Lock()
	w.due, w.read = all, true
	changed, due := w.of.changed, slices.Collect(maps.Values(all))
	w.of.mu.Unlock()
	for _, csr := range due {
		changed(csr)
	}
	return nil
}

// Resync does nothing: nothing is derived from what is kept.
func (*watchedRequests) Resync() error { return nil }

func requestOf(object any) (*certificatesv1.CertificateSigningRequest, error) {
	csr, ok := object.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return nil, fmt.Errorf("a %T is no certificate request", object)
	}
	return csr, nil
}
