// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/internal/certreq"
	"countersign.dev/countersign/internal/fairqueue"
)

// tellDelay is how long after a comparison the status of its policy tells of it: many go into one write.
const tellDelay = 2 * time.Second

// Options of an approver.
type Options struct {
	// Namespace that Countersign runs in: ConfigMaps with policies are read from it.
	Namespace string
	// ClusterDomain is the cluster's DNS domain, such as "cluster.local".
	ClusterDomain string
	// Replica is the name of this process's Pod, by which statuses of policies tell it from others.
	Replica string
	// Audit is where decisions are recorded.
	Audit *audit.Log
}

// NewScheme has the types that an approver reads and writes.
func NewScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	return scheme, errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme))
}

// CacheOptions says how the manager of a Judge must keep its caches. policies is the
// set that is handed to [Setup] or [SetupJudge] as well.
func CacheOptions(namespace string, policies *PolicySet) cache.Options {
	byObject := facts.CacheByObject(policies.Matches)
	byObject[&corev1.ConfigMap{}] = cache.ByObject{Namespaces: map[string]cache.Config{namespace: {}}}
	return cache.Options{ByObject: byObject}
}

// SetupJudge adds to a manager what a Judge needs, the loading of policies among it, and
// readiness, which says no until the caches are synced and policies have been loaded. One that
// cannot be used does not make it unready, other than an approver: it says so of every request
// that is that policy's, and others are judged. Nothing is written, and a leader is not needed.
func SetupJudge(ctx context.Context, mgr manager.Manager, policies *PolicySet, o Options) (*Judge, error) {
	judge, pods, err := newJudge(ctx, mgr, policies, o, func([]facts.Awaited) {})
	if err != nil {
		return nil, err
	}
	loader := &policyLoader{
		client: mgr.GetClient(), set: policies, load: Loader{Reader: mgr.GetClient(), Namespace: o.Namespace},
		changed: func(context.Context) error { return nil },
	}
	return judge, setupPolicies(mgr, pods, loader, &queueRef[reconcile.Request]{}, func() error {
		if !policies.Loaded() {
			return errNotLoaded
		}
		return nil
	})
}

// newJudge makes a Judge, and the Pods it looks in, which tell of changes.
func newJudge(ctx context.Context, mgr manager.Manager, policies *PolicySet, o Options, changed func([]facts.Awaited)) (*Judge, *facts.Pods, error) {
	if err := registerMetrics(metrics.Registry); err != nil {
		return nil, nil, fmt.Errorf("registering metrics: %w", err)
	}
	if err := facts.AddIndexes(ctx, mgr.GetFieldIndexer()); err != nil {
		return nil, nil, fmt.Errorf("adding indexes: %w", err)
	}
	all, err := facts.AllPods(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return nil, nil, err
	}
	pods := facts.NewPods(all, changed)
	if err := mgr.Add(pods); err != nil {
		return nil, nil, fmt.Errorf("adding Pods: %w", err)
	}
	gatherer := facts.NewGatherer(mgr.GetClient(), pods, mgr.GetAPIReader(), mgr.GetClient(), o.ClusterDomain)
	return &Judge{policies: policies, gatherer: gatherer, now: time.Now}, pods, nil
}

// Setup adds an approver to a manager: a Judge, the controller of requests, and the one of policies,
// which tells in their status what became of them.
func Setup(ctx context.Context, mgr manager.Manager, policies *PolicySet, o Options) error {
	if err := metrics.Registry.Register(o.Audit.Metrics()); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	requests, policyQueue := &queueRef[fairqueue.Item]{}, &queueRef[reconcile.Request]{}
	counts := newTally()
	r := &reconciler{
		client: mgr.GetClient(), live: mgr.GetAPIReader(),
		log: o.Audit, events: mgr.GetEventRecorder("countersign-approver"), waiting: newWaiting(), tally: counts,
		counted: func() { policyQueue.addAfter(reconcile.Request{}, tellDelay) },
	}
	var pods *facts.Pods
	var err error
	r.judge, pods, err = newJudge(ctx, mgr, policies, o, func(changed []facts.Awaited) {
		for _, item := range r.waitersFor(changed) {
			requests.addAfter(item, 0)
		}
	})
	if err != nil {
		return err
	}
	if err := setupRequests(mgr, r, pods, requests); err != nil {
		return fmt.Errorf("adding the controller of requests: %w", err)
	}
	loader := &policyLoader{
		client: mgr.GetClient(), set: policies, load: Loader{Reader: mgr.GetClient(), Namespace: o.Namespace},
		status:  &statusWriter{client: mgr.GetClient(), exists: pods.Exist, namespace: o.Namespace, replica: o.Replica, elected: mgr.Elected(), tally: counts},
		changed: func(ctx context.Context) error { return enqueuePending(ctx, mgr.GetClient(), policies, requests) },
	}
	return setupPolicies(mgr, pods, loader, policyQueue, policies.Ready)
}

