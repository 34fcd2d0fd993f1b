// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package trust publishes the CA certificates of Signers: in a ClusterTrustBundle, in a ConfigMap in each selected
// namespace, or in both. It reverts changes by other users, and removes objects that are no longer requested.
//
// plan.go decides what to do with each object and is pure. apply.go executes the steps of a plan.
//
// Each published name has its own watch over all namespaces: see package watchset. A Publish without a difference
// sends no request to the API server, and an edit is reverted within a second.
//
// Objects are written by server-side apply. The API server authorizes an apply with the name of the object even if it
// creates the object, so that RBAC can limit the verbs by resourceNames. For a plain create it cannot.
//
// Each object has the label [ManagedByLabel] and an ownerReference to its Signer. An object belongs to the Signer
// whose UID is in the ownerReference: the garbage collector deletes both together. Publish takes over objects that
// have the label and no owner, which earlier versions wrote. It does not change any other object, and reports it.
package trust

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/internal/watchset"
)

const (
	// FieldOwner is the field manager of published objects.
	FieldOwner = "countersign-signer"

	// ManagedByLabel is the label of objects that Countersign writes.
	ManagedByLabel = "app.kubernetes.io/managed-by"
	// ManagedBy is the value of ManagedByLabel.
	ManagedBy = "countersign"
)

// Publisher publishes the CAs of Signers. It watches the published objects as long as Start runs.
type Publisher struct {
	client     client.WithWatch
	namespaces client.Reader
	changed    func(ctx context.Context, signer string)
	bundles    *watchset.Set[client.Object, observed]
	configMaps *watchset.Set[client.Object, observed]

	mu sync.Mutex
	// publishers are the names of the Signers of each watched object.
	publishers map[object][]string
	// written are the names of ConfigMaps that were written and have not all been removed, by the UID of the Signer:
	// status.published has only one name.
	written map[types.UID]map[string]bool

	// refusals are the namespaces that refused the ConfigMap in the last publication.
	refusals map[nameOf]map[string]refusal

	limit time.Duration // maxPublication, but for tests
	now   func() time.Time
}

// object identifies objects that one watch selects.
type object struct{ kind, name string }

const (
	kindBundle    = "ClusterTrustBundle"
	kindConfigMap = "ConfigMap"
)

// New returns a Publisher. namespaces lists the metadata of namespaces from a cache. New calls changed with the name of
// a Signer when one of its objects, or the permission to read it, has changed: call Publish again.
func New(c client.WithWatch, namespaces client.Reader, changed func(ctx context.Context, signer string)) *Publisher {
	p := &Publisher{
		client: c, namespaces: namespaces, changed: changed,
		publishers: map[object][]string{}, written: map[types.UID]map[string]bool{}, refusals: map[nameOf]map[string]refusal{},
		limit: maxPublication, now: time.Now,
	}
	changedObject := func(kind string) func(context.Context, string, []watchset.Change[observed]) {
		return func(ctx context.Context, name string, _ []watchset.Change[observed]) {
			p.mu.Lock()
			signers := p.publishers[object{kind, name}]
			p.mu.Unlock()
			for _, signer := range signers {
				p.changed(ctx, signer)
			}
		}
	}
	p.bundles = watchset.New(watchset.Options[client.Object, observed]{
		Object: &certificatesv1.ClusterTrustBundle{}, Source: watchset.ByName(c, &certificatesv1.ClusterTrustBundleList{}, metav1.NamespaceAll),
		Backoff: watchset.ByNameBackoff(), Keep: observe, Same: same, Changed: changedObject(kindBundle),
	})
	p.configMaps = watchset.New(watchset.Options[client.Object, observed]{
		Object: &corev1.ConfigMap{}, Source: watchset.ByName(c, &corev1.ConfigMapList{}, metav1.NamespaceAll),
		Backoff: watchset.ByNameBackoff(), Keep: observe, Same: same, Changed: changedObject(kindConfigMap),
	})
	return p
}

