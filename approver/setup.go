// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/audit"
)

// Options of an approver.
type Options struct {
	// Namespace that Countersign runs in: ConfigMaps with policies are read from it.
	Namespace string
	// ClusterDomain is the cluster's DNS domain, such as "cluster.local".
	ClusterDomain string
	// Audit is where decisions are recorded.
	Audit *audit.Log
}

// NewScheme has the types that an approver reads and writes.
func NewScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	return scheme, errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme))
}

// CacheOptions says how the manager of an approver must keep its caches. policies is the
// set that is handed to [Setup] as well.
func CacheOptions(namespace string, policies *PolicySet) cache.Options {
	byObject := facts.CacheByObject(policies.Matches)
	byObject[&corev1.ConfigMap{}] = cache.ByObject{Namespaces: map[string]cache.Config{namespace: {}}}
	return cache.Options{ByObject: byObject}
}

// Setup adds an approver to a manager: the controllers of policies and of requests, and
// readiness, which says no until the caches are synced and every policy is loaded.
func Setup(ctx context.Context, mgr manager.Manager, policies *PolicySet, o Options) error {
	if err := registerMetrics(); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	if err := facts.AddIndexes(ctx, mgr.GetFieldIndexer()); err != nil {
		return fmt.Errorf("adding indexes: %w", err)
	}
	if _, err := mgr.GetCache().GetInformer(ctx, &corev1.Namespace{}); err != nil {
		return fmt.Errorf("watching namespaces: %w", err)
	}
	requests, requestQueue := trigger()
	r := &reconciler{
		client: mgr.GetClient(), live: mgr.GetAPIReader(), policies: policies,
		gatherer: facts.NewGatherer(mgr.GetClient(), mgr.GetAPIReader(), mgr.GetClient(), o.ClusterDomain),
		log:      o.Audit, events: mgr.GetEventRecorder("countersign-approver"), now: time.Now,
	}
	err := builder.ControllerManagedBy(mgr).Named("request").
		For(&certificatesv1.CertificateSigningRequest{}, builder.WithPredicates(predicate.NewPredicateFuncs(func(obj client.Object) bool {
			csr, ok := obj.(*certificatesv1.CertificateSigningRequest)
			return ok && policies.Matches(csr.Spec.SignerName)
		}))).
		WatchesRawSource(source.Func(func(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			r.started = time.Now()
			if err := requests(ctx, queue); err != nil {
				return err
			}
			// Events that came before the policies were loaded did not pass the predicate.
			return enqueuePending(ctx, mgr.GetClient(), policies, requestQueue)
		})).
		WithOptions(controller.Options{RateLimiter: rateLimiter()}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("adding the controller of requests: %w", err)
	}
	return setupPolicies(mgr, policies, o.Namespace, func(ctx context.Context) error {
		return enqueuePending(ctx, mgr.GetClient(), policies, requestQueue)
	})
}

func setupPolicies(mgr manager.Manager, policies *PolicySet, namespace string, changed func(context.Context) error) error {
	loader := &policyLoader{client: mgr.GetClient(), namespace: namespace, set: policies, elected: mgr.Elected(), changed: changed}
	start, enqueue := trigger()
	all := reconcile.Request{} // one request stands for all policies
	toAll := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request { return []reconcile.Request{all} })
	err := builder.ControllerManagedBy(mgr).Named("policy").
		Watches(&v1alpha1.ApprovalPolicy{}, toAll, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.ConfigMap{}, toAll).
		WatchesRawSource(source.Func(func(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			queue.Add(all) // there may be no policy at all
			return start(ctx, queue)
		})).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1, NeedLeaderElection: new(false), RateLimiter: rateLimiter()}).
		Complete(loader)
	if err != nil {
		return fmt.Errorf("adding the controller of policies: %w", err)
	}
	// Once elected, statuses are ours to write.
	if err := mgr.Add(manager.RunnableFunc(func(context.Context) error { enqueue(all); return nil })); err != nil {
		return fmt.Errorf("adding the election hook: %w", err)
	}
	return mgr.AddReadyzCheck("policies", func(req *http.Request) error {
		ctx, cancel := context.WithTimeout(req.Context(), time.Second)
		defer cancel()
		if !mgr.GetCache().WaitForCacheSync(ctx) {
			return errors.New("caches are not synced yet")
		}
		return policies.Ready()
	})
}

// rateLimiter spaces retries after faults: from 100 ms, doubling, to 30 s.
func rateLimiter() workqueue.TypedRateLimiter[reconcile.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](100*time.Millisecond, 30*time.Second)
}

// trigger is a source that lets others add to a controller's queue once the controller has
// started. Before that adding does nothing: a controller that starts sees every object anyway.
func trigger() (func(context.Context, workqueue.TypedRateLimitingInterface[reconcile.Request]) error, func(reconcile.Request)) {
	started := make(chan workqueue.TypedRateLimitingInterface[reconcile.Request], 1)
	return func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			started <- queue
			return nil
		}, func(req reconcile.Request) {
			select {
			case queue := <-started:
				started <- queue
				queue.Add(req)
			default:
			}
		}
}

// enqueuePending takes up every undecided request that a policy matches now.
func enqueuePending(ctx context.Context, reader client.Reader, policies *PolicySet, enqueue func(reconcile.Request)) error {
	var list certificatesv1.CertificateSigningRequestList
	if err := reader.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	for i := range list.Items {
		if csr := &list.Items[i]; !facts.IsDecided(csr) && policies.Matches(csr.Spec.SignerName) {
			enqueue(ctrl.Request{NamespacedName: client.ObjectKeyFromObject(csr)})
		}
	}
	return nil
}
