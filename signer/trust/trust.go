// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package trust publishes CA certificates in ConfigMaps, one in each of some namespaces.
//
// A ConfigMap is written by server-side apply, because the API server authorizes an apply with the
// object's name even if it creates the object: so RBAC can limit the verbs by resourceNames, which
// it cannot for a plain create. One that exists and is not labelled as Countersign's is left
// alone. Nothing is ever deleted: workloads may still trust what was published.
package trust

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/api/v1alpha1"
)

const (
	// FieldOwner is the manager of the fields that are applied.
	FieldOwner = "countersign-signer"

	// ManagedByLabel marks the ConfigMaps that may be overwritten.
	ManagedByLabel = "app.kubernetes.io/managed-by"
	// ManagedBy is the value of the label.
	ManagedBy = "countersign"

	defaultKey = "ca.crt"

	parallel  = 8 // namespaces at a time
	maxListed = 8 // namespaces named in an error
)

// errNotOurs: a ConfigMap of that name exists and is someone else's.
var errNotOurs = fmt.Errorf("the ConfigMap exists without the label %s=%s: delete it, or choose another name in spec.trust.configMap",
	ManagedByLabel, ManagedBy)

// Publisher publishes.
type Publisher struct {
	// Namespaces lists the metadata of namespaces, from a cache.
	Namespaces client.Reader
	// Live reads ConfigMaps from the API server.
	Live client.Reader
	// Writer applies ConfigMaps.
	Writer client.Writer
}

// Publish makes the ConfigMaps in every chosen namespace that is not being deleted hold pem, and
// writes only to those that do not. It returns how many namespaces there are, and an error that
// names those it failed in; it tries each of them.
func (p *Publisher) Publish(ctx context.Context, where v1alpha1.TrustConfigMap, pem []byte) (int, error) {
	names, err := p.namespaces(ctx, where.NamespaceSelector)
	if err != nil {
		return 0, err
	}
	var (
		mu       sync.Mutex
		failures []failure
		group    errgroup.Group
	)
	group.SetLimit(parallel)
	for _, namespace := range names {
		group.Go(func() error {
			if err := p.publish(ctx, namespace, where, string(pem)); err != nil && !gone(err) {
				mu.Lock()
				defer mu.Unlock()
				failures = append(failures, failure{namespace, err})
			}
			return nil
		})
	}
	_ = group.Wait() // failures has them
	return len(names), join(where.Name, failures)
}

// Selects reports whether a namespace with such labels is chosen. It is false for an invalid selector.
func Selects(where *v1alpha1.TrustConfigMap, has map[string]string) bool {
	if where == nil {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(&where.NamespaceSelector)
	return err == nil && selector.Matches(labels.Set(has))
}

func (p *Publisher) namespaces(ctx context.Context, chosen metav1.LabelSelector) ([]string, error) {
	selector, err := metav1.LabelSelectorAsSelector(&chosen)
	if err != nil {
		return nil, fmt.Errorf("spec.trust.configMap.namespaceSelector: %w", err)
	}
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NamespaceList"))
	if err := p.Namespaces.List(ctx, list, client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return nil, fmt.Errorf("listing namespaces: %w", err)
	}
	var names []string
	for _, namespace := range list.Items {
		if namespace.DeletionTimestamp == nil {
			names = append(names, namespace.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (p *Publisher) publish(ctx context.Context, namespace string, where v1alpha1.TrustConfigMap, pem string) error {
	key := where.Key
	if key == "" {
		key = defaultKey
	}
	options := []client.ApplyOption{client.FieldOwner(FieldOwner)}
	var existing corev1.ConfigMap
	err := p.Live.Get(ctx, client.ObjectKey{Namespace: namespace, Name: where.Name}, &existing)
	switch {
	case apierrors.IsNotFound(err):
		// Not forced: should somebody create it in this moment, theirs stays.
	case err != nil:
		return err
	case existing.Labels[ManagedByLabel] != ManagedBy:
		return errNotOurs
	case existing.Data[key] == pem:
		return nil
	default:
		options = append(options, client.ForceOwnership) // whoever edited it owns the field now
	}
	wanted := applycorev1.ConfigMap(where.Name, namespace).
		WithLabels(map[string]string{ManagedByLabel: ManagedBy}).
		WithData(map[string]string{key: pem})
	return p.Writer.Apply(ctx, wanted, options...)
}

// gone reports whether the namespace went away in the meantime.
func gone(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

type failure struct {
	namespace string
	err       error
}

// join says where it failed and why.
func join(name string, failures []failure) error {
	if len(failures) == 0 {
		return nil
	}
	slices.SortFunc(failures, func(a, b failure) int { return strings.Compare(a.namespace, b.namespace) })
	parts := make([]string, 0, maxListed+1)
	for i, f := range failures {
		if i == maxListed {
			parts = append(parts, fmt.Sprintf("and in %d more namespaces", len(failures)-maxListed))
			break
		}
		why := f.err.Error()
		if apierrors.IsForbidden(f.err) {
			why += fmt.Sprintf(" (the signer needs get, create and patch on configmaps with resourceNames [%q])", name)
		}
		parts = append(parts, fmt.Sprintf("%s/%s: %s", f.namespace, name, why))
	}
	return errors.New(strings.Join(parts, "; "))
}
