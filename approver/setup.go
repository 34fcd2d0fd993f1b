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
	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/approver/policy"
	"countersign.dev/countersign/approver/review"
	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/internal/certreq"
	"countersign.dev/countersign/internal/fairqueue"
)

// statusDelay is the delay after a comparison before the status of its policy is written, so that
// one write covers many comparisons.
const statusDelay = 2 * time.Second

// Options of an approver.
type Options struct {
	// Namespace is the namespace of Countersign. ConfigMaps with policies are read from it.
	Namespace string
	// ClusterDomain is the DNS domain of the cluster, such as "cluster.local".
	ClusterDomain string
	// Replica is the name of the Pod of this process. It identifies the replica in statuses.
	Replica string
	// Concurrency is the number of requests that are decided concurrently.
	Concurrency int
	// Audit records decisions.
	Audit *audit.Log
}

// NewScheme returns a scheme with the types that an approver reads and writes.
func NewScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	return scheme, errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme))
}

// Approver is the approver of one process. Configure it in two steps: before and after the
// manager is created.
type Approver struct {
	options  Options
	policies *policy.Set
}

// New returns an Approver. Call ConfigureManager with the options of a manager, and then Setup
// with the manager.
func New(o Options) *Approver { return &Approver{options: o, policies: &policy.Set{}} }

// ConfigureManager sets the cache and the concurrency of the manager.
func (a *Approver) ConfigureManager(o *manager.Options) {
	o.Cache = CacheOptions(a.options.Namespace, a.policies)
	o.Controller.MaxConcurrentReconciles = a.options.Concurrency
}

// Setup adds the controllers of requests and of policies to the manager, and the readyz check. The
// check fails until the caches are synced and every policy is known. A policy without an active revision
// does not fail it: the requests that it matches stay pending, and others are decided.
func (a *Approver) Setup(ctx context.Context, mgr manager.Manager) error {
	if err := metrics.Registry.Register(a.options.Audit.Metrics()); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	requests, policyQueue := &queueRef[fairqueue.Item]{}, &queueRef[reconcile.Request]{}
	r := &requestReconciler{
		client: mgr.GetClient(), live: mgr.GetAPIReader(), log: a.options.Audit,
		events: mgr.GetEventRecorder("countersign-approver"), holds: newHolds(), comparison: newComparison(),
		compared: func() { policyQueue.addAfter(reconcile.Request{}, statusDelay) },
	}
	base, err := setupReviewer(ctx, mgr, a.policies, a.options, func(changed []facts.Awaited) {
		for _, item := range r.requeueFor(changed) {
			requests.addAfter(item, 0)
		}
	})
	if err != nil {
		return err
	}
	r.reviewer, r.forget = base.reviewer, base.gatherer.Forget
	if err := setupRequests(mgr, r, base.pods, requests); err != nil {
		return fmt.Errorf("adding the controller of requests: %w", err)
	}
	return setupPolicies(mgr, base, &policyReconciler{
		client: mgr.GetClient(), policies: a.policies, loader: policy.Loader{Reader: mgr.GetClient(), Namespace: a.options.Namespace},
		status: &statusWriter{
			client: mgr.GetClient(), podExists: base.pods.Exist, namespace: a.options.Namespace, replica: a.options.Replica,
			elected: mgr.Elected(), comparison: r.comparison, events: r.events,
		},
		changed: func(ctx context.Context) error { return requeuePending(ctx, mgr.GetClient(), a.policies, requests) },
	}, policyQueue)
}

// CacheOptions returns the options of the cache that a Reviewer needs. policies is also passed to
// [SetupReviewer].
func CacheOptions(namespace string, policies *policy.Set) cache.Options {
	byObject := facts.CacheByObject(policies.Matches)
	byObject[&v1alpha1.ApprovalPolicy{}] = cache.ByObject{Transform: func(object any) (any, error) {
		if p, ok := object.(*v1alpha1.ApprovalPolicy); ok { // a tombstone is not changed
			policy.Strip(p)
		}
		return object, nil
	}}
	byObject[&corev1.ConfigMap{}] = cache.ByObject{Namespaces: map[string]cache.Config{namespace: {}}}
	return cache.Options{ByObject: byObject}
}

// SetupReviewer adds to a manager a Reviewer, the controller that loads policies for it, and a
// readyz check, as for an approver. The Reviewer writes nothing and needs no leader.
func SetupReviewer(ctx context.Context, mgr manager.Manager, policies *policy.Set, o Options) (*review.Reviewer, error) {
	base, err := setupReviewer(ctx, mgr, policies, o, func([]facts.Awaited) {})
	if err != nil {
		return nil, err
	}
	reconciler := &policyReconciler{
		client: mgr.GetClient(), policies: policies, loader: policy.Loader{Reader: mgr.GetClient(), Namespace: o.Namespace},
		changed: func(context.Context) error { return nil },
	}
	return base.reviewer, setupPolicies(mgr, base, reconciler, &queueRef[reconcile.Request]{})
}

// reviewerBase is a Reviewer and the objects that it uses.
type reviewerBase struct {
	reviewer *review.Reviewer
	gatherer *facts.Gatherer
	pods     *facts.Pods
}

