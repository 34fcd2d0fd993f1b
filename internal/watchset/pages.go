// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package watchset

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
)

const (
	// pageSize is the number of objects that are in memory completely. The API server stores objects of up to 1.5 MiB,
	// which take a multiple of it when they are decoded.
	pageSize = 16
	// pageTimeout bounds the read of a page.
	pageTimeout = 30 * time.Second
)

// pageSlot is occupied while a page is in memory: when watches cannot be opened, many lists begin at the same time.
var pageSlot = make(chan struct{}, 1)

// InPages returns a source that lists in pages, and reduces the objects of each page before it reads the next one.
//
// A reflector lists when the API server cannot stream the objects to it, for example when a watch fails with the status
// 504. It then asks for a resourceVersion, for which the API server ignores the limit and sends all objects at once.
// InPages lists without a resourceVersion: the objects are those of one, which is the latest.
//
// reduce must return the same result for a reduced object.
func InPages(source cache.ListerWatcher, reduce func(runtime.Object) (runtime.Object, error)) cache.ListerWatcher {
	all := cache.ToListerWatcherWithContext(source)
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.ResourceVersion, o.ResourceVersionMatch, o.Limit, o.Continue = "", "", pageSize, ""
			list := &internalversion.List{}
			for {
				if err := readPage(ctx, all, &o, reduce, list); err != nil {
					return nil, err
				}
				if o.Continue == "" {
					return list, nil
				}
			}
		},
		WatchFuncWithContext: all.WatchWithContext,
	}, source)
}

// readPage adds the reduced objects of a page to a list, and sets o to the next page.
func readPage(ctx context.Context, source cache.ListerWatcherWithContext, o *metav1.ListOptions, reduce func(runtime.Object) (runtime.Object, error), list *internalversion.List) error {
	select {
	case pageSlot <- struct{}{}:
		defer func() { <-pageSlot }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	page, err := source.ListWithContext(ctx, *o)
	if err != nil {
		return err
	}
	about, err := meta.ListAccessor(page)
	if err != nil {
		return fmt.Errorf("reading a page: %w", err)
	}
	list.ResourceVersion, o.Continue = about.GetResourceVersion(), about.GetContinue()
	// The objects are copied, so that a part of one does not keep the page in memory.
	return meta.EachListItemWithAlloc(page, func(object runtime.Object) error {
		reduced, err := reduce(object)
		list.Items = append(list.Items, reduced)
		return err
	})
}

// NewInformer returns an informer that lists as [InPages] does, and applies its transform to each page. It is the
// NewInformer of a controller-runtime cache.
func NewInformer(source cache.ListerWatcher, object runtime.Object, resync time.Duration, indexers cache.Indexers) cache.SharedIndexInformer {
	i := &informer{}
	i.SharedIndexInformer = cache.NewSharedIndexInformer(InPages(source, i.reduce), object, resync, indexers)
	return i
}

type informer struct {
	cache.SharedIndexInformer
	transform cache.TransformFunc // set before the informer runs
}

// SetTransform implements cache.SharedIndexInformer.
func (i *informer) SetTransform(transform cache.TransformFunc) error {
	if err := i.SharedIndexInformer.SetTransform(transform); err != nil {
		return err
	}
	i.transform = transform
	return nil
}

func (i *informer) reduce(object runtime.Object) (runtime.Object, error) {
	if i.transform == nil {
		return object, nil
	}
	reduced, err := i.transform(object)
	if err != nil {
		return nil, err
	}
	if object, ok := reduced.(runtime.Object); ok {
		return object, nil
	}
	return nil, fmt.Errorf("the transform returned a %T", reduced)
}
