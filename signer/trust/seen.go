// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/api/v1alpha1"
)

// seen is what is kept of an object that is watched, and no more: anybody may make large ConfigMaps
// by a name that is watched.
type seen struct {
	uid             types.UID
	resourceVersion string
	labelled        bool
	owners          []owner
	// data are, of an object that may be ours, digests of what was applied to it by [FieldOwner],
	// by the key in a ConfigMap. What somebody else has changed is not ours any more, and not here.
	data map[string]digest
	// locked is set of a ConfigMap that cannot be mended, but only made anew: it is immutable, or has
	// binaryData, in which a key cannot be that is in its data.
	locked bool
}

type owner struct {
	signer bool // and not of another kind
	kind   string
	name   string
	uid    types.UID
}

type digest [sha256.Size]byte

func digestOf(text string) digest { return sha256.Sum256([]byte(text)) }

// same reports whether nothing of interest has changed.
func same(a, b *seen) bool {
	return a.uid == b.uid && a.labelled == b.labelled && a.locked == b.locked &&
		slices.Equal(a.owners, b.owners) && maps.Equal(a.data, b.data)
}

// look takes from an object what is kept of it.
func look(o client.Object) *seen {
	s := &seen{
		uid: o.GetUID(), resourceVersion: o.GetResourceVersion(),
		labelled: o.GetLabels()[ManagedByLabel] == ManagedBy,
	}
	mayBeOurs := s.labelled
	for _, reference := range o.GetOwnerReferences() {
		signer := reference.Kind == signerKind && strings.HasPrefix(reference.APIVersion, v1alpha1.GroupVersion.Group+"/")
		s.owners = append(s.owners, owner{signer, reference.Kind, reference.Name, reference.UID})
		mayBeOurs = mayBeOurs || signer
	}
	if !mayBeOurs {
		return s
	}
	s.data = map[string]digest{}
	switch o := o.(type) {
	case *certificatesv1.ClusterTrustBundle:
		s.data[""] = digestOf(o.Spec.TrustBundle)
	case *corev1.ConfigMap:
		for _, key := range applied(o) {
			s.data[key] = digestOf(o.Data[key])
		}
		s.locked = o.Immutable != nil && *o.Immutable || len(o.BinaryData) > 0
	}
	return s
}

// applied are the keys of a ConfigMap that [FieldOwner] has applied and nobody has changed since.
// Those are the ones that an apply without them takes away.
func applied(o *corev1.ConfigMap) []string {
	for _, entry := range o.ManagedFields {
		if entry.Manager != FieldOwner || entry.Operation != metav1.ManagedFieldsOperationApply || entry.FieldsV1 == nil {
			continue
		}
		var fields struct {
			Data map[string]json.RawMessage `json:"f:data"`
		}
		if json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields) != nil {
			return nil // as if it were not ours: it is applied again
		}
		var keys []string
		for field := range fields.Data {
			if key, ok := strings.CutPrefix(field, "f:"); ok {
				keys = append(keys, key)
			}
		}
		return keys
	}
	return nil
}

// ownedBy reports whether the object is the Signer's, so that the garbage collector deletes it with it.
func (s seen) ownedBy(signer *v1alpha1.Signer) bool {
	return slices.ContainsFunc(s.owners, func(o owner) bool { return o.signer && o.uid == signer.UID })
}

// foreign says why an object may not be written to for the Signer; empty if it may.
func (s seen) foreign(signer *v1alpha1.Signer) string {
	if s.ownedBy(signer) || s.labelled && len(s.owners) == 0 {
		return ""
	}
	for _, o := range s.owners {
		switch {
		case o.signer && o.name == signer.Name:
			return "belongs to a Signer of this name that was deleted, and is removed by the garbage collector"
		case o.signer:
			return "belongs to the Signer " + o.name
		case s.labelled:
			return fmt.Sprintf("belongs to the %s %s", o.kind, o.name)
		}
	}
	return fmt.Sprintf("exists without the label %s=%s", ManagedByLabel, ManagedBy)
}

// holds reports whether the object is as it is written for the Signer.
func (s seen) holds(signer *v1alpha1.Signer, data map[string]digest) bool {
	return s.labelled && s.ownedBy(signer) && maps.Equal(s.data, data)
}
