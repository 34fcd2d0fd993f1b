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
	"k8s.io/apimachinery/pkg/api/equality"
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
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/internal/fairqueue"
	"countersign.dev/countersign/internal/servingcert"
	casource "countersign.dev/countersign/signer/ca/source"
	"countersign.dev/countersign/signer/trust"
)

const (
	// eventSource is the reportingController of Events.
	eventSource = "countersign-signer"

	// minRetry and maxRetry bound the exponential backoff after an error.
	minRetry = 50 * time.Millisecond
	maxRetry = 30 * time.Second

	// signerWorkers is the number of Signers that are reconciled at the same time, so that publishing trust
	// for one does not delay the CA of another.
	signerWorkers = 4

	// reconcileDelay is the time from an event that other users can cause in a loop until the Signer is reconciled: a
	// change of a published object or a namespace, or a request that its CA cannot issue. Further events meanwhile
	// cause no further reconcile.
	reconcileDelay = 500 * time.Millisecond
)

// Options configure the signer.
type Options struct {
	// Namespace holds the Secrets that Signers name. Required.
	Namespace string
	// CADirectory is the parent of the directories that Signers name in spec.ca.file. Empty means that
	// Signers cannot use spec.ca.file.
	CADirectory string
	// Concurrency is the number of requests that are reconciled at the same time. Required.
	Concurrency int
	// WebhookConfiguration is the ValidatingWebhookConfiguration whose caBundle is written, from the key
	// ca.crt of the ConfigMap WebhookCAConfigMap in Namespace. Set both or neither.
	WebhookConfiguration, WebhookCAConfigMap string
	// Audit is the log of decisions. Required.
	Audit *audit.Log
	// Now returns the time at which certificates are issued. Defaults to time.Now.
	Now func() time.Time
	// Registerer registers the metrics. Defaults to the registry of controller-runtime, which accepts them
	// once in a process.
	Registerer prometheus.Registerer
}

// NewScheme returns a scheme with the types that the signer uses.
func NewScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("creating the scheme: %w", err)
	}
	return scheme, nil
}

// Controllers are the controllers of the signer. They run in a manager: call ConfigureManager with its
// options, and Setup with the manager.
type Controllers struct {
	options Options
	signers *registry
}

// New returns the controllers of the signer.
func New(o Options) *Controllers {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Registerer == nil {
		o.Registerer = ctrlmetrics.Registry
	}
	return &Controllers{options: o, signers: newRegistry()}
}

// ConfigureManager sets the options of the manager's cache. The cache does not hold certificate requests:
// see [requests].
func (s *Controllers) ConfigureManager(o *manager.Options) {
	o.Cache.DefaultTransform = cache.TransformStripManagedFields()
	o.Cache.ByObject = map[client.Object]cache.ByObject{
		&corev1.Namespace{}: {Transform: stripMetadata},
	}
	// Reading another kind is an error: it would list and watch all objects of the kind, such as Secrets.
	o.Cache.ReaderFailOnMissingInformer = true
}

// Setup adds the controllers and the readiness check to the manager. Only the leader reconciles; the
// standby replica keeps its caches warm and loads CAs when it becomes the leader. The readiness check
// passes once the caches are synced. A CA that cannot be used is reported in the status of its Signer.
func (s *Controllers) Setup(ctx context.Context, mgr manager.Manager) error {
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
	// Secrets and published objects are watched by name with a client without a cache: the manager's cache
	// would watch all objects of a kind.
	watching, err := client.NewWithWatch(mgr.GetConfig(), client.Options{
		HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
	})
	if err != nil {
		return fmt.Errorf("creating the client that watches by name: %w", err)
	}
	secretChanged, fileChanged, trustChanged := newSignal(), newSignal(), newSignal()
	signerUnfit, signerReady := newSignal(), newSignal()
	secrets := casource.NewSecrets(watching, s.options.Namespace, secretChanged.send)
	if err := mgr.Add(secrets); err != nil {
		return fmt.Errorf("adding the watcher of Secrets: %w", err)
	}
	files := casource.NewFiles(s.options.CADirectory, fileChanged.send)
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
		sources: &casource.Sources{
			Secrets: secrets,
			File:    files,
			Managed: &casource.Managed{
				Secrets: secrets,
				Writer:  &casource.SecretWriter{Client: mgr.GetClient(), Namespace: s.options.Namespace},
				Keys:    casource.SecretKeys{},
				Signers: mgr.GetClient(),
				Events:  recorder,
			},
			Events: recorder,
		},
		trust:   publisher,
		pending: signerReady.send,
		events:  recorder,
		metrics: metrics,
		now:     s.options.Now,
		clock:   newClockGuard(),
	}, secretChanged, fileChanged, trustChanged, signerUnfit); err != nil {
		return fmt.Errorf("setting up the controller of Signers: %w", err)
	}
	if err := s.setupRequests(mgr, &requestReconciler{
		due:     watched.get,
		cached:  mgr.GetClient(),
		live:    mgr.GetAPIReader(),
		status:  mgr.GetClient().Status(),
		signers: s.signers,
		recheck: signerUnfit.send,
		log:     s.options.Audit,
		events:  recorder,
		metrics: metrics,
		now:     s.options.Now,
	}, watched, signerReady); err != nil {
		return fmt.Errorf("setting up the controller of certificate requests: %w", err)
	}
	if s.options.WebhookConfiguration == "" {
		return nil
	}
	bundle := servingcert.CABundle{Namespace: s.options.Namespace, ConfigMap: s.options.WebhookCAConfigMap, Configuration: s.options.WebhookConfiguration}
	return bundle.Setup(mgr, watching)
}

