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
	// verbApprove is the verb that the API server requires for approvals and denials.
	verbApprove = "approve"
	// VerbOverridePolicy is the verb for approving a request that the policies do not allow. Only this
	// package checks it.
	VerbOverridePolicy = "override-policy"
)

// access creates a SubjectAccessReview. The API server sets its status.
type access func(context.Context, *authorizationv1.SubjectAccessReview) error

// signer reports whether a user is allowed a verb on a signerName, or on the wildcard of its domain.
// The API server checks the verbs approve and sign in the same way.
func (a access) signer(ctx context.Context, user authenticationv1.UserInfo, verb, signerName string) (bool, error) {
	names := []string{signerName}
	if domain, path, ok := strings.Cut(signerName, "/"); ok && path != "*" {
		names = append(names, domain+"/*")
	}
	var evaluationErrors []error
	for _, name := range names {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user.Username, UID: user.UID, Groups: user.Groups, Extra: extraOf[authorizationv1.ExtraValue](user.Extra),
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Group: certificatesv1.GroupName, Version: "*", Resource: "signers", Verb: verb, Name: name,
			},
		}}
		if err := a(ctx, review); err != nil {
			return false, fmt.Errorf("checking whether %s can %s on signer %s: %w", user.Username, verb, name, err)
		}
		switch status := review.Status; {
		case status.Allowed && !status.Denied:
			return true, nil
		case status.EvaluationError != "":
			evaluationErrors = append(evaluationErrors, errors.New(status.EvaluationError))
		}
	}
	if evaluationErrors != nil {
		return false, fmt.Errorf("the authorizer could not decide whether %s can %s on signer %s: %w", user.Username, verb, signerName, errors.Join(evaluationErrors...))
	}
	return false, nil
}

// extraOf converts the extras of a user to the type of another API group.
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

// userOf returns the user with a name. A ServiceAccount has the groups that every token of it has.
func userOf(username string) authenticationv1.UserInfo {
	user := authenticationv1.UserInfo{Username: username, Groups: []string{"system:authenticated"}}
	parts := strings.Split(username, ":")
	if len(parts) == 4 && parts[0] == "system" && parts[1] == "serviceaccount" {
		user.Groups = append(user.Groups, "system:serviceaccounts", "system:serviceaccounts:"+parts[2])
	}
	return user
}
