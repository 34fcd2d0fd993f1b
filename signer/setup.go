// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/internal/fairqueue"
	"countersign.dev/countersign/signer/ca"
	"countersign.dev/countersign/signer/trust"
)

const (
	// eventSource is the reportingController of Events.
	eventSource = "countersign-signer"

	// A fault of the API server is retried soon, and for ever, at a pace that does not add to it.
	minRetry = 50 * time.Millisecond
	maxRetry = 30 * time.Second

	signerWorkers = 4 // publishing trust for one Signer must not keep back the CA of another
)

// Options of the signer.
type Options struct {
	// Namespace that holds the Secrets Signers name. Required.
	Namespace string
	// CADirectory is the folder above those that Signers name in spec.ca.file; "" if there are none.
	CADirectory string
	// Concurrency is how many requests are worked on at a time. Required.
	Concurrency int
	// Audit is where decisions are recorded. Required.
	Audit *audit.Log
	// Now is the clock certificates are issued by; nil means time.Now.
	Now func() time.Time
	// Registerer gets the metrics; nil means controller-runtime's registry, which takes them once.
	Registerer prometheus.Registerer
}

// NewScheme returns a scheme with every type the signer handles.
func NewScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("making the scheme: %w", err)
	}
	return scheme, nil
}

// Signer is the signer of one process, to be configured in two steps around the making of a manager.
type Signer struct {
	options Options
	signers *registry
}

// New makes a Signer. Call ConfigureManager with the options of a manager, and then Setup with the manager.
func New(o Options) *Signer {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Registerer == nil {
		o.Registerer = ctrlmetrics.Registry
	}
	return &Signer{options: o, signers: newRegistry()}
}

// ConfigureManager sets what the manager's cache keeps. Requests are none of it: see [requests].
func (s *Signer) ConfigureManager(o *manager.Options) {
	o.Cache.DefaultTransform = cache.TransformStripManagedFields()
	o.Cache.ByObject = map[client.Object]cache.ByObject{
		&corev1.Namespace{}: {Transform: stripMetadata},
	}
	// A read of anything else from the cache is a slip, which would make it list and watch all of a
	// kind; Secrets, for one, or certificate requests.
	o.Cache.ReaderFailOnMissingInformer = true
}

// Setup adds the controllers and the readyz check to the manager. All work is done by the leader; a
// standby keeps its caches warm, and loads CAs when it takes over. Ready means that the
// caches are synced: a CA that is broken shows in the status of its Signer, not here.
func (s *Signer) Setup(ctx context.Context, mgr manager.Manager) error {
	metrics, err := newMetrics(s.options.Registerer)
	if err != nil {
		return err
	}
	if err := s.options.Registerer.Register(s.options.Audit.Metrics()); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	bySignerName, err := requestsBySignerName(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return err
	}
	watched := newRequests(bySignerName)
	if err := mgr.Add(watched); err != nil {
		return fmt.Errorf("adding the watcher of certificate requests: %w", err)
	}
	if err := s.setupCache(ctx, mgr, watched); err != nil {
		return err
	}
	// Watches Secrets and what is published, name by name, with a client of its own: the manager's cache would watch all of a kind.
	watching, err := client.NewWithWatch(mgr.GetConfig(), client.Options{
		HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
	})
	if err != nil {
		return fmt.Errorf("making the client that watches by name: %w", err)
	}
	secretChanged, fileChanged, trustChanged := newSignal(), newSignal(), newSignal()
	signerDue, signerReady := newSignal(), newSignal()
	secrets := ca.NewWatcher(watching, s.options.Namespace, secretChanged.send)
	if err := mgr.Add(secrets); err != nil {
		return fmt.Errorf("adding the watcher of Secrets: %w", err)
	}
	files := ca.NewFiles(s.options.CADirectory, fileChanged.send)
	if err := mgr.Add(files); err != nil {
		return fmt.Errorf("adding the watcher of files: %w", err)
	}
	publisher := trust.New(watching, mgr.GetClient(), trustChanged.send)
	if err := mgr.Add(publisher); err != nil {
		return fmt.Errorf("adding the publisher of trust: %w", err)
	}
	recorder := mgr.GetEventRecorder(eventSource)

	if err := s.setupSigners(mgr, &signerReconciler{
		cached:  mgr.GetClient(),
		live:    mgr.GetAPIReader(),
		status:  mgr.GetClient().Status(),
		signers: s.signers,
		sources: &sources{
			secrets: secrets,
			files:   files,
			store:   &ca.Store{Client: mgr.GetClient(), Namespace: s.options.Namespace},
			signers: mgr.GetClient(),
			events:  recorder,
		},
		trust:   publisher,
		pending: signerReady.send,
		events:  recorder,
		metrics: metrics,
		now:     s.options.Now,
	}, secretChanged, fileChanged, trustChanged, signerDue); err != nil {
		return fmt.Errorf("setting up the controller of Signers: %w", err)
	}
	if err := s.setupRequests(mgr, &requestReconciler{
		due:     watched.get,
		live:    mgr.GetAPIReader(),
		status:  mgr.GetClient().Status(),
		signers: s.signers,
		recheck: signerDue.send,
		log:     s.options.Audit,
		events:  recorder,
		metrics: metrics,
		now:     s.options.Now,
	}, watched, signerReady); err != nil {
		return fmt.Errorf("setting up the controller of certificate requests: %w", err)
	}
	return nil
}