// setupReviewer adds a Reviewer without policies to a manager. changed is called when a Pod changes.
func setupReviewer(ctx context.Context, mgr manager.Manager, policies *policy.Set, o Options, changed func([]facts.Awaited)) (*reviewerBase, error) {
	if err := registerMetrics(metrics.Registry); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	if err := facts.AddIndexes(ctx, mgr.GetFieldIndexer()); err != nil {
		return nil, fmt.Errorf("adding indexes: %w", err)
	}
	all, err := facts.AllPods(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return nil, err
	}
	pods := facts.NewPods(all, changed)
	if err := mgr.Add(pods); err != nil {
		return nil, fmt.Errorf("adding the store of Pods: %w", err)
	}
	// The kubelet restarts a process with an evaluation that cannot be canceled.
	if err := mgr.AddHealthzCheck("evaluations", func(*http.Request) error { return evaluator.CheckAbandoned() }); err != nil {
		return nil, fmt.Errorf("adding the healthz check: %w", err)
	}
	gatherer := facts.NewGatherer(mgr.GetClient(), pods, mgr.GetAPIReader(), mgr.GetClient(), o.ClusterDomain)
	reviewer := &review.Reviewer{
		Policies: policies, Gatherer: gatherer, Now: time.Now,
		Observe: func(policy string, duration time.Duration) {
			evaluationSeconds.WithLabelValues(policy).Observe(duration.Seconds())
		},
	}
	return &reviewerBase{reviewer: reviewer, gatherer: gatherer, pods: pods}, nil
}

// setupRequests adds the controller of requests. A request is reconciled when it changes, and when
// an object changes that it awaits.
func setupRequests(mgr manager.Manager, r *requestReconciler, pods *facts.Pods, queue *queueRef[fairqueue.Item]) error {
	itself := handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, object client.Object) []fairqueue.Item {
		if csr, ok := object.(*certificatesv1.CertificateSigningRequest); ok {
			return []fairqueue.Item{fairqueue.ItemOf(csr)}
		}
		return nil
	})
	managed := predicate.NewPredicateFuncs(func(object client.Object) bool {
		csr, ok := object.(*certificatesv1.CertificateSigningRequest)
		return ok && r.reviewer.Manages(csr.Spec.SignerName)
	})
	awaiting := handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, object client.Object) []fairqueue.Item {
		return r.requeueFor(facts.AwaitedBy(object))
	})
	return builder.TypedControllerManagedBy[fairqueue.Item](mgr).Named("request").
		Watches(&certificatesv1.CertificateSigningRequest{}, itself, builder.WithPredicates(managed)).
		Watches(&corev1.Service{}, awaiting).
		Watches(&corev1.Node{}, awaiting).
		WatchesRawSource(afterPods{pods, func(ctx context.Context, started workqueue.TypedRateLimitingInterface[fairqueue.Item]) error {
			queue.set(started)
			// The predicate has rejected events that came before the policies were loaded.
			return requeuePending(ctx, mgr.GetClient(), r.reviewer.Policies, queue)
		}}).
		WithOptions(controller.TypedOptions[fairqueue.Item]{RateLimiter: rateLimiter[fairqueue.Item](), NewQueue: fairqueue.New}).
		Complete(r)
}

// afterPods is a source of requests. The controller waits for its sync before it reconciles
// requests, and it syncs when the store of Pods does.
type afterPods struct {
	*facts.Pods
	start source.TypedFunc[fairqueue.Item]
}

func (s afterPods) Start(ctx context.Context, queue workqueue.TypedRateLimitingInterface[fairqueue.Item]) error {
	return s.start(ctx, queue)
}

// setupPolicies adds the controller of policies and the readyz check.
func setupPolicies(mgr manager.Manager, base *reviewerBase, r *policyReconciler, queue *queueRef[reconcile.Request]) error {
	all := reconcile.Request{} // one request stands for all policies
	r.start = func(load func()) { go load() }
	r.requeue = func(delay time.Duration) { queue.addAfter(all, delay) }
	base.reviewer.TakenOut = func() { r.requeue(0) } // the policy is then not loaded, and its status says so
	toAll := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request { return []reconcile.Request{all} })
	// An informer reports an object that replaced another one of its name as an update.
	newSpec := predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return e.ObjectOld.GetUID() != e.ObjectNew.GetUID() || e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration()
	}}
	err := builder.ControllerManagedBy(mgr).Named("policy").
		Watches(&v1alpha1.ApprovalPolicy{}, toAll, builder.WithPredicates(newSpec)).
		Watches(&corev1.ConfigMap{}, toAll).
		WatchesRawSource(source.Func(func(_ context.Context, started workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			started.Add(all) // even if there is no policy
			queue.set(started)
			return nil
		})).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1, NeedLeaderElection: new(false), RateLimiter: rateLimiter[reconcile.Request]()}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("adding the controller of policies: %w", err)
	}
	if r.status != nil {
		// The new leader writes the statuses.
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
		if !base.pods.Synced() || !mgr.GetCache().WaitForCacheSync(ctx) {
			return errors.New("caches are not synced yet")
		}
		return r.policies.Ready()
	})
}

// rateLimiter delays retries after errors: by 100 ms, doubling up to 30 s.
func rateLimiter[T comparable]() workqueue.TypedRateLimiter[T] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[T](100*time.Millisecond, 30*time.Second)
}

// queueRef adds to the queue of a controller that has started. Before that it does nothing: a
// controller that starts reconciles every object.
type queueRef[T comparable] struct {
	queue atomic.Pointer[workqueue.TypedRateLimitingInterface[T]]
}

func (q *queueRef[T]) set(queue workqueue.TypedRateLimitingInterface[T]) { q.queue.Store(&queue) }

func (q *queueRef[T]) addAfter(item T, delay time.Duration) {
	if queue := q.queue.Load(); queue != nil {
		(*queue).AddAfter(item, delay)
	}
}

// requeuePending adds every undecided request that a policy matches to the queue.
func requeuePending(ctx context.Context, reader client.Reader, policies *policy.Set, queue *queueRef[fairqueue.Item]) error {
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
