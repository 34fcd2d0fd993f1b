// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"slices"

	"countersign.dev/countersign/api/v1alpha1"
)

// target is the desired state of one object.
type target struct {
	kind, namespace, name string
	signer                *v1alpha1.Signer
	key                   string // in a ConfigMap
	content               string
	digest                digest // of content
}

// action is what to do with one object.
type action string

const (
	// actionKeep changes nothing: the object has the desired state.
	actionKeep action = "Keep"
	// actionCreate creates the object.
	actionCreate action = "Create"
	// actionUpdate overwrites the fields of the object that Countersign manages.
	actionUpdate action = "Update"
	// actionReplace deletes the object and creates it again.
	actionReplace action = "Replace"
	// actionDelete deletes the object.
	actionDelete action = "Delete"
	// actionBlocked changes nothing: the object belongs to another user, or cannot be changed.
	actionBlocked action = "Blocked"
)

// step is what to do with one object, and its last observation.
type step struct {
	action action
	target target
	have   *observed
	// cause and reason are set for actionBlocked.
	cause  cause
	reason string
}

// planWrite returns the step that brings an object to the desired state. have is nil if the object does not exist.
func planWrite(t target, have *observed) step {
	s := step{target: t, have: have}
	switch {
	case have == nil:
		s.action = actionCreate
	case have.foreign(t.signer) != "":
		s.action, s.cause, s.reason = actionBlocked, causeBlocked, have.foreign(t.signer)
	case have.holds(t.signer, t.key, t.digest):
		s.action = actionKeep
	case have.locked && have.deleting: // a finalizer keeps it, so it cannot be created again
		s.action, s.cause, s.reason = actionBlocked, causeRefused, "is immutable or has binaryData, and a finalizer prevents its deletion: remove the finalizer"
	case have.locked && have.ownedBy(t.signer):
		s.action = actionReplace
	default:
		s.action = actionUpdate
	}
	return s
}

// planDelete returns the step that removes an object if it belongs to the Signer. An object that is being deleted
// already only waits for its finalizers.
func planDelete(t target, have *observed) step {
	if have == nil || have.deleting || !have.ownedBy(t.signer) {
		return step{action: actionKeep, target: t, have: have}
	}
	return step{action: actionDelete, target: t, have: have}
}

// planNamespaces returns the steps for the ConfigMaps of one name: writes in the selected namespaces, and removals in
// other namespaces. have are the observed ConfigMaps by namespace. A namespace that is being deleted is in neither
// list of the selection, and its ConfigMap is left to the namespace controller.
func planNamespaces(t target, have map[string]*observed, namespaces *selection) (writes, deletes []step) {
	for _, namespace := range namespaces.selected {
		t.namespace = namespace
		writes = append(writes, planWrite(t, have[namespace]))
	}
	for namespace, found := range have {
		t.namespace = namespace
		if s := planDelete(t, found); namespaces.others[namespace] && s.action == actionDelete {
			deletes = append(deletes, s)
		}
	}
	slices.SortFunc(deletes, byNamespace)
	return writes, deletes
}

// planLeftovers splits the names of ConfigMaps that the spec no longer requests into those to remove now and those
// that wait: clients use the former ConfigMap until the new one is complete. A distrusted CA does not wait.
func planLeftovers(signer *v1alpha1.Signer, names []string, complete bool) (remove, wait []string) {
	if signer.Spec.Trust.ConfigMap != nil && !complete && len(signer.Spec.Trust.Distrusted) == 0 {
		return nil, names
	}
	return names, nil
}