// setupCache starts to watch with the manager, not with the leader, and ties readyz to it. Once all has been
// synced it is ready for good: what a Signer made later lacks must not take the others' place to work from them.
func (s *Signer) setupCache(ctx context.Context, mgr manager.Manager, watched *requests) error {
	informerOf := func(kind client.Object) (cache.Informer, error) {
		informer, err := mgr.GetCache().GetInformer(ctx, kind, cache.BlockUntilSynced(false))
		if err != nil {
			return nil, fmt.Errorf("watching %T (is its custom resource definition installed?): %w", kind, err)
		}
		return informer, nil
	}
	meta := &metav1.PartialObjectMetadata{}
	meta.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	namespaces, err := informerOf(meta)
	if err != nil {
		return err
	}
	signers, err := informerOf(&v1alpha1.Signer{})
	if err != nil {
		return err
	}
	follow := func() {
		var list v1alpha1.SignerList
		if err := mgr.GetCache().List(ctx, &list); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "listing Signers") // from a cache that has one to tell of
			return
		}
		signerNames := map[string]bool{}
		for i := range list.Items {
			signerNames[list.Items[i].Spec.SignerName] = true
		}
		watched.Keep(signerNames)
	}
	followed, err := signers.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { follow() },
		UpdateFunc: func(before, after any) { // of another signerName only if it was deleted and made again
			if signerNameOf(before) != signerNameOf(after) {
				follow()
			}
		},
		DeleteFunc: func(any) { follow() },
	})
	if err != nil {
		return fmt.Errorf("following the Signers: %w", err)
	}
	var ready atomic.Bool
	err = mgr.AddReadyzCheck("caches", func(*http.Request) error {
		if ready.Load() || namespaces.HasSynced() && followed.HasSynced() && watched.Synced() {
			ready.Store(true)
			return nil
		}
		return errors.New("caches are not synced")
	})
	if err != nil {
		return fmt.Errorf("adding the readyz check: %w", err)
	}
	return nil
}

func signerNameOf(object any) string {
	if signer, ok := object.(*v1alpha1.Signer); ok {
		return signer.Spec.SignerName
	}
	return ""
}

