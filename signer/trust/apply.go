// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	applycertificatesv1 "k8s.io/client-go/applyconfigurations/certificates/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/api/v1alpha1"
)

const (
	signerKind = "Signer"

	// maxTries is how often an object is written or deleted that others change at the same time.
	maxTries = 4
)

// empty returns an object to read the target into, or to delete it with.
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

// configuration returns the configuration to apply. With an observation it applies to that version of the object only:
// the API server returns a conflict if the object was changed or replaced.
func (t target) configuration(over *observed) runtime.ApplyConfiguration {
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

// write applies the steps of [planWrite] until the object has the desired state. It returns the last step: the object is
// unchanged if that is [actionBlocked].
func (p *Publisher) write(ctx context.Context, s step) (_ step, err error) {
	if s.action == actionCreate {
		// The watch can lag behind. An apply that is not forced keeps the fields of others, but would add to them.
		if s, err = p.replan(ctx, s.target); err != nil {
			return s, err
		}
	}
	for range maxTries {
		err = p.execute(ctx, s)
		if s.have != nil && s.action == actionUpdate && s.target.kind == kindConfigMap && contentRejected(err) {
			// Other users added content to the ConfigMap: it is created again with the key of the Signer only.
			s.action = actionReplace
			err = p.execute(ctx, s)
		}
		if !apierrors.IsConflict(err) {
			return s, err
		}
		var readErr error
		if s, readErr = p.replan(ctx, s.target); readErr != nil {
			return s, readErr
		}
	}
	return s, err
}

// replan plans a write by a live read.
func (p *Publisher) replan(ctx context.Context, t target) (step, error) {
	have, err := p.live(ctx, t)
	if err != nil {
		return step{target: t}, err
	}
	return planWrite(t, have), nil
}

// execute takes one step.
func (p *Publisher) execute(ctx context.Context, s step) error {
	switch s.action {
	case actionKeep, actionBlocked:
		return nil
	case actionUpdate: // forced, because a user who edited a field owns it
		return p.client.Apply(ctx, s.target.configuration(s.have), client.FieldOwner(FieldOwner), client.ForceOwnership)
	case actionDelete:
		return p.remove(ctx, s)
	case actionReplace:
		if err := p.remove(ctx, s); err != nil {
			return err
		}
	case actionCreate:
	}
	return p.client.Apply(ctx, s.target.configuration(nil), client.FieldOwner(FieldOwner))
}

// remove deletes an object as long as it belongs to the Signer.
func (p *Publisher) remove(ctx context.Context, s step) error {
	var err error
	for range maxTries {
		err = p.client.Delete(ctx, s.target.empty(), client.Preconditions{UID: &s.have.uid, ResourceVersion: &s.have.resourceVersion})
		if !apierrors.IsConflict(err) {
			return client.IgnoreNotFound(err)
		}
		have, readErr := p.live(ctx, s.target)
		if readErr != nil {
			return readErr
		}
		if s = planDelete(s.target, have); s.action == actionKeep {
			return nil
		}
	}
	return err
}

// live reads an object from the API server; nil if it does not exist.
func (p *Publisher) live(ctx context.Context, t target) (*observed, error) {
	o := t.empty()
	switch err := p.client.Get(ctx, client.ObjectKeyFromObject(o), o); {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return observe(o), nil
}
