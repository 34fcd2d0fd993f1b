// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"slices"
	"testing"

	"countersign.dev/countersign/api/v1alpha1"
)

func TestPlan(t *testing.T) {
	signer := newSigner(false)
	own := owner{signer: true, kind: "Signer", name: "serving", uid: signer.UID}
	other := owner{signer: true, kind: "Signer", name: "other", uid: "other"}
	desired := target{kind: kindConfigMap, namespace: "one", name: mapped, signer: signer, key: "ca.crt", content: bundle, digest: digestOf(bundle)}
	current := map[string]digest{"ca.crt": digestOf(bundle)}
	old := map[string]digest{"ca.crt": digestOf("old")}
	for _, test := range []struct {
		name   string
		have   *observed
		write  action
		remove action
	}{
		{"missing", nil, actionCreate, actionKeep},
		{"current", &observed{labelled: true, owners: []owner{own}, data: current}, actionKeep, actionDelete},
		{"outdated", &observed{labelled: true, owners: []owner{own}, data: old}, actionUpdate, actionDelete},
		{"label removed", &observed{owners: []owner{own}, data: current}, actionUpdate, actionDelete},
		{"immutable and outdated", &observed{labelled: true, owners: []owner{own}, data: old, locked: true}, actionReplace, actionDelete},
		{"immutable and outdated, kept by a finalizer", &observed{labelled: true, owners: []owner{own}, data: old, locked: true, deleting: true}, actionBlocked, actionKeep},
		{"outdated, kept by a finalizer", &observed{labelled: true, owners: []owner{own}, data: old, deleting: true}, actionUpdate, actionKeep},
		{"immutable without owner, kept by a finalizer", &observed{labelled: true, locked: true, deleting: true}, actionBlocked, actionKeep},
		{"with another key", &observed{labelled: true, owners: []owner{own}, data: map[string]digest{"ca.crt": digestOf(bundle), "x": {}}}, actionUpdate, actionDelete},
		{"immutable and current", &observed{labelled: true, owners: []owner{own}, data: current, locked: true}, actionKeep, actionDelete},
		{"without owner, of an earlier version", &observed{labelled: true}, actionUpdate, actionKeep},
		{"of another Signer", &observed{labelled: true, owners: []owner{other}}, actionBlocked, actionKeep},
		{"of a user", &observed{}, actionBlocked, actionKeep},
	} {
		if got := planWrite(desired, test.have); got.action != test.write || (got.reason != "") != (test.write == actionBlocked) {
			t.Errorf("%s: write: got %s %q, want %s", test.name, got.action, got.reason, test.write)
		}
		if got := planDelete(desired, test.have); got.action != test.remove {
			t.Errorf("%s: delete: got %s, want %s", test.name, got.action, test.remove)
		}
	}
}

func TestPlanNamespaces(t *testing.T) {
	signer := newSigner(false)
	ours := &observed{labelled: true, owners: []owner{{signer: true, kind: "Signer", name: "serving", uid: signer.UID}}, data: map[string]digest{"ca.crt": digestOf(bundle)}}
	have := map[string]*observed{"kept": ours, "left": ours, "also-left": ours, "foreign": {}, "terminating": ours}
	namespaces := &selection{selected: []string{"kept", "new"}, others: map[string]bool{"left": true, "also-left": true, "foreign": true}}
	writes, deletes := planNamespaces(target{kind: kindConfigMap, name: mapped, signer: signer, key: "ca.crt", content: bundle, digest: digestOf(bundle)}, have, namespaces)
	var got []string
	for _, s := range slices.Concat(writes, deletes) {
		got = append(got, string(s.action)+" "+s.target.namespace)
	}
	if want := []string{"Keep kept", "Create new", "Delete also-left", "Delete left"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPlanLeftovers(t *testing.T) {
	for _, test := range []struct {
		name     string
		edit     func(*v1alpha1.Signer)
		complete bool
		wait     bool
	}{
		{"the new name is incomplete", func(*v1alpha1.Signer) {}, false, true},
		{"the new name is complete", func(*v1alpha1.Signer) {}, true, false},
		{"a CA is distrusted", func(s *v1alpha1.Signer) { s.Spec.Trust.Distrusted = []string{"x"} }, false, false},
		{"no ConfigMap is requested", func(s *v1alpha1.Signer) { s.Spec.Trust.ConfigMap = nil }, false, false},
	} {
		remove, wait := planLeftovers(newSigner(false, test.edit), []string{"old"}, test.complete)
		if len(wait) > 0 != test.wait || len(remove)+len(wait) != 1 {
			t.Errorf("%s: remove %q, wait %q", test.name, remove, wait)
		}
	}
}
