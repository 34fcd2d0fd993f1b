// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package servingcert

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"countersign.dev/countersign/internal/watchset"
)

// bundleKey is the key of the CA certificates in the ConfigMap.
const bundleKey = "ca.crt"

// CABundle copies the CA certificates of a ConfigMap to the caBundle of webhooks. The process of the
// webhook must not do that: the permission to patch its configuration would let it add rules, and receive
// every object that is written to the API server.
type CABundle struct {
	// Namespace of the ConfigMap, and of the Service that the webhooks name. The caBundle of webhooks with
	// a URL or with a Service of another namespace is never changed.
	Namespace string
	// ConfigMap is the name of the ConfigMap whose key ca.crt has the CA certificates.
	ConfigMap string
	// Configuration is the name of the ValidatingWebhookConfiguration.
	Configuration string
}

// Setup adds a controller named "cabundle" to the manager. It runs in the leader, and watches the two
// objects by name.
func (b CABundle) Setup(mgr manager.Manager, watching client.WithWatch) error {
	changed := make(chan event.GenericEvent)
	send := func(ctx context.Context) {
		select {
		case changed <- event.GenericEvent{}:
		case <-ctx.Done():
		}
	}
	configMaps := watchset.New(watchset.Options[*corev1.ConfigMap, struct{}]{
		Object: &corev1.ConfigMap{}, Source: watchset.ByName(watching, &corev1.ConfigMapList{}, b.Namespace), Backoff: watchset.ByNameBackoff(),
		Keep:    func(*corev1.ConfigMap) *struct{} { return &struct{}{} },
		Changed: func(ctx context.Context, _ string, _ []watchset.Change[struct{}]) { send(ctx) },
	})
	configurations := watchset.New(watchset.Options[*admissionregistrationv1.ValidatingWebhookConfiguration, struct{}]{
		Object: &admissionregistrationv1.ValidatingWebhookConfiguration{}, Backoff: watchset.ByNameBackoff(),
		Source:  watchset.ByName(watching, &admissionregistrationv1.ValidatingWebhookConfigurationList{}, ""),
		Keep:    func(*admissionregistrationv1.ValidatingWebhookConfiguration) *struct{} { return &struct{}{} },
		Changed: func(ctx context.Context, _ string, _ []watchset.Change[struct{}]) { send(ctx) },
	})
	configMaps.Keep(map[string]bool{b.ConfigMap: true})
	configurations.Keep(map[string]bool{b.Configuration: true})
	for _, runnable := range []manager.Runnable{configMaps, configurations} {
		if err := mgr.Add(runnable); err != nil {
			return fmt.Errorf("adding the watches of the CA bundle: %w", err)
		}
	}
	err := builder.ControllerManagedBy(mgr).Named("cabundle").
		WatchesRawSource(source.Channel(changed, handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
			return []reconcile.Request{{}}
		}))).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: 1,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](50*time.Millisecond, 30*time.Second),
		}).
		Complete(&bundleReconciler{options: b, live: mgr.GetAPIReader(), client: mgr.GetClient()})
	if err != nil {
		return fmt.Errorf("adding the CA bundle controller: %w", err)
	}
	return nil
}

// bundleReconciler writes only if the bundle differs.
type bundleReconciler struct {
	options CABundle
	live    client.Reader
	client  client.Writer
}

// Reconcile copies the CA certificates. A ConfigMap or configuration that does not exist is not an error.
func (r *bundleReconciler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	var published corev1.ConfigMap
	configMap := types.NamespacedName{Namespace: r.options.Namespace, Name: r.options.ConfigMap}
	if err := r.live.Get(ctx, configMap, &published); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	bundle := []byte(published.Data[bundleKey])
	if !x509.NewCertPool().AppendCertsFromPEM(bundle) {
		log.FromContext(ctx).Info("invalid CA bundle in ConfigMap", "configMap", configMap.String(), "key", bundleKey)
		return reconcile.Result{}, nil
	}
	return reconcile.Result{}, r.write(ctx, bundle)
}

// write patches the caBundle of each webhook that calls a Service of the namespace and differs. The patch
// contains no other field.
func (r *bundleReconciler) write(ctx context.Context, bundle []byte) error {
	name := r.options.Configuration
	var configuration admissionregistrationv1.ValidatingWebhookConfiguration
	if err := r.live.Get(ctx, types.NamespacedName{Name: name}, &configuration); err != nil {
		return client.IgnoreNotFound(err)
	}
	before := configuration.DeepCopy()
	differs := false
	for i := range configuration.Webhooks {
		clientConfig := &configuration.Webhooks[i].ClientConfig
		ours := clientConfig.Service != nil && clientConfig.Service.Namespace == r.options.Namespace
		if ours && !bytes.Equal(clientConfig.CABundle, bundle) {
			clientConfig.CABundle, differs = bundle, true
		}
	}
	if !differs {
		return nil
	}
	patch := client.StrategicMergeFrom(before, client.MergeFromWithOptimisticLock{})
	if err := r.client.Patch(ctx, &configuration, patch); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("updating caBundle of ValidatingWebhookConfiguration %q: %w", name, err)
	}
	log.FromContext(ctx).Info("updated caBundle", "configuration", name)
	return nil
}
