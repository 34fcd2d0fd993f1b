// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"fmt"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
)

// writeVerbs are the verbs that publishing an object requires. A review stops at the first verb that is denied.
var writeVerbs = []string{"patch", "create", "get", "delete"}

// resource returns the API group and resource of the target.
func (t target) resource() (group, resource string) {
	if t.kind == kindBundle {
		return certificatesv1.GroupName, "clustertrustbundles"
	}
	return "", "configmaps"
}

// authorized reports whether the API server authorizes the signer to write the target. The API has no status reason
// that distinguishes a denial of the authorizer from one of an admission plugin, such as a quota: both are Forbidden,
// with the same details. See docs/decisions/0011-distinguish-rbac-from-quotas.md.
func (p *Publisher) authorized(ctx context.Context, t target) bool {
	group, resource := t.resource()
	for _, verb := range writeVerbs {
		if !p.allowed(ctx, authorizationv1.ResourceAttributes{Group: group, Resource: resource, Namespace: t.namespace, Name: t.name, Verb: verb}) {
			return false
		}
	}
	return true
}

// canAttest reports whether the signer has the verb attest, which the admission plugin ClusterTrustBundleAttest requires.
func (p *Publisher) canAttest(ctx context.Context, signerName string) bool {
	domain, _, _ := strings.Cut(signerName, "/")
	attest := authorizationv1.ResourceAttributes{Group: certificatesv1.GroupName, Resource: "signers", Verb: "attest", Name: signerName}
	wildcard := attest
	wildcard.Name = domain + "/*"
	return p.allowed(ctx, attest) || p.allowed(ctx, wildcard)
}

// allowed reports whether the signer is allowed an action. If the review fails, it returns false, so that the error counts
// as a missing permission and not as a rejection by the namespace.
func (p *Publisher) allowed(ctx context.Context, attributes authorizationv1.ResourceAttributes) bool {
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &attributes}}
	return p.client.Create(ctx, review) == nil && review.Status.Allowed
}

// contentRejected reports whether the API server rejects the content of an object, such as a ConfigMap that exceeds the
// size limit because other users added keys.
func contentRejected(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsRequestEntityTooLargeError(err)
}

// explain adds the fix to an error of the API server, if it is known.
func (p *Publisher) explain(ctx context.Context, err error, t target) error {
	switch {
	case t.kind == kindBundle && (meta.IsNoMatchError(err) || apierrors.IsNotFound(err)):
		return fmt.Errorf("%w (the API server must serve ClusterTrustBundles of certificates.k8s.io/v1, as Kubernetes 1.37 does)", err)
	case !apierrors.IsForbidden(err):
		return err
	case !p.authorized(ctx, t):
		return notAuthorized(err, t)
	case t.kind == kindBundle && !p.canAttest(ctx, t.signer.Spec.SignerName):
		return fmt.Errorf("%w (grant the signer attest on signers with resourceNames [%q])", err, t.signer.Spec.SignerName)
	}
	return err
}

// notAuthorized adds the permissions to grant to an error of the API server.
func notAuthorized(err error, t target) error {
	if t.kind == kindBundle {
		return fmt.Errorf("%w (grant the signer get, create, patch and delete on clustertrustbundles with resourceNames [%q])", err, t.name)
	}
	return fmt.Errorf("%w (grant the signer get, create, patch and delete on configmaps with resourceNames [%q], there or by a ClusterRole)", err, t.name)
}

// checkRead returns why the objects of a name are not in memory; nil if they are.
func (p *Publisher) checkRead(ctx context.Context, t target, synced bool, err error) error {
	switch {
	case apierrors.IsForbidden(err):
		_, resource := t.resource()
		return fmt.Errorf("the signer is not allowed to read %s %s: grant list and watch on %s with resourceNames [%q], by a ClusterRole", t.kind, t.name, resource, t.name)
	case synced:
		return nil // a write reports the error, if it persists
	case err != nil:
		return fmt.Errorf("reading %s %s: %w", t.kind, t.name, p.explain(ctx, err, t))
	}
	return fmt.Errorf("%s %s: %w", t.kind, t.name, ErrPending)
}
