// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package trust publishes the CA certificates of Signers, in a ClusterTrustBundle, in ConfigMaps,
// one in each of some namespaces, or in both; keeps what it has published as it should be; and
// removes it when it is not wanted any more.
//
// Each name that is published is watched, over all namespaces, by a watch of its own: see package
// watchset. So nothing is asked of the API server unless something differs, and an edit is undone in
// the moment.
//
// An object is written by server-side apply, because the API server authorizes an apply with the
// object's name even if it creates the object: so RBAC can limit the verbs by resourceNames, which
// it cannot for a plain create.
//
// What is written carries the label [ManagedByLabel] and an ownerReference to its Signer. An object
// is that Signer's if the ownerReference has its UID: the garbage collector deletes it with the
// Signer. One that has the label and no owner at all, as versions before wrote them, is taken over.
// Any other is left as it is, and reported.
package trust

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

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
	// FieldOwner is the manager of the fields that are applied.
	FieldOwner = "countersign-signer"

	// ManagedByLabel marks what Countersign writes.
	ManagedByLabel = "app.kubernetes.io/managed-by"
	// ManagedBy is the value of the label.
	ManagedBy = "countersign"
)

// Publisher keeps what Signers publish. It watches as long as Start runs.
type Publisher struct {
	client     client.WithWatch
	namespaces client.Reader
	changed    func(ctx context.Context, signer string)
	bundles    *watchset.Set[client.Object, seen]
	configMaps *watchset.Set[client.Object, seen]

	mu sync.Mutex
	// publishers are the names of the Signers that an object is kept for.
	publishers map[object][]string
	// written are, by the UID of a Signer, the names of ConfigMaps that were written for it and have
	// not all been removed: status.published has room for one.
	written map[types.UID]map[string]bool
}

// object names those that are watched together.
type object struct{ kind, name string }

const (
	kindBundle    = "ClusterTrustBundle"
	kindConfigMap = "ConfigMap"
)

// New makes a Publisher. namespaces lists the metadata of namespaces, from a cache. changed is
// called with the name of a Signer when an object of a name that it publishes by has changed, or may
// or may not be read any more: call Publish again.
func New(c client.WithWatch, namespaces client.Reader, changed func(ctx context.Context, signer string)) *Publisher {
	p := &Publisher{
		client: c, namespaces: namespaces, changed: changed,
		publishers: map[object][]string{}, written: map[types.UID]map[string]bool{},
	}
	tell := func(kind string) func(context.Context, string, []watchset.Change[seen]) {
		return func(ctx context.Context, name string, _ []watchset.Change[seen]) {
			p.mu.Lock()
			signers := p.publishers[object{kind, name}]
			p.mu.Unlock()
			for _, signer := range signers {
				p.changed(ctx, signer)
			}
		}
	}
	p.bundles = watchset.New(watchset.Options[client.Object, seen]{
		Object: &certificatesv1.ClusterTrustBundle{}, Source: watchset.ByName(c, &certificatesv1.ClusterTrustBundleList{}, metav1.NamespaceAll),
		Backoff: watchset.ByNameBackoff(), Keep: look, Same: same, Changed: tell(kindBundle),
	})
	p.configMaps = watchset.New(watchset.Options[client.Object, seen]{
		Object: &corev1.ConfigMap{}, Source: watchset.ByName(c, &corev1.ConfigMapList{}, metav1.NamespaceAll),
		Backoff: watchset.ByNameBackoff(), Keep: look, Same: same, Changed: tell(kindConfigMap),
	})
	return p
}

// Start watches until ctx ends.
func (p *Publisher) Start(ctx context.Context) error {
	var watches sync.WaitGroup
	watches.Go(func() { _ = p.bundles.Start(ctx) })    // it ends with ctx, without an error
	watches.Go(func() { _ = p.configMaps.Start(ctx) }) // likewise
	watches.Wait()
	return nil
}

// Keep makes the objects of these Signers those that are watched: what their specs want, and what
// their statuses say is published. Call it before Publish with all Signers that there are.
func (p *Publisher) Keep(signers []v1alpha1.Signer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	publishers, uids := map[object][]string{}, map[types.UID]bool{}
	for i := range signers {
		s := &signers[i]
		uids[s.UID] = true
		of := map[object]bool{}
		if s.Spec.Trust.ClusterTrustBundle {
			of[object{kindBundle, BundleName(s)}] = true
		}
		if wanted := s.Spec.Trust.ConfigMap; wanted != nil {
			of[object{kindConfigMap, wanted.Name}] = true
		}
		if published := s.Status.Published; published != nil {
			of[object{kindBundle, published.ClusterTrustBundle}] = true
			of[object{kindConfigMap, published.ConfigMap}] = true
		}
		for name := range p.written[s.UID] {
			of[object{kindConfigMap, name}] = true
		}
		for o := range of {
			if o.name != "" {
				publishers[o] = append(publishers[o], s.Name)
			}
		}
	}
	maps.DeleteFunc(p.written, func(uid types.UID, _ map[string]bool) bool { return !uids[uid] })
	p.publishers = publishers
	bundles, configMaps := map[string]bool{}, map[string]bool{}
	for o := range publishers {
		if o.kind == kindBundle {
			bundles[o.name] = true
		} else {
			configMaps[o.name] = true
		}
	}
	p.bundles.Keep(bundles)
	p.configMaps.Keep(configMaps)
}

// BundleName is the name of the ClusterTrustBundle of a Signer. It begins with the signerName, as the
// API server demands.
func BundleName(signer *v1alpha1.Signer) string {
	return strings.ReplaceAll(signer.Spec.SignerName, "/", ":") + ":" + signer.Name
}

// Selects reports whether a namespace with such labels is chosen. It is false for an invalid selector.
func Selects(where *v1alpha1.TrustConfigMap, has map[string]string) bool {
	if where == nil {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(&where.NamespaceSelector)
	return err == nil && selector.Matches(labels.Set(has))
}

// selection is what a selector makes of the namespaces that there are. One that is being deleted is
// in neither list: the namespace controller empties it.
type selection struct {
	chosen []string // sorted
	others map[string]bool
}

func (p *Publisher) selectNamespaces(ctx context.Context, wanted metav1.LabelSelector) (*selection, error) {
	selector, err := metav1.LabelSelectorAsSelector(&wanted)
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
			s.chosen = append(s.chosen, namespace.Name)
		default:
			s.others[namespace.Name] = true
		}
	}
	slices.Sort(s.chosen)
	return s, nil
}