// setupSigners has a Signer reconciled when it, another of its signerName, what its CA is in, a namespace
// it publishes in or what it publishes changes, and when a request found its CA unfit.
func (s *Signer) setupSigners(mgr manager.Manager, r *signerReconciler, secretChanged, fileChanged, trustChanged, signerDue signal) error {
	where := func(ctx context.Context, matches func(*v1alpha1.Signer) bool) []reconcile.Request {
		var list v1alpha1.SignerList
		if err := mgr.GetClient().List(ctx, &list); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "listing Signers") // from a cache that is synced
		}
		var requests []reconcile.Request
		for i := range list.Items {
			if matches(&list.Items[i]) {
				requests = append(requests, requestFor(list.Items[i].Name))
			}
		}
		return requests
	}
	sameSignerName := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		changed, ok := o.(*v1alpha1.Signer)
		if !ok {
			return nil
		}
		return append(where(ctx, func(s *v1alpha1.Signer) bool {
			return s.Spec.SignerName == changed.Spec.SignerName
		}), requestFor(changed.Name))
	})
	inNamespace := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		return where(ctx, func(s *v1alpha1.Signer) bool { return trust.Selects(s.Spec.Trust.ConfigMap, o.GetLabels()) })
	})
	itself := func(_ context.Context, signer string) []reconcile.Request {
		return []reconcile.Request{requestFor(signer)}
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("signer").
		// Also when its status changes: it is the record, and somebody may have restored it.
		Watches(&v1alpha1.Signer{}, sameSignerName).
		WatchesMetadata(&corev1.Namespace{}, inNamespace, builder.WithPredicates(predicate.Funcs{
			UpdateFunc: func(e event.UpdateEvent) bool { return !maps.Equal(e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels()) },
			DeleteFunc: func(event.DeleteEvent) bool { return false },
		})).
		WatchesRawSource(secretChanged.source(func(ctx context.Context, secret string) []reconcile.Request {
			return where(ctx, func(s *v1alpha1.Signer) bool { return slices.Contains(secretsOf(s), secret) })
		})).
		WatchesRawSource(fileChanged.source(func(ctx context.Context, directory string) []reconcile.Request {
			return where(ctx, func(s *v1alpha1.Signer) bool { return s.Spec.CA.File != nil && s.Spec.CA.File.Directory == directory })
		})).
		WatchesRawSource(trustChanged.source(itself)).
		WatchesRawSource(signerDue.source(itself)).
		WithOptions(controller.Options{MaxConcurrentReconciles: signerWorkers, RateLimiter: rateLimiter[reconcile.Request]()}).
		Complete(r)
}

// setupRequests has a request reconciled when it changes and is due by a Signer that is ready, and
// when the Signer of a request that is due becomes ready.
func (s *Signer) setupRequests(mgr manager.Manager, r *requestReconciler, watched *requests, signerReady signal) error {
	type workQueue = workqueue.TypedRateLimitingInterface[fairqueue.Item]
	return builder.TypedControllerManagedBy[fairqueue.Item](mgr).
		Named("certificatesigningrequest").
		WatchesRawSource(source.TypedFunc[fairqueue.Item](func(_ context.Context, queue workQueue) error {
			watched.notify(func(csr *certificatesv1.CertificateSigningRequest) {
				if s.signers.get(csr.Spec.SignerName) != nil {
					queue.Add(fairqueue.ItemOf(csr))
				}
			})
			return nil
		})).
		WatchesRawSource(source.TypedChannel(signerReady, handler.TypedFuncs[string, fairqueue.Item]{
			GenericFunc: func(_ context.Context, e event.TypedGenericEvent[string], queue workQueue) {
				for _, csr := range watched.List(e.Object) {
					queue.Add(fairqueue.ItemOf(csr))
				}
			},
		})).
		WithOptions(controller.TypedOptions[fairqueue.Item]{
			MaxConcurrentReconciles: s.options.Concurrency, RateLimiter: rateLimiter[fairqueue.Item](), NewQueue: fairqueue.New,
		}).
		Complete(r)
}

func rateLimiter[T comparable]() workqueue.TypedRateLimiter[T] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[T](minRetry, maxRetry)
}

func requestFor(name string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Name: name}}
}

// signal brings names from one part of the process to the queue of a controller.
type signal chan event.TypedGenericEvent[string]

func newSignal() signal { return make(signal) }

// send waits until the controller has taken the name, or ctx ends.
func (s signal) send(ctx context.Context, name string) {
	select {
	case s <- event.TypedGenericEvent[string]{Object: name}:
	case <-ctx.Done():
	}
}

// source is what the controller watches: each name stands for the requests that it maps to.
func (s signal) source(requests func(ctx context.Context, name string) []reconcile.Request) source.Source {
	return source.Channel(s, handler.TypedFuncs[string, reconcile.Request]{
		GenericFunc: func(ctx context.Context, e event.TypedGenericEvent[string], queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			for _, request := range requests(ctx, e.Object) {
				queue.Add(request)
			}
		},
	})
}
