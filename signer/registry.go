// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"sync"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/internal/fairqueue"
	"countersign.dev/countersign/signer/ca"
)

// registry is what one reconciler tells the other: which signerNames are ours, and which of them
// can issue now.
type registry struct {
	mu    sync.RWMutex
	named map[string]string       // name of every Signer -> its signerName
	ready map[string]*readySigner // by signerName
	last  map[string]lastCA       // by the name of the Signer
}

// lastCA is the CA that a Signer last issued by, which it may still need for a while when its Secret has another.
type lastCA struct {
	uid types.UID
	ca  *ca.CA
}

// readySigner is a Signer that can issue. It is immutable.
type readySigner struct {
	signer  *v1alpha1.Signer // to name it in logs and Events
	profile Profile
	ca      *ca.CA
}

func newRegistry() *registry {
	return &registry{named: map[string]string{}, ready: map[string]*readySigner{}, last: map[string]lastCA{}}
}

// set notes a Signer, with what it issues by, or nil if it does not issue. It returns true if it
// issues otherwise than before, so that requests that waited are to be looked at again.
func (r *registry) set(name, signerName string, ready *readySigner) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	news := ready != nil && !ready.sameAs(r.ready[signerName])
	if old, ok := r.named[name]; ok && old != signerName {
		r.unready(name, old) // deleted and made again, between two reconciles
	}
	r.named[name] = signerName
	if ready != nil {
		r.ready[signerName] = ready
		r.last[name] = lastCA{ready.signer.UID, ready.ca}
	} else {
		r.unready(name, signerName)
	}
	return news
}

// sameAs says whether another issues by the same spec, and under the same CA.
func (s *readySigner) sameAs(other *readySigner) bool {
	return s != nil && other != nil && s.signer.UID == other.signer.UID && s.signer.Generation == other.signer.Generation &&
		s.ca.Fingerprint() == other.ca.Fingerprint()
}

// remove forgets a Signer that was deleted.
func (r *registry) remove(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unready(name, r.named[name])
	delete(r.named, name)
	delete(r.last, name)
}

// lastCA returns the CA that a Signer last issued by, or nil.
func (r *registry) lastCA(name string, uid types.UID) *ca.CA {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if last := r.last[name]; last.uid == uid {
		return last.ca
	}
	return nil
}

// forgetCA drops the CA that a Signer last issued by.
func (r *registry) forgetCA(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.last, name)
}

// unready does not touch another Signer of the same signerName.
func (r *registry) unready(name, signerName string) {
	if ready := r.ready[signerName]; ready != nil && ready.signer.Name == name {
		delete(r.ready, signerName)
	}
}

// get returns what issues for a signerName now, or nil.
func (r *registry) get(signerName string) *readySigner {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.ready[signerName]
}

func (r *registry) knows(signerName string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, name := range r.named {
		if name == signerName {
			return true
		}
	}
	return false
}

// strip is the transform of the cache of CertificateSigningRequests: what is kept of them.
//
//   - One that is to be signed by a Signer is kept whole, so that signing needs no live read.
//   - One that is to be signed, but by no Signer known now, keeps only what tells that, and whose it
//     is: it may become ours, and is then read live.
//   - Of any other only its identity is kept: a cluster may have hundreds of thousands.
//
// So an object of the cache has a spec.signerName only if it is to be signed, and a
// spec.request only if it may be written back.
//
// It is idempotent, and must be: a reflector that streams its initial list transforms each object
// once for its own store and once more for the informer's (client-go, tools/cache/reflector.go,
// watchList). What the first pass leaves must lead the second to the same verdict, or requests
// approved while no signer ran are forgotten.
func (r *registry) strip(object any) (any, error) {
	csr, ok := object.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return object, nil // a tombstone
	}
	isDue := csr.Spec.SignerName != "" && due(csr) == nil
	if isDue && r.knows(csr.Spec.SignerName) {
		csr.ManagedFields = nil
		return csr, nil
	}
	kept := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{
		Name:            csr.Name,
		UID:             csr.UID,
		ResourceVersion: csr.ResourceVersion,
	}}
	if isDue {
		kept.Spec.SignerName, kept.Spec.Username = csr.Spec.SignerName, csr.Spec.Username
		if pod := csr.Spec.Extra[fairqueue.PodUIDExtra]; pod != nil { // whose turn it is, see fairqueue.ItemOf
			kept.Spec.Extra = map[string]certificatesv1.ExtraValue{fairqueue.PodUIDExtra: pod}
		}
		for _, c := range csr.Status.Conditions {
			if c.Type == certificatesv1.CertificateApproved {
				kept.Status.Conditions = append(kept.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: c.Type, Status: c.Status})
			}
		}
	}
	return kept, nil
}

// stripMetadata is the transform of caches of which names, labels and specs are all that is read.
func stripMetadata(object any) (any, error) {
	if o, err := meta.Accessor(object); err == nil {
		o.SetManagedFields(nil)
		o.SetAnnotations(nil)
	}
	return object, nil
}