// Start watches until ctx ends.
func (p *Publisher) Start(ctx context.Context) error {
	var watches sync.WaitGroup
	watches.Go(func() { _ = p.bundles.Start(ctx) })    // it ends with ctx and returns no error
	watches.Go(func() { _ = p.configMaps.Start(ctx) }) // likewise
	watches.Wait()
	return nil
}

// Keep sets the Signers whose objects are watched: the objects that their specs request, and those that their
// statuses name. Call it with all Signers before Publish.
func (p *Publisher) Keep(signers []v1alpha1.Signer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	publishers, uids := map[object][]string{}, map[types.UID]bool{}
	bundles, configMaps := map[string]bool{}, map[string]bool{}
	for i := range signers {
		s := &signers[i]
		uids[s.UID] = true
		for o := range objectsOf(s, p.written[s.UID]) {
			publishers[o] = append(publishers[o], s.Name)
			if o.kind == kindBundle {
				bundles[o.name] = true
			} else {
				configMaps[o.name] = true
			}
		}
	}
	maps.DeleteFunc(p.written, func(uid types.UID, _ map[string]bool) bool { return !uids[uid] })
	maps.DeleteFunc(p.refusals, func(id nameOf, _ map[string]refusal) bool { return !uids[id.signer] || !configMaps[id.name] })
	p.publishers = publishers
	p.bundles.Keep(bundles)
	p.configMaps.Keep(configMaps)
}

// objectsOf returns the objects that a Signer requests or has published. written are the names of its ConfigMaps.
func objectsOf(s *v1alpha1.Signer, written map[string]bool) map[object]bool {
	objects := map[object]bool{}
	if s.Spec.Trust.ClusterTrustBundle {
		objects[object{kindBundle, BundleName(s)}] = true
	}
	if desired := s.Spec.Trust.ConfigMap; desired != nil {
		objects[object{kindConfigMap, desired.Name}] = true
	}
	if published := s.Status.Published; published != nil {
		objects[object{kindBundle, published.ClusterTrustBundle}] = true
		objects[object{kindConfigMap, published.ConfigMap}] = true
	}
	for name := range written {
		objects[object{kindConfigMap, name}] = true
	}
	maps.DeleteFunc(objects, func(o object, _ bool) bool { return o.name == "" })
	return objects
}

// BundleName returns the name of the ClusterTrustBundle of a Signer. It begins with the signerName, as the API server
// requires.
func BundleName(signer *v1alpha1.Signer) string {
	return strings.ReplaceAll(signer.Spec.SignerName, "/", ":") + ":" + signer.Name
}

// Selects reports whether a namespace with the labels is selected. It is false for an invalid selector.
func Selects(where *v1alpha1.TrustConfigMap, has map[string]string) bool {
	if where == nil {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(&where.NamespaceSelector)
	return err == nil && selector.Matches(labels.Set(has))
}

// selection is the result of a namespace selector. A namespace that is being deleted is in neither list: the namespace
// controller deletes its objects.
type selection struct {
	selected []string // sorted
	others   map[string]bool
}

func (p *Publisher) selectNamespaces(ctx context.Context, desired metav1.LabelSelector) (*selection, error) {
	selector, err := metav1.LabelSelectorAsSelector(&desired)
	if err != nil {
		return nil, fmt.Errorf("spec.trust.configMap.namespaceSelector: %w", err)
	}
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NamespaceList"))
	if err := p.namespaces.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil { // it is read only
		return nil, fmt.Errorf("listing namespaces: %w", err)
	}
	s := &selection{others: map[string]bool{}}
	for i := range list.Items {
		namespace := &list.Items[i]
		switch {
		case namespace.DeletionTimestamp != nil:
		case selector.Matches(labels.Set(namespace.Labels)):
			s.selected = append(s.selected, namespace.Name)
		default:
			s.others[namespace.Name] = true
		}
	}
	slices.Sort(s.selected)
	return s, nil
}