// setupCache starts the watches with the manager, so that a standby replica is synced, too, and adds the
// readiness check.
func (s *Controllers) setupCache(ctx context.Context, mgr manager.Manager, watched *requests) error {
	namespaces, err := informerFor(ctx, mgr, namespaceMetadata())
	if err != nil {
		return err
	}
	signers, err := informerFor(ctx, mgr, &v1alpha1.Signer{})
	if err != nil {
		return err
	}
	followed, err := signers.AddEventHandler(followSigners(ctx, mgr.GetCache(), watched))
	if err != nil {
		return fmt.Errorf("watching Signers: %w", err)
	}
	if err := mgr.AddReadyzCheck("caches", onceSynced(namespaces.HasSynced, followed.HasSynced, watched.Synced)); err != nil {
		return fmt.Errorf("adding the readiness check: %w", err)
	}
	return nil
}

func informerFor(ctx context.Context, mgr manager.Manager, object client.Object) (cache.Informer, error) {
	informer, err := mgr.GetCache().GetInformer(ctx, object, cache.BlockUntilSynced(false))
	if err != nil {
		return nil, fmt.Errorf("watching %T (is its custom resource definition installed?): %w", object, err)
	}
	return informer, nil
}

func namespaceMetadata() client.Object {
	namespace := &metav1.PartialObjectMetadata{}
	namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	return namespace
}

// followSigners returns the handler that watches the requests of each signerName that a Signer has.
func followSigners(ctx context.Context, signers client.Reader, watched *requests) toolscache.ResourceEventHandler {
	follow := func() {
		var list v1alpha1.SignerList
		if err := signers.List(ctx, &list); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "listing Signers")
			return
		}
		signerNames := map[string]bool{}
		for i := range list.Items {
			signerNames[list.Items[i].Spec.SignerName] = true
		}
		watched.Keep(signerNames)
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { follow() },
		UpdateFunc: func(before, after any) { // spec.signerName differs if the Signer was deleted and created again
			if signerNameOf(before) != signerNameOf(after) {
				follow()
			}
		},
		DeleteFunc: func(any) { follow() },
	}
}

func signerNameOf(object any) string {
	if signer, ok := object.(*v1alpha1.Signer); ok {
		return signer.Spec.SignerName
	}
	return ""
}

// onceSynced returns a check that passes permanently once all caches have been synced. A Signer that is
// created later and whose requests cannot be watched does not make the replica unready.
func onceSynced(synced ...func() bool) healthz.Checker {
	var ready atomic.Bool
	return func(*http.Request) error {
		if ready.Load() {
			return nil
		}
		for _, isSynced := range synced {
			if !isSynced() {
				return errors.New("caches are not synced")
			}
		}
		ready.Store(true)
		return nil
	}
}

