// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const (
	// bundleKey is where the published CA certificates stand in their ConfigMap.
	bundleKey = "ca.crt"
	// mismatchDelay is how soon a certificate that the API server cannot trust is looked at again.
	mismatchDelay = time.Minute
)

// bundleReconciler keeps the caBundle of the webhook configuration what the Signer has published. Every
// replica does, and none of them writes what is there already.
type bundleReconciler struct {
	client        client.Client
	configMap     types.NamespacedName
	configuration string
	// served is the certificate that the API server is to trust.
	served func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// renew asks for another one, unless one is being asked for; nil if that is not ours to do.
	renew func() (bool, error)
}

// Reconcile copies the CA certificates. If the certificate that is served was not issued by one of
// them, because the CA was replaced, another is asked for.
func (r *bundleReconciler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	var published corev1.ConfigMap
	if err := r.client.Get(ctx, r.configMap, &published); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	bundle := []byte(published.Data[bundleKey])
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		log.FromContext(ctx).Info("the published CA certificates cannot be used", "configMap", r.configMap.String(), "key", bundleKey)
		return reconcile.Result{}, nil
	}
	if err := r.write(ctx, bundle); err != nil {
		return reconcile.Result{}, err
	}
	if r.renew == nil || r.trusts(roots) {
		return reconcile.Result{}, nil
	}
	asked, err := r.renew()
	if asked {
		log.FromContext(ctx).Info("the serving certificate is not by the published CA: asked for another")
	}
	return reconcile.Result{RequeueAfter: mismatchDelay}, err
}

// write patches the configuration if it differs. One that does not exist is nobody's to make here.
func (r *bundleReconciler) write(ctx context.Context, bundle []byte) error {
	var configuration admissionregistrationv1.ValidatingWebhookConfiguration
	if err := r.client.Get(ctx, types.NamespacedName{Name: r.configuration}, &configuration); err != nil {
		return client.IgnoreNotFound(err)
	}
	before := configuration.DeepCopy()
	differs := false
	for i := range configuration.Webhooks {
		clientConfig := &configuration.Webhooks[i].ClientConfig
		if !bytes.Equal(clientConfig.CABundle, bundle) {
			clientConfig.CABundle, differs = bundle, true
		}
	}
	if !differs {
		return nil
	}
	patch := client.StrategicMergeFrom(before, client.MergeFromWithOptimisticLock{})
	if err := r.client.Patch(ctx, &configuration, patch); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("writing the caBundle of %s: %w", r.configuration, err)
	}
	log.FromContext(ctx).Info("the caBundle is what the Signer has published", "configuration", r.configuration)
	return nil
}

// trusts says whether the certificate that is served is by one of the roots. None at all is no
// reason to ask for another: one is being asked for.
func (r *bundleReconciler) trusts(roots *x509.CertPool) bool {
	served, err := r.served(nil)
	if err != nil {
		return true
	}
	leaf, err := leafOf(served)
	if err != nil {
		return false
	}
	intermediates := x509.NewCertPool()
	for _, der := range served.Certificate[1:] {
		if issuer, err := x509.ParseCertificate(der); err == nil {
			intermediates.AddCert(issuer)
		}
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return err == nil
}

// setup has the bundle reconciled when either of the two objects changes.
func (r *bundleReconciler) setup(mgr manager.Manager) error {
	toOne := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{}}
	})
	named := func(name string) builder.Predicates {
		return builder.WithPredicates(predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetName() == name }))
	}
	err := builder.ControllerManagedBy(mgr).Named("cabundle").
		Watches(&admissionregistrationv1.ValidatingWebhookConfiguration{}, toOne, named(r.configuration)).
		Watches(&corev1.ConfigMap{}, toOne, named(r.configMap.Name)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1, NeedLeaderElection: new(false)}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("adding the controller of the caBundle: %w", err)
	}
	return nil
}
