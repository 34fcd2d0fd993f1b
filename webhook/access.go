// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"
	"fmt"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
)

// Verbs on signers, of the API group certificates.k8s.io.
const (
	// verbApprove is what the API server asks for of whoever approves or denies.
	verbApprove = "approve"
	// VerbOverridePolicy lets a person approve what policy does not allow. It exists for the
	// question of this package only.
	VerbOverridePolicy = "override-policy"
)

// access asks the API server to fill in the status of a SubjectAccessReview.
type access func(context.Context, *authorizationv1.SubjectAccessReview) error

// maySigner says whether a user has a verb on a signer, by its own name or by that of all signers of
// its domain, as the API server itself asks for approve and sign. An error is no answer.
func (a access) maySigner(ctx context.Context, user authenticationv1.UserInfo, verb, signerName string) (bool, error) {
	names := []string{signerName}
	if domain, path, ok := strings.Cut(signerName, "/"); ok && path != "*" {
		names = append(names, domain+"/*")
	}
	var unclear []error
	for _, name := range names {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user.Username, UID: user.UID, Groups: user.Groups, Extra: extraOf[authorizationv1.ExtraValue](user.Extra),
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Group: certificatesv1.GroupName, Version: "*", Resource: "signers", Verb: verb, Name: name,
			},
		}}
		if err := a(ctx, review); err != nil {
			return false, fmt.Errorf("asking whether %s may %s on signer %s: %w", user.Username, verb, name, err)
		}
		switch status := review.Status; {
		case status.Allowed && !status.Denied:
			return true, nil
		case status.EvaluationError != "":
			unclear = append(unclear, errors.New(status.EvaluationError))
		}
	}
	if unclear != nil {
		return false, fmt.Errorf("the authorizer could not tell whether %s may %s on signer %s: %w", user.Username, verb, signerName, errors.Join(unclear...))
	}
	return false, nil
}

// extraOf turns the extras of a user into those of another API group.
func extraOf[V ~[]string](extra map[string]authenticationv1.ExtraValue) map[string]V {
	if extra == nil {
		return nil
	}
	out := make(map[string]V, len(extra))
	for key, values := range extra {
		out[key] = V(values)
	}
	return out
}

// userOf is the user that a name stands for; a ServiceAccount's with the groups it always has.
func userOf(username string) authenticationv1.UserInfo {
	user := authenticationv1.UserInfo{Username: username, Groups: []string{"system:authenticated"}}
	parts := strings.Split(username, ":")
	if len(parts) == 4 && parts[0] == "system" && parts[1] == "serviceaccount" {
		user.Groups = append(user.Groups, "system:serviceaccounts", "system:serviceaccounts:"+parts[2])
	}
	return user
}
