// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// maxListed is the maximum size of the Services of a namespace that are listed, in bytes of the store. It is
	// enough for about 2,000 Services. In a larger namespace, only the Services that the cache selects for a
	// request are read.
	maxListed = 1 << 20
	// maxSurroundings is the maximum number of namespaces whose surroundings are cached, and maxSurroundingsSize
	// the maximum size of these, in bytes of protobuf. Requests in further namespaces read their own.
	maxSurroundings     = 256
	maxSurroundingsSize = 16 << 20
)

// surroundings are the Namespace and the Services of a Pod.
type surroundings struct {
	namespace *corev1.Namespace // nil if it does not exist
	services  []corev1.Service
	// large means that services are missing, because their size is above maxListed.
	large  bool
	size   int
	readAt time.Time // when the read started
}

// surroundingsCache shares surroundings among the requests of [MaxAge].
type surroundingsCache struct {
	mu          sync.Mutex
	byNamespace map[string]surroundings
	size        int                  // of all
	epoch       int                  // of the latest Forget
	forgotten   map[string]forgotten // by namespace, since the start of the longest read
	reads       singleflight.Group
}

// forgotten is the latest call of Forget for a namespace.
type forgotten struct {
	at    time.Time
	epoch int
}

func newSurroundingsCache() surroundingsCache {
	return surroundingsCache{byNamespace: map[string]surroundings{}, forgotten: map[string]forgotten{}}
}

func (c *surroundingsCache) get(namespace string) (around surroundings, ok bool, epoch int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	around, ok = c.byNamespace[namespace]
	return around, ok, c.forgotten[namespace].epoch
}

// put caches surroundings, unless the namespace was forgotten since the read started, or the cache is full.
// It evicts expired ones.
func (c *surroundingsCache) put(namespace string, around surroundings, epoch int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, cached := range c.byNamespace {
		if name == namespace || around.readAt.Sub(cached.readAt) >= MaxAge {
			c.removeLocked(name)
		}
	}
	if c.forgotten[namespace].epoch != epoch || len(c.byNamespace) == maxSurroundings || c.size+around.size > maxSurroundingsSize {
		return
	}
	c.byNamespace[namespace] = around
	c.size += around.size
}

func (c *surroundingsCache) removeLocked(namespace string) {
	c.size -= c.byNamespace[namespace].size
	delete(c.byNamespace, namespace)
}

// Forget evicts the cached facts about a namespace. Call it when an object there changes that a
// request awaits. It does not affect other namespaces: a user can change objects all the time.
func (g *Gatherer) Forget(namespace string) {
	c := &g.surroundings
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for name, f := range c.forgotten {
		if now.Sub(f.at) > Timeout { // no read from before is in progress
			delete(c.forgotten, name)
		}
	}
	c.epoch++
	c.forgotten[namespace] = forgotten{at: now, epoch: c.epoch}
	c.removeLocked(namespace)
}

// surroundingsOf returns the surroundings of the Pods of a namespace.
func (r resolver) surroundingsOf(ctx context.Context, namespace string) (surroundings, error) {
	read := r.recentSurroundings
	if r.onlyLive {
		read = r.readSurroundings
	}
	around, err := read(ctx, namespace)
	if err == nil {
		r.live.readAt(around.readAt)
	}
	return around, err
}

// recentSurroundings returns surroundings that are younger than [MaxAge]. All requests within this time
// share one read. After half of it, the next request starts another read and does not wait for it.
func (g *Gatherer) recentSurroundings(ctx context.Context, namespace string) (surroundings, error) {
	for ctx.Err() == nil {
		cached, ok, epoch := g.surroundings.get(namespace)
		age := time.Since(cached.readAt)
		if ok && age < MaxAge/2 {
			return cached, nil
		}
		read := g.shareRead(ctx, namespace, epoch)
		if ok && age < MaxAge {
			return cached, nil
		}
		around, err := await(ctx, read)
		// The surroundings are too old if the request joined a read late or the read was slow.
		if err != nil || time.Since(around.readAt) < MaxAge {
			return around, err
		}
	}
	return surroundings{}, ctx.Err()
}

