// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
)

// grants is an authorizer: what it has for "verb name" it answers, and else "no".
type grants map[string]authorizationv1.SubjectAccessReviewStatus

var yes = authorizationv1.SubjectAccessReviewStatus{Allowed: true}

func (g grants) access(asked *[]authorizationv1.SubjectAccessReviewSpec) access {
	return func(_ context.Context, r *authorizationv1.SubjectAccessReview) error {
		if asked != nil {
			*asked = append(*asked, r.Spec)
		}
		if g == nil {
			return errors.New("connection refused")
		}
		r.Status = g[r.Spec.ResourceAttributes.Verb+" "+r.Spec.ResourceAttributes.Name]
		return nil
	}
}

func TestAccessSigner(t *testing.T) {
	unclear := authorizationv1.SubjectAccessReviewStatus{EvaluationError: "clusterrole x not found"}
	for _, tc := range []struct {
		name   string
		grants grants
		signer string
		asked  []string
		want   bool
		err    string
	}{
		{name: "on the signerName", grants: grants{"approve example.com/serving": yes}, asked: []string{"example.com/serving"}, want: true},
		{name: "on the wildcard of the domain", grants: grants{"approve example.com/*": yes}, asked: []string{"example.com/serving", "example.com/*"}, want: true},
		{name: "of a wildcard, on the wildcard", grants: grants{"approve example.com/*": yes}, signer: "example.com/*", asked: []string{"example.com/*"}, want: true},
		{name: "of a wildcard, on one signerName", grants: grants{"approve example.com/serving": yes}, signer: "example.com/*", asked: []string{"example.com/*"}},
		{name: "another verb", grants: grants{"sign example.com/serving": yes}, asked: []string{"example.com/serving", "example.com/*"}},
		{name: "allowed and denied", grants: grants{"approve example.com/serving": {Allowed: true, Denied: true}}, asked: []string{"example.com/serving", "example.com/*"}},
		{
			name:   "unclear",
			grants: grants{"approve example.com/serving": unclear}, asked: []string{"example.com/serving", "example.com/*"},
			err: "the authorizer could not decide whether jane can approve on signer example.com/serving: clusterrole x not found",
		},
		{
			name:   "unclear on the signerName, and allowed on the wildcard",
			grants: grants{"approve example.com/serving": unclear, "approve example.com/*": yes}, asked: []string{"example.com/serving", "example.com/*"}, want: true,
		},
		{
			name:  "API server not reachable",
			asked: []string{"example.com/serving"}, err: "checking whether jane can approve on signer example.com/serving: connection refused",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.signer == "" {
				tc.signer = "example.com/serving"
			}
			user := authenticationv1.UserInfo{Username: "jane", UID: "1", Groups: []string{"ops"}, Extra: map[string]authenticationv1.ExtraValue{"scopes": {"a", "b"}}}
			var asked []authorizationv1.SubjectAccessReviewSpec
			got, err := tc.grants.access(&asked).signer(t.Context(), user, "approve", tc.signer)
			if got != tc.want || (err == nil) != (tc.err == "") || err != nil && err.Error() != tc.err {
				t.Errorf("%v, %v; want %v, %q", got, err, tc.want, tc.err)
			}
			var want []authorizationv1.SubjectAccessReviewSpec
			for _, name := range tc.asked {
				want = append(want, authorizationv1.SubjectAccessReviewSpec{
					User: "jane", UID: "1", Groups: []string{"ops"}, Extra: map[string]authorizationv1.ExtraValue{"scopes": {"a", "b"}},
					ResourceAttributes: &authorizationv1.ResourceAttributes{Group: "certificates.k8s.io", Version: "*", Resource: "signers", Verb: "approve", Name: name},
				})
			}
			if diff := cmp.Diff(want, asked); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUserOf(t *testing.T) {
	for _, want := range []authenticationv1.UserInfo{
		{Username: "system:serviceaccount:ns:approver", Groups: []string{"system:authenticated", "system:serviceaccounts", "system:serviceaccounts:ns"}},
		{Username: "jane", Groups: []string{"system:authenticated"}},
		{Username: "system:serviceaccount:ns", Groups: []string{"system:authenticated"}},
	} {
		if diff := cmp.Diff(want, userOf(want.Username)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want.Username, diff)
		}
	}
}
