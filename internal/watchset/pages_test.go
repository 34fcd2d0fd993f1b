// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package watchset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// paged is an API server with n ConfigMaps that cannot serve watches. It ignores limits where the API server does.
type paged struct {
	n       int
	expired bool // the second page

	mu      sync.Mutex
	lists   int
	largest int    // answer, in objects
	reduced func() // called before each answer
}

// list answers a list.
func (p *paged) list(limit int64, token, resourceVersion string) (*corev1.ConfigMapList, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lists++
	if p.reduced != nil {
		p.reduced()
	}
	begin := 0
	if token != "" {
		var err error
		if begin, err = strconv.Atoi(token); err != nil {
			return nil, err
		}
		if p.expired {
			return nil, apierrors.NewResourceExpired("the continue token is too old")
		}
	}
	end := p.n
	if limit > 0 && resourceVersion == "" {
		end = min(p.n, begin+int(limit))
	}
	list := &corev1.ConfigMapList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMapList"}, ListMeta: metav1.ListMeta{ResourceVersion: "7"}}
	for i := begin; i < end; i++ {
		list.Items = append(list.Items, *configMap("a", fmt.Sprint("x", i), "red"))
	}
	if end < p.n {
		list.Continue = strconv.Itoa(end)
	}
	p.largest = max(p.largest, end-begin)
	return list, nil
}

func (p *paged) source() cache.ListerWatcher {
	return &cache.ListWatch{
		ListWithContextFunc: func(_ context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return p.list(o.Limit, o.Continue, o.ResourceVersion)
		},
	}
}

// TestList_pages: a reflector that cannot watch lists all objects, and at most pageSize of them are not reduced.
func TestList_pages(t *testing.T) {
	for _, n := range []int{0, 1, pageSize, pageSize + 1, 5*pageSize + 1} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			p := &paged{n: n}
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				query := r.URL.Query()
				if query.Has("watch") {
					w.WriteHeader(http.StatusGatewayTimeout)
					return
				}
				limit, _ := strconv.ParseInt(query.Get("limit"), 10, 64)
				list, err := p.list(limit, query.Get("continue"), query.Get("resourceVersion"))
				if err != nil {
					t.Error(err)
				}
				w.Header().Set("Content-Type", "application/json")
				_ = json.NewEncoder(w).Encode(list)
			}))
			defer server.Close()
			c, err := client.NewWithWatch(&rest.Config{Host: server.URL}, client.Options{Scheme: clientgoscheme.Scheme, Mapper: mapperOf(t)})
			if err != nil {
				t.Fatal(err)
			}
			reduced := 0
			set, _ := newSet(func(o *Options[*corev1.ConfigMap, string]) {
				o.Source = ByName(c, &corev1.ConfigMapList{}, "a")
				keep := o.Keep
				o.Keep = func(object *corev1.ConfigMap) *string { reduced++; return keep(object) }
			})
			lists := 0
			p.reduced = func() {
				if want := lists * pageSize; lists > 0 && reduced != want {
					t.Errorf("page %d: %d objects are reduced, want %d", lists, reduced, want)
				}
				lists++
			}
			set.Keep(keys("one"))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			ended := make(chan error)
			go func() { ended <- set.Start(ctx) }()
			if err := set.WaitForSync(ctx); err != nil {
				t.Fatal(err)
			}
			if got := len(set.List()); got != n {
				t.Errorf("%d objects, want %d", got, n)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.largest > pageSize || p.largest != min(n, pageSize) {
				t.Errorf("the largest answer has %d objects", p.largest)
			}
		})
	}
}

// TestInPages_errors: a page that cannot be read is an error of the list.
func TestInPages_errors(t *testing.T) {
	reduceError := errors.New("another type")
	for _, tc := range []struct {
		name   string
		server *paged
		reduce error
		want   func(error) bool
	}{
		{"expired", &paged{n: 2 * pageSize, expired: true}, nil, apierrors.IsResourceExpired},
		{"not reduced", &paged{n: 1}, reduceError, func(err error) bool { return errors.Is(err, reduceError) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			source := InPages(tc.server.source(), func(object runtime.Object) (runtime.Object, error) { return object, tc.reduce })
			list, err := cache.ToListerWatcherWithContext(source).ListWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "0", Limit: 500})
			if !tc.want(err) || list != nil {
				t.Errorf("got %v, %v", list, err)
			}
			if len(pageSlot) != 0 {
				t.Error("the slot of the page is occupied")
			}
		})
	}
	t.Run("canceled while another page is read", func(t *testing.T) {
		pageSlot <- struct{}{}
		defer func() { <-pageSlot }()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		source := InPages((&paged{n: 1}).source(), nil)
		if _, err := cache.ToListerWatcherWithContext(source).ListWithContext(ctx, metav1.ListOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

// TestNewInformer: the transform is applied to a page before the next one is read, and twice at most.
func TestNewInformer(t *testing.T) {
	p := &paged{n: 3 * pageSize}
	i := NewInformer(p.source(), &corev1.ConfigMap{}, 0, cache.Indexers{}).(*informer)
	transformed := 0
	if err := i.SetTransform(func(object any) (any, error) {
		transformed++
		object.(*corev1.ConfigMap).Data = nil
		return object, nil
	}); err != nil {
		t.Fatal(err)
	}
	lists := 0
	p.reduced = func() {
		if want := lists * pageSize; transformed != want {
			t.Errorf("page %d: %d objects are transformed, want %d", lists, transformed, want)
		}
		lists++
	}
	list, err := InPages(p.source(), i.reduce).(cache.ListerWatcherWithContext).ListWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		t.Fatal(err)
	}
	items := 0
	if err := eachConfigMap(list, func(object *corev1.ConfigMap) {
		items++
		if object.Data != nil {
			t.Error("an object is not transformed")
		}
	}); err != nil || items != p.n {
		t.Errorf("%d objects, error %v", items, err)
	}
}

func eachConfigMap(list runtime.Object, do func(*corev1.ConfigMap)) error {
	return meta.EachListItem(list, func(object runtime.Object) error {
		do(object.(*corev1.ConfigMap))
		return nil
	})
}

func mapperOf(t *testing.T) meta.RESTMapper {
	t.Helper()
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("ConfigMap"), meta.RESTScopeNamespace)
	return mapper
}
