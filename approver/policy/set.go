// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"errors"
	"slices"
	"sync/atomic"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/internal/certreq"
)

// ErrNotLoaded reports that a [Set] has not been filled yet.
var ErrNotLoaded = errors.New("policies have not been loaded yet")

// Set holds the effective policies. Its index is immutable, and [Set.Replace] swaps it atomically.
// The zero Set has not been loaded. It is safe for concurrent use.
type Set struct {
	current atomic.Pointer[index]
}

// index finds policies by signerName, at a cost that does not grow with their number.
type index struct {
	byPattern map[string][]Policy // by "example.com/serving" or "example.com/*"
	digest    string              // of everything that a decision can depend on
}

// Replace sets the policies. Policies in mode Disabled are left out. It reports whether requests
// can be decided differently than before.
func (s *Set) Replace(policies []Policy) (changed bool) {
	next := &index{byPattern: map[string][]Policy{}}
	for _, p := range policies {
		if p.Mode == v1alpha1.ModeDisabled {
			continue
		}
		next.digest += p.digest()
		for _, pattern := range p.SignerNames {
			next.byPattern[pattern] = append(next.byPattern[pattern], p)
		}
	}
	before := s.current.Swap(next)
	return before == nil || before.digest != next.digest
}

// Matches reports whether a policy matches a signerName.
func (s *Set) Matches(signerName string) bool { return len(s.Matching(signerName)) > 0 }

// Loaded reports whether the set has been filled. Policies in it may still have problems.
func (s *Set) Loaded() bool { return s.current.Load() != nil }

// Ready returns ErrNotLoaded before the first Replace. A policy without an active revision
// does not matter: it holds the requests that it matches, and its status says why.
func (s *Set) Ready() error {
	if !s.Loaded() {
		return ErrNotLoaded
	}
	return nil
}

// Matching returns the policies that match a signerName, in the order of their names. The caller
// must not change the slice.
func (s *Set) Matching(signerName string) []Policy {
	current := s.current.Load()
	if current == nil {
		return nil
	}
	exact, all := current.byPattern[signerName], current.byPattern[certreq.Wildcard(signerName)]
	if len(all) == 0 {
		return exact
	}
	out := slices.Clone(exact)
	for _, p := range all {
		// A policy that matches by both patterns counts once. A policy that Effective has split counts
		// once for each part.
		if !slices.ContainsFunc(exact, func(e Policy) bool { return e.UID == p.UID && (e.Active == nil) == (p.Active == nil) }) {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(a, b Policy) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