// await returns the result of a shared read.
func await(ctx context.Context, read <-chan singleflight.Result) (surroundings, error) {
	select {
	case result := <-read:
		around, _ := result.Val.(surroundings)
		return around, result.Err
	case <-ctx.Done():
		return surroundings{}, ctx.Err()
	}
}

// shareRead reads surroundings, or joins a read of the same epoch. The read does not end when the
// context of one request does. A consistent list takes up to 100 ms: the cache of the API server
// waits for etcd.
func (g *Gatherer) shareRead(ctx context.Context, namespace string, epoch int) <-chan singleflight.Result {
	ctx = context.WithoutCancel(ctx)
	return g.surroundings.reads.DoChan(fmt.Sprintf("%s %d", namespace, epoch), func() (any, error) {
		ctx, cancel := context.WithTimeout(ctx, Timeout)
		defer cancel()
		around, err := g.readSurroundings(ctx, namespace)
		if err == nil {
			g.surroundings.put(namespace, around, epoch)
		}
		return around, err
	})
}

// readSurroundings reads the Namespace and its Services from the API server. It keeps only the fields
// that facts have.
func (g *Gatherer) readSurroundings(ctx context.Context, name string) (surroundings, error) {
	around := surroundings{readAt: time.Now()}
	var namespace corev1.Namespace
	if ok, err := found(g.live.Get(ctx, types.NamespacedName{Name: name}, &namespace)); err != nil {
		return surroundings{}, err
	} else if ok {
		small := &corev1.Namespace{}
		small.Name, small.UID, small.Labels, small.DeletionTimestamp = namespace.Name, namespace.UID, namespace.Labels, namespace.DeletionTimestamp
		around.namespace, around.size = small, small.Size()
	}
	stored := 0
	cached, err := g.cachedServices(ctx, name)
	if err != nil {
		return surroundings{}, err
	}
	for i := range cached {
		stored += sizeInStore(&cached[i])
	}
	if around.large = stored > maxListed; around.large {
		return around, nil
	}
	var list corev1.ServiceList
	if err := g.live.List(ctx, &list, client.InNamespace(name)); err != nil {
		return surroundings{}, err
	}
	around.services = make([]corev1.Service, len(list.Items))
	for i := range list.Items {
		small := selectingService(&list.Items[i])
		around.services[i] = *small
		around.size += small.Size()
	}
	return around, nil
}

func (g *Gatherer) cachedServices(ctx context.Context, namespace string) ([]corev1.Service, error) {
	var list corev1.ServiceList
	err := g.cache.List(ctx, &list, client.UnsafeDisableDeepCopy, client.InNamespace(namespace))
	return list.Items, err
}

// selecting returns the Services that select a Pod, in the order of their names.
func (r resolver) selecting(ctx context.Context, around surroundings, pod *Pod, names []string) ([]Service, error) {
	services := around.services
	if around.large {
		var err error
		if services, err = r.readSelecting(ctx, pod, names); err != nil {
			return nil, err
		}
	}
	out := []Service{}
	for i := range services {
		if selects(&services[i], pod) {
			out = append(out, serviceOf(&services[i]))
		}
	}
	slices.SortFunc(out, func(a, b Service) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// readSelecting reads the Services that select a Pod according to the cache, and those that the request
// names. A Service that the cache does not contain yet is missing: that allows less.
func (r resolver) readSelecting(ctx context.Context, pod *Pod, names []string) ([]corev1.Service, error) {
	cached, err := r.cachedServices(ctx, pod.Namespace)
	if err != nil {
		return nil, err
	}
	named := map[string]bool{}
	for _, name := range names {
		if parts, ok := r.cut(foldName(name), "svc"); ok && len(parts) > 1 && parts[len(parts)-1] == pod.Namespace {
			named[parts[len(parts)-2]] = true
		}
	}
	for i := range cached {
		if selects(&cached[i], pod) || slices.ContainsFunc(clusterIPs(&cached[i]), func(ip string) bool { return slices.Contains(names, ip) }) {
			named[cached[i].Name] = true
		}
	}
	var out []corev1.Service
	for name := range named {
		var service corev1.Service
		if ok, err := found(r.live.Get(ctx, types.NamespacedName{Namespace: pod.Namespace, Name: name}, &service)); err != nil {
			return nil, err
		} else if ok {
			out = append(out, *selectingService(&service))
		}
	}
	return out, nil
}
