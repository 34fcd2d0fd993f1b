// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"fmt"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	applycertificatesv1 "k8s.io/client-go/applyconfigurations/certificates/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/api/v1alpha1"
)

const (
	signerKind = "Signer"

	// attempts is how often an object is written to or deleted that is changed by another in the moment.
	attempts = 4
)

// target is one object as it should be.
type target struct {
	kind, namespace, name string
	signer                *v1alpha1.Signer
	key                   string // in a ConfigMap
	content               string
}

// foreignError says why an object is not ours to write to.
type foreignError struct{ why string }

func (e *foreignError) Error() string { return e.why }

// empty is an object to read the target into, or to delete it by.
func (t target) empty() client.Object {
	if t.kind == kindBundle {
		o := &certificatesv1.ClusterTrustBundle{}
		o.Name = t.name
		return o
	}
	o := &corev1.ConfigMap{}
	o.Namespace, o.Name = t.namespace, t.name
	return o
}

// configuration is what is applied. Over an object that there is, it is for that one as it was seen,
// and for no other: the API server answers with a conflict if it was changed or replaced.
func (t target) configuration(over *seen) runtime.ApplyConfiguration {
	owner := applymetav1.OwnerReference().
		WithAPIVersion(v1alpha1.GroupVersion.String()).WithKind(signerKind).WithName(t.signer.Name).WithUID(t.signer.UID)
	labels := map[string]string{ManagedByLabel: ManagedBy}
	if t.kind == kindBundle {
		o := applycertificatesv1.ClusterTrustBundle(t.name).WithLabels(labels).WithOwnerReferences(owner).
			WithSpec(applycertificatesv1.ClusterTrustBundleSpec().WithSignerName(t.signer.Spec.SignerName).WithTrustBundle(t.content))
		if over != nil {
			o = o.WithUID(over.uid).WithResourceVersion(over.resourceVersion)
		}
		return o
	}
	o := applycorev1.ConfigMap(t.name, t.namespace).WithLabels(labels).WithOwnerReferences(owner).
		WithData(map[string]string{t.key: t.content})
	if over != nil {
		o = o.WithUID(over.uid).WithResourceVersion(over.resourceVersion)
	}
	return o
}

// write makes an object as it should be, unless it is so already. have is it as it was seen; nil if it
// was not. The error is a [*foreignError] if it is not ours.
func (p *Publisher) write(ctx context.Context, t target, have *seen) (err error) {
	want := map[string]digest{t.key: digestOf(t.content)}
	if have == nil {
		// Somebody else may have made one since. An apply that is not forced leaves what others have set,
		// but would add to it.
		if have, err = p.live(ctx, t); err != nil {
			return err
		}
	}
	for range attempts {
		switch {
		case have == nil:
			err = p.client.Apply(ctx, t.configuration(nil), client.FieldOwner(FieldOwner))
		case have.foreign(t.signer) != "":
			return &foreignError{have.foreign(t.signer)}
		case have.holds(t.signer, want):
			return nil
		case have.locked && have.ownedBy(t.signer):
			if err = p.remove(ctx, t, *have); err != nil {
				return err
			}
			have = nil
			continue
		default:
			// Forced, for whoever edited it owns the field now.
			err = p.client.Apply(ctx, t.configuration(have), client.FieldOwner(FieldOwner), client.ForceOwnership)
		}
		if have != nil && refused(err) && t.kind == kindConfigMap {
			// Ours, and somebody has filled it: it is made anew with nothing but our key.
			if err := p.remove(ctx, t, *have); err != nil {
				return err
			}
			have = nil
			continue
		}
		if !apierrors.IsConflict(err) {
			return err
		}
		var readErr error
		if have, readErr = p.live(ctx, t); readErr != nil {
			return readErr
		}
	}
	return err
}

// remove deletes an object that is the Signer's, as long as it is.
func (p *Publisher) remove(ctx context.Context, t target, have seen) error {
	var err error
	for range attempts {
		err = p.client.Delete(ctx, t.empty(), client.Preconditions{UID: &have.uid, ResourceVersion: &have.resourceVersion})
		if !apierrors.IsConflict(err) {
			return client.IgnoreNotFound(err)
		}
		now, readErr := p.live(ctx, t)
		if readErr != nil {
			return readErr
		}
		if now == nil || !now.ownedBy(t.signer) {
			return nil
		}
		have = *now
	}
	return err
}

// live reads an object from the API server; nil if there is none.
func (p *Publisher) live(ctx context.Context, t target) (*seen, error) {
	o := t.empty()
	switch err := p.client.Get(ctx, client.ObjectKeyFromObject(o), o); {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return look(o), nil
}

// unread says why it is not known what there is of a name; nil if it is.
func unread(kind, name string, read bool, err error) error {
	resource := "configmaps"
	if kind == kindBundle {
		resource = "clustertrustbundles"
	}
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%s %s may not be read: grant the signer list and watch on %s with resourceNames [%q], by a ClusterRole", kind, name, resource, name)
	case read:
		return nil // as it was; a write will tell
	case err != nil:
		return fmt.Errorf("%s %s cannot be read: %w", kind, name, explain(err, target{kind: kind, name: name}))
	}
	return fmt.Errorf("%s %s: %w", kind, name, ErrPending)
}

// explain adds to an error of the API server what mends it, if that is known.
func explain(err error, t target) error {
	text := err.Error()
	switch {
	case t.kind == kindBundle && (meta.IsNoMatchError(err) || apierrors.IsNotFound(err)):
		return fmt.Errorf("%w (the API server must serve ClusterTrustBundles of certificates.k8s.io/v1, as Kubernetes 1.37 does)", err)
	case !apierrors.IsForbidden(err):
		return err
	case strings.Contains(text, "not permitted to attest"): // admission plugin ClusterTrustBundleAttest
		return fmt.Errorf("%w (grant the signer attest on signers with resourceNames [%q])", err, t.signer.Spec.SignerName)
	case !strings.Contains(text, " cannot "): // it is not RBAC that forbids it, but a quota, for one
		return err
	case t.kind == kindBundle:
		return fmt.Errorf("%w (grant the signer get, create, patch and delete on clustertrustbundles with resourceNames [%q])", err, t.name)
	}
	return fmt.Errorf("%w (grant the signer get, create, patch and delete on configmaps with resourceNames [%q], there or by a ClusterRole)", err, t.name)
}
