// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"countersign.dev/countersign/approver/evaluator"
)

func TestSetMatches(t *testing.T) {
	for _, tc := range []struct {
		pattern, signerName string
		want                bool
	}{
		{"example.com/serving", "example.com/serving", true},
		{"example.com/serving", "example.com/serving2", false},
		{"example.com/serving", "example.com/servin", false},
		{"example.com/*", "example.com/serving", true},
		{"example.com/*", "example.com/a.b", true},
		{"example.com/*", "example.com/a/b", true},
		{"example.com/*", "example.com/", false},
		{"example.com/*", "example.com", false},
		{"example.com/*", "sub.example.com/serving", false},
		{"example.com/*", "example.comx/serving", false},
		{"example.com/*", "evil.com/example.com/x", false},
	} {
		var set Set
		set.Replace([]Policy{{Name: "p", SignerNames: []string{tc.pattern}}})
		if got := set.Matches(tc.signerName); got != tc.want {
			t.Errorf("%q matches %q: %v", tc.pattern, tc.signerName, got)
		}
	}
}

func TestSetMatchingOrder(t *testing.T) {
	var set Set
	set.Replace([]Policy{
		{Name: "b", UID: "2", SignerNames: []string{"example.com/*", "example.com/serving"}},
		{Name: "a", UID: "1", SignerNames: []string{"example.com/*"}},
		{Name: "c", UID: "3", SignerNames: []string{"example.com/serving"}},
		{Name: "d", UID: "4", SignerNames: []string{"example.org/*"}},
		{Name: "e", UID: "5", SignerNames: []string{"example.com/*"}, Mode: "Disabled"},
	})
	var names []string
	for _, p := range set.Matching("example.com/serving") {
		names = append(names, p.Name)
	}
	if diff := cmp.Diff([]string{"a", "b", "c"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestSetReady(t *testing.T) {
	var set Set
	if err := set.Ready(); err == nil || err.Error() != "policies have not been loaded yet" {
		t.Errorf("zero set: %v", err)
	}
	set.Replace([]Policy{{Name: "broken", SignerNames: []string{"example.com/*"}}, {Name: "shadow", Mode: "Audit"}, {Name: "off", Mode: "Disabled"}})
	if err := set.Ready(); err != nil {
		t.Errorf("a policy without an active revision: %v", err)
	}
	if !set.Matches("example.com/serving") || set.Matches("example.org/serving") {
		t.Error("a policy without an active revision must match its signers")
	}
	set.Replace([]Policy{{Name: "good", Active: &evaluator.Policy{}}})
	if err := set.Ready(); err != nil {
		t.Error(err)
	}
}
