// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"countersign.dev/countersign/approver/review"
	"countersign.dev/countersign/test/reasons"
)

// TestReasonExamples compares the examples in the comments of reasons.go with the messages of
// findings that have these reasons.
func TestReasonExamples(t *testing.T) {
	got := map[string]string{}
	for _, tc := range []struct {
		constant, reason string
		reviewed         review.Review
		err              error
	}{
		{"ReasonNoPolicyApplies", ReasonNoPolicyApplies, abstained, nil},
		{"ReasonOtherNamespaces", ReasonOtherNamespaces, review.Review{Decision: review.Decision{Outcome: review.OtherNamespaces}}, nil},
		{"ReasonNotReviewed", ReasonNotReviewed, review.Review{}, errors.New("gathering facts: connection refused")},
		{"ReasonPolicyNotLoaded", ReasonPolicyNotLoaded, notLoaded, nil},
	} {
		found := findingOf(tc.reviewed, tc.err)
		if found.reason != tc.reason {
			t.Errorf("%s: the reason of the finding is %s", tc.constant, found.reason)
		}
		got[tc.constant] = found.message
	}
	want, err := reasons.Examples("reasons.go")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("messages (-example +got):\n%s", diff)
	}
}