// setupSigners adds the controller of Signers. A Signer is requeued when one of these changes: a Signer
// of its signerName, the Secret or file of its CA, a namespace that it publishes in, or an object that it
// publishes. It is also requeued when a request finds that its CA cannot issue.
func (s *Controllers) setupSigners(mgr manager.Manager, r *signerReconciler, secretChanged, fileChanged, trustChanged, signerUnfit signal) error {
	where := func(ctx context.Context, matches func(*v1alpha1.Signer) bool) []reconcile.Request {
		return signersWhere(ctx, mgr.GetClient(), matches)
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
	inNamespace := delayed(func(ctx context.Context, o client.Object) []reconcile.Request {
		return where(ctx, func(s *v1alpha1.Signer) bool { return trust.Selects(s.Spec.Trust.ConfigMap, o.GetLabels()) })
	})
	itself := func(_ context.Context, signer string) []reconcile.Request {
		return []reconcile.Request{requestFor(signer)}
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("signer").
		// The status is not ignored: it holds the state of a rotation, and can be restored from a backup.
		Watches(&v1alpha1.Signer{}, sameSignerName, builder.WithPredicates(predicate.Funcs{UpdateFunc: isInput})).
		WatchesMetadata(&corev1.Namespace{}, inNamespace, builder.WithPredicates(predicate.Funcs{
			UpdateFunc: func(e event.UpdateEvent) bool { return !maps.Equal(e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels()) },
		})).
		WatchesRawSource(secretChanged.source(func(ctx context.Context, secret string) []reconcile.Request {
			return where(ctx, func(s *v1alpha1.Signer) bool { return slices.Contains(casource.SecretsOf(s.Spec.CA), secret) })
		})).
		WatchesRawSource(fileChanged.source(func(ctx context.Context, directory string) []reconcile.Request {
			return where(ctx, func(s *v1alpha1.Signer) bool { return s.Spec.CA.File != nil && s.Spec.CA.File.Directory == directory })
		})).
		WatchesRawSource(trustChanged.sourceAfter(reconcileDelay, itself)).
		WatchesRawSource(signerUnfit.sourceAfter(reconcileDelay, itself)).
		WithOptions(controller.Options{MaxConcurrentReconciles: signerWorkers, RateLimiter: rateLimiter[reconcile.Request]()}).
		Complete(r)
}

// isInput reports whether a Signer changed in more than its conditions, which are only output: their messages contain
// errors, which can differ each time.
func isInput(e event.UpdateEvent) bool {
	before, ok := e.ObjectOld.(*v1alpha1.Signer)
	after, isSigner := e.ObjectNew.(*v1alpha1.Signer)
	if !ok || !isSigner {
		return true
	}
	input := func(s *v1alpha1.Signer) *v1alpha1.Signer {
		reduced := *s
		reduced.ResourceVersion, reduced.ManagedFields, reduced.Status.Conditions = "", nil, nil
		return &reduced
	}
	return !equality.Semantic.DeepEqual(input(before), input(after))
}

// delayed returns a handler that adds the requests for an object to the queue after [reconcileDelay].
func delayed(requests func(context.Context, client.Object) []reconcile.Request) handler.EventHandler {
	type workQueue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	enqueue := func(ctx context.Context, o client.Object, queue workQueue) {
		for _, request := range requests(ctx, o) {
			queue.AddAfter(request, reconcileDelay)
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, queue workQueue) { enqueue(ctx, e.Object, queue) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, queue workQueue) {
			enqueue(ctx, e.ObjectOld, queue)
			enqueue(ctx, e.ObjectNew, queue)
		},
	}
}

// signersWhere returns the Signers that match. matches must not modify them.
func signersWhere(ctx context.Context, cached client.Reader, matches func(*v1alpha1.Signer) bool) []reconcile.Request {
	var list v1alpha1.SignerList
	if err := cached.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "listing Signers")
	}
	var requests []reconcile.Request
	for i := range list.Items {
		if matches(&list.Items[i]) {
			requests = append(requests, requestFor(list.Items[i].Name))
		}
	}
	return requests
}

// setupRequests adds the controller of requests. A due request is requeued when it changes and when a
// Signer of its signerName becomes ready.
func (s *Controllers) setupRequests(mgr manager.Manager, r *requestReconciler, watched *requests, signerReady signal) error {
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

// signal sends names to the queue of a controller.
type signal chan event.TypedGenericEvent[string]

func newSignal() signal { return make(signal) }

// send blocks until the controller has received the name, or ctx ends.
func (s signal) send(ctx context.Context, name string) {
	select {
	case s <- event.TypedGenericEvent[string]{Object: name}:
	case <-ctx.Done():
	}
}

// source returns a source that adds the requests of each name to the queue.
func (s signal) source(requests func(ctx context.Context, name string) []reconcile.Request) source.Source {
	return s.sourceAfter(0, requests)
}

// sourceAfter returns a source that adds the requests of each name to the queue after a delay.
func (s signal) sourceAfter(delay time.Duration, requests func(ctx context.Context, name string) []reconcile.Request) source.Source {
	return source.Channel(s, handler.TypedFuncs[string, reconcile.Request]{
		GenericFunc: func(ctx context.Context, e event.TypedGenericEvent[string], queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			for _, request := range requests(ctx, e.Object) {
				queue.AddAfter(request, delay)
			}
		},
	})
}
