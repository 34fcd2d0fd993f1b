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

// registry holds the Signers that are ready. The reconciler of Signers writes it, the reconciler of
// requests reads it.
type registry struct {
	mu    sync.RWMutex
	ready map[string]*readySigner // by signerName
	last  map[string]lastCA       // by the name of a Signer
}

// lastCA is the CA that a Signer used last. During a rotation the Signer uses it although its Secret already
// holds the next CA.
type lastCA struct {
	uid    types.UID
	ca     *ca.CA
	secret string // of a managed CA
}

// readySigner is a Signer that can issue. It is immutable.
type readySigner struct {
	signer  *v1alpha1.Signer // for logs and Events
	profile issuance.Profile
	ca      *ca.CA
}

func newRegistry() *registry {
	return &registry{ready: map[string]*readySigner{}, last: map[string]lastCA{}}
}

// set stores a Signer; a nil ready means that it cannot issue. It returns true if the Signer is ready with
// another spec or CA than before, so that its requests must be requeued.
func (r *registry) set(name, signerName string, ready *readySigner) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed := ready != nil && !ready.sameAs(r.ready[signerName])
	r.unready(name) // its signerName differs if it was deleted and created again
	if ready != nil {
		r.ready[signerName] = ready
		r.last[name] = lastCA{ready.signer.UID, ready.ca, managedSecret(ready.signer)}
	}
	return changed
}

// sameAs reports whether two Signers are the same, with the same spec and CA.
func (s *readySigner) sameAs(other *readySigner) bool {
	return s != nil && other != nil && s.signer.UID == other.signer.UID && s.signer.Generation == other.signer.Generation &&
		s.ca.Fingerprint() == other.ca.Fingerprint()
}

// remove removes a Signer that was deleted.
func (r *registry) remove(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unready(name)
	delete(r.last, name)
}

// lastCA returns the CA that a Signer used last, or nil. A managed CA is in its Secret as long as it is used, so a user who
// deletes the Secret revokes the use of the key.
func (r *registry) lastCA(signer *v1alpha1.Signer) *ca.CA {
	r.mu.RLock()
	defer r.mu.RUnlock()
	last := r.last[signer.Name]
	if last.uid != signer.UID || last.secret != "" && last.secret == managedSecret(signer) {
		return nil
	}
	return last.ca
}

// managedSecret returns the name of the Secret of a managed CA, or "".
func managedSecret(signer *v1alpha1.Signer) string {
	if managed := signer.Spec.CA.Managed; managed != nil {
		return managed.SecretName
	}
	return ""
}

// forgetCA removes the CA that a Signer used last.
func (r *registry) forgetCA(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.last, name)
}

// unready removes a Signer, and not another one of the same signerName.
func (r *registry) unready(name string) {
	maps.DeleteFunc(r.ready, func(_ string, ready *readySigner) bool { return ready.signer.Name == name })
}

// get returns the Signer that is ready for a signerName, or nil.
func (r *registry) get(signerName string) *readySigner {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.ready[signerName]
}

// stripMetadata is a transform for caches. It removes metadata that the signer does not read.
func stripMetadata(object any) (any, error) {
	if o, err := meta.Accessor(object); err == nil {
		o.SetManagedFields(nil)
		o.SetAnnotations(nil)
		o.SetFinalizers(nil)
		o.SetOwnerReferences(nil)
	}
	return object, nil
}