// setupRequests has a request reconciled when it changes, and when something changes that it waits for.
func setupRequests(mgr manager.Manager, r *reconciler, pods *facts.Pods, queue *queueRef[fairqueue.Item]) error {
	itself := handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, object client.Object) []fairqueue.Item {
		if csr, ok := object.(*certificatesv1.CertificateSigningRequest); ok {
			return []fairqueue.Item{fairqueue.ItemOf(csr)}
		}
		return nil
	})
	ours := predicate.NewPredicateFuncs(func(object client.Object) bool {
		csr, ok := object.(*certificatesv1.CertificateSigningRequest)
		return ok && r.judge.Manages(csr.Spec.SignerName)
	})
	waiters := handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, object client.Object) []fairqueue.Item {
		return r.waitersFor(facts.AwaitedBy(object))
	})
	return builder.TypedControllerManagedBy[fairqueue.Item](mgr).Named("request").
		Watches(&certificatesv1.CertificateSigningRequest{}, itself, builder.WithPredicates(ours)).
		Watches(&corev1.Service{}, waiters).
		Watches(&corev1.Node{}, waiters).
		WatchesRawSource(afterPods{pods, func(ctx context.Context, started workqueue.TypedRateLimitingInterface[fairqueue.Item]) error {
			queue.set(started)
			// Events that came before the policies were loaded did not pass the predicate.
			return enqueuePending(ctx, mgr.GetClient(), r.judge.policies, queue)
		}}).
		WithOptions(controller.TypedOptions[fairqueue.Item]{RateLimiter: rateLimiter[fairqueue.Item](), NewQueue: fairqueue.New}).
		Complete(r)
}

// afterPods is a source of requests that has no request worked on before all Pods are known.
type afterPods struct {
	*facts.Pods
	start source.TypedFunc[fairqueue.Item]
}

func (s afterPods) Start(ctx context.Context, queue workqueue.TypedRateLimitingInterface[fairqueue.Item]) error {
	return s.start(ctx, queue)
}

func setupPolicies(mgr manager.Manager, pods *facts.Pods, loader *policyLoader, queue *queueRef[reconcile.Request], ready func() error) error {
	all := reconcile.Request{} // one request stands for all policies
	toAll := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request { return []reconcile.Request{all} })
	// An informer tells of one object that took the place of another as of an update.
	newSpec := predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return e.ObjectOld.GetUID() != e.ObjectNew.GetUID() || e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration()
	}}
	err := builder.ControllerManagedBy(mgr).Named("policy").
		Watches(&v1alpha1.ApprovalPolicy{}, toAll, builder.WithPredicates(newSpec)).
		Watches(&corev1.ConfigMap{}, toAll).
		WatchesRawSource(source.Func(func(_ context.Context, started workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			started.Add(all) // there may be no policy at all
			queue.set(started)
			return nil
		})).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1, NeedLeaderElection: new(false), RateLimiter: rateLimiter[reconcile.Request]()}).
		Complete(loader)
	if err != nil {
		return fmt.Errorf("adding the controller of policies: %w", err)
	}
	if loader.status != nil {
		// Once elected, statuses are ours to write.
		if err := mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
			select {
			case <-mgr.Elected():
				queue.addAfter(all, 0)
			case <-ctx.Done():
			}
			return nil
		})); err != nil {
			return fmt.Errorf("adding the election hook: %w", err)
		}
	}
	return mgr.AddReadyzCheck("policies", func(req *http.Request) error {
		ctx, cancel := context.WithTimeout(req.Context(), time.Second)
		defer cancel()
		if !pods.Synced() || !mgr.GetCache().WaitForCacheSync(ctx) {
			return errors.New("caches are not synced yet")
		}
		return ready()
	})
}

// rateLimiter spaces retries after faults: from 100 ms, doubling, to 30 s.
func rateLimiter[T comparable]() workqueue.TypedRateLimiter[T] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[T](100*time.Millisecond, 30*time.Second)
}

// queueRef lets others add to a controller's queue once the controller has started. Before
// that adding does nothing: a controller that starts sees every object anyway.
type queueRef[T comparable] struct {
	queue atomic.Pointer[workqueue.TypedRateLimitingInterface[T]]
}

func (q *queueRef[T]) set(queue workqueue.TypedRateLimitingInterface[T]) { q.queue.Store(&queue) }

func (q *queueRef[T]) addAfter(item T, delay time.Duration) {
	if queue := q.queue.Load(); queue != nil {
		(*queue).AddAfter(item, delay)
	}
}

// enqueuePending takes up every undecided request that a policy matches now.
func enqueuePending(ctx context.Context, reader client.Reader, policies *PolicySet, queue *queueRef[fairqueue.Item]) error {
	var list certificatesv1.CertificateSigningRequestList
	if err := reader.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	for i := range list.Items {
		if csr := &list.Items[i]; !certreq.IsDecided(csr) && policies.Matches(csr.Spec.SignerName) {
			queue.addAfter(fairqueue.ItemOf(csr), 0)
		}
	}
	return nil
}
