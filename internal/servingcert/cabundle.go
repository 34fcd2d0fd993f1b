// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package servingcert

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
	// bundleKey is the key of the CA certificates in the ConfigMap.
	bundleKey = "ca.crt"
	// mismatchDelay is the delay until a certificate that clients do not trust is checked again.
	mismatchDelay = time.Minute
)

// Target is an object that holds CA certificates for the clients of the server, its CA bundle.
type Target struct {
	// Object is an empty object of the kind, and Name the name of the one to write. The controller watches
	// it and restores the bundle when it changes.
	Object client.Object
	Name   string
	// Write writes the bundle unless the object holds it already. An object that does not exist is not an
	// error, and is not created.
	Write func(ctx context.Context, c client.Client, bundle []byte) error
}

// ValidatingWebhooks is the caBundle of all webhooks of a ValidatingWebhookConfiguration.
func ValidatingWebhooks(name string) Target {
	return Target{
		Object: &admissionregistrationv1.ValidatingWebhookConfiguration{}, Name: name,
		Write: func(ctx context.Context, c client.Client, bundle []byte) error {
			return writeWebhooks(ctx, c, name, bundle)
		},
	}
}

// bundleReconciler copies the CA certificates of a Signer to a Target. Every replica runs it, and writes
// only if the bundle differs.
type bundleReconciler struct {
	client    client.Client
	configMap types.NamespacedName
	target    Target
	served    func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	renew     func() (bool, error) // nil if the certificate is in files
}

// Reconcile copies the CA certificates. If none of them issued the current certificate, because the CA
// was replaced, it requests a new certificate.
func (r *bundleReconciler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	var published corev1.ConfigMap
	if err := r.client.Get(ctx, r.configMap, &published); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	bundle := []byte(published.Data[bundleKey])
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		log.FromContext(ctx).Info("invalid CA bundle in ConfigMap", "configMap", r.configMap.String(), "key", bundleKey)
		return reconcile.Result{}, nil
	}
	if err := r.target.Write(ctx, r.client, bundle); err != nil {
		return reconcile.Result{}, err
	}
	if r.renew == nil || r.trusts(roots) {
		return reconcile.Result{}, nil
	}
	begun, err := r.renew()
	if begun {
		log.FromContext(ctx).Info("requesting a serving certificate, since the CA bundle does not trust the current one")
	}
	return reconcile.Result{RequeueAfter: mismatchDelay}, err
}

// writeWebhooks patches the caBundle of each webhook that differs.
func writeWebhooks(ctx context.Context, c client.Client, name string, bundle []byte) error {
	var configuration admissionregistrationv1.ValidatingWebhookConfiguration
	if err := c.Get(ctx, types.NamespacedName{Name: name}, &configuration); err != nil {
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
	if err := c.Patch(ctx, &configuration, patch); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("updating caBundle of ValidatingWebhookConfiguration %q: %w", name, err)
	}
	log.FromContext(ctx).Info("updated caBundle", "configuration", name)
	return nil
}

// trusts reports whether one of the roots issued the current certificate. It returns true if there is
// no certificate yet, since its request is pending.
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

// setup adds the controller, which watches the ConfigMap and the target.
func (r *bundleReconciler) setup(mgr manager.Manager) error {
	toOne := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{}}
	})
	named := func(name string) builder.Predicates {
		return builder.WithPredicates(predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetName() == name }))
	}
	err := builder.ControllerManagedBy(mgr).Named("cabundle").
		Watches(r.target.Object, toOne, named(r.target.Name)).
		Watches(&corev1.ConfigMap{}, toOne, named(r.configMap.Name)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1, NeedLeaderElection: new(false)}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("adding the CA bundle controller: %w", err)
	}
	return nil
}
