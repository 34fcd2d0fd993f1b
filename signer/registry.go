// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"maps"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
	"countersign.dev/countersign/signer/issuance"
)

// registry is what one reconciler tells the other: which signerNames can be issued for now.
type registry struct {
	mu    sync.RWMutex
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
	profile issuance.Profile
	ca      *ca.CA
}

func newRegistry() *registry {
	return &registry{ready: map[string]*readySigner{}, last: map[string]lastCA{}}
}

// set notes a Signer, with what it issues by, or nil if it does not issue. It returns true if it
// issues otherwise than before, so that requests that waited are to be looked at again.
func (r *registry) set(name, signerName string, ready *readySigner) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	news := ready != nil && !ready.sameAs(r.ready[signerName])
	r.unready(name) // also for another signerName: deleted and made again, between two reconciles
	if ready != nil {
		r.ready[signerName] = ready
		r.last[name] = lastCA{ready.signer.UID, ready.ca}
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
	r.unready(name)
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
func (r *registry) unready(name string) {
	maps.DeleteFunc(r.ready, func(_ string, ready *readySigner) bool { return ready.signer.Name == name })
}

// get returns what issues for a signerName now, or nil.
func (r *registry) get(signerName string) *readySigner {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.ready[signerName]
}

// stripMetadata is the transform of caches of which names, labels and specs are all that is read.
func stripMetadata(object any) (any, error) {
	if o, err := meta.Accessor(object); err == nil {
		o.SetManagedFields(nil)
		o.SetAnnotations(nil)
	}
	return object, nil
}
