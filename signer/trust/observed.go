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
	"countersign.dev/countersign/internal/text"
)

// Limits of an [observed]. An object that Countersign wrote stays below them.
const (
	maxOwners      = 8       // further ones are dropped: an object with so many owners is not taken over
	maxOwnerText   = 253     // bytes of the kind, name and UID of an owner
	maxFields      = 4 << 10 // bytes of the field set of [FieldOwner]; a larger one is not read
	maxAppliedKeys = 2       // an object with more than one key is applied again
)

// observed is the part of a watched object that is stored in memory, at most 10 KiB. Any user with access to a namespace
// can create large ConfigMaps of a watched name, and choose all their metadata.
type observed struct {
	uid             types.UID
	resourceVersion string
	labelled        bool
	owners          []owner
	// data are digests of the content that [FieldOwner] applied to an object that can belong to a Signer, by the
	// key in a ConfigMap. Content that another field manager has changed is not included.
	data map[string]digest
	// locked is true for a ConfigMap that must be deleted and created again, because it is immutable, or has
	// binaryData: a key cannot be in both data and binaryData.
	locked bool
	// deleting is true if the object is being deleted and waits for its finalizers.
	deleting bool
}

type owner struct {
	signer bool // the kind is Signer of this API group
	kind   string
	name   string
	uid    types.UID
}

type digest [sha256.Size]byte

func digestOf(text string) digest { return sha256.Sum256([]byte(text)) }

// same reports whether two observations of an object lead to the same plan.
func same(a, b *observed) bool {
	return a.uid == b.uid && a.labelled == b.labelled && a.locked == b.locked && a.deleting == b.deleting &&
		slices.Equal(a.owners, b.owners) && maps.Equal(a.data, b.data)
}

// observe returns the part of an object that is stored in memory.
func observe(o client.Object) *observed {
	s := &observed{
		uid: o.GetUID(), resourceVersion: o.GetResourceVersion(),
		labelled: o.GetLabels()[ManagedByLabel] == ManagedBy, deleting: o.GetDeletionTimestamp() != nil,
	}
	mayBeOurs := s.labelled
	references := o.GetOwnerReferences()
	for _, reference := range references[:min(len(references), maxOwners)] {
		signer := reference.Kind == signerKind && strings.HasPrefix(reference.APIVersion, v1alpha1.GroupVersion.Group+"/")
		s.owners = append(s.owners, owner{signer, shortened(reference.Kind), shortened(reference.Name), types.UID(shortened(string(reference.UID)))})
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

// shortened returns a copy that does not retain the memory of a longer text.
func shortened(s string) string { return strings.Clone(text.Shorten(s, maxOwnerText)) }

// applied returns the keys of a ConfigMap that [FieldOwner] has applied and no other field manager has changed
// since, at most [maxAppliedKeys]. An apply without them removes them.
func applied(o *corev1.ConfigMap) []string {
	i := slices.IndexFunc(o.ManagedFields, func(entry metav1.ManagedFieldsEntry) bool {
		return entry.Manager == FieldOwner && entry.Operation == metav1.ManagedFieldsOperationApply && entry.FieldsV1 != nil
	})
	if i < 0 {
		return nil
	}
	var fields struct {
		Data map[string]json.RawMessage `json:"f:data"`
	}
	raw := o.ManagedFields[i].FieldsV1.GetRawBytes()
	if len(raw) > maxFields || json.Unmarshal(raw, &fields) != nil {
		return nil // the object is applied again
	}
	var keys []string
	for _, field := range slices.Sorted(maps.Keys(fields.Data)) {
		if len(keys) == maxAppliedKeys {
			break
		}
		if key, ok := strings.CutPrefix(field, "f:"); ok {
			keys = append(keys, key)
		}
	}
	return keys
}

// ownedBy reports whether the object belongs to the Signer: the garbage collector deletes both together.
func (s observed) ownedBy(signer *v1alpha1.Signer) bool {
	return slices.ContainsFunc(s.owners, func(o owner) bool { return o.signer && o.uid == signer.UID })
}

// foreign returns why the object must not be written for the Signer, or "".
func (s observed) foreign(signer *v1alpha1.Signer) string {
	if s.ownedBy(signer) || s.labelled && len(s.owners) == 0 {
		return ""
	}
	for _, o := range s.owners {
		switch {
		case o.signer && o.name == signer.Name:
			return "belongs to a Signer of this name that was deleted, and is removed by the garbage collector"
		case o.signer:
			return fmt.Sprintf("belongs to the Signer %q", o.name)
		case s.labelled:
			return fmt.Sprintf("belongs to the %q %q", o.kind, o.name)
		}
	}
	return fmt.Sprintf("exists without the label %s=%s", ManagedByLabel, ManagedBy)
}

// holds reports whether the object has the desired content for the Signer, and no other.
func (s observed) holds(signer *v1alpha1.Signer, key string, content digest) bool {
	return s.labelled && s.ownedBy(signer) && len(s.data) == 1 && s.data[key] == content
}
