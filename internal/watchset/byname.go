// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package watchset

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ByName returns the source of a [Set] whose keys are the names of objects, in one namespace or, if it
// is empty, in all. list is an empty list of the kind.
//
// Each watch has a field selector on metadata.name. RBAC takes the name of the object from it, so that
// a rule for list and watch can be limited by resourceNames.
func ByName(c client.WithWatch, list client.ObjectList, namespace string) func(name string) cache.ListerWatcher {
	empty := func() client.ObjectList {
		return list.DeepCopyObject().(client.ObjectList) // a copy is of the same type
	}
	return func(name string) cache.ListerWatcher {
		selection := func(o metav1.ListOptions) *client.ListOptions {
			return &client.ListOptions{
				Namespace:     namespace,
				FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name),
				Limit:         o.Limit,
				Continue:      o.Continue, // the client replaces both in Raw
				Raw:           &o,
			}
		}
		return &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				found := empty()
				if err := c.List(ctx, found, selection(o)); err != nil {
					return nil, err
				}
				return found, nil
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				return c.Watch(ctx, empty(), selection(o))
			},
		}
	}
}

// ByNameBackoff returns the [Options.Backoff] for watches by name: a missing RBAC rule takes effect
// within 2 s after it was added.
func ByNameBackoff() wait.Backoff {
	return wait.Backoff{Duration: 250 * time.Millisecond, Factor: 2, Steps: 8, Cap: 2 * time.Second}
}
