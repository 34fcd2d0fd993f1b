// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package servingcert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// distrustedDelay is the delay until a certificate that clients do not trust is checked again.
const distrustedDelay = time.Minute

// distrustReconciler requests another certificate if none of the published CA certificates issued the
// current one, because the CA was replaced. Every replica runs it.
type distrustReconciler struct {
	client    client.Reader
	configMap types.NamespacedName
	served    func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	renew     func() (bool, error)
}

// Reconcile implements reconcile.Reconciler.
func (r *distrustReconciler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	var published corev1.ConfigMap
	if err := r.client.Get(ctx, r.configMap, &published); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(published.Data[bundleKey])) || r.trusts(roots) {
		return reconcile.Result{}, nil
	}
	begun, err := r.renew()
	if begun {
		log.FromContext(ctx).Info("requesting a serving certificate, since the CA bundle does not trust the current one")
	}
	return reconcile.Result{RequeueAfter: distrustedDelay}, err
}

// trusts reports whether one of the roots issued the current certificate. It returns true if there is
// no certificate yet, since its request is pending.
func (r *distrustReconciler) trusts(roots *x509.CertPool) bool {
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

// setup adds the controller, which watches the ConfigMap.
func (r *distrustReconciler) setup(mgr manager.Manager) error {
	err := builder.ControllerManagedBy(mgr).Named("servingcertificate").
		For(&corev1.ConfigMap{}, builder.WithPredicates(predicate.NewPredicateFuncs(func(o client.Object) bool {
			return client.ObjectKeyFromObject(o) == r.configMap
		}))).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1, NeedLeaderElection: new(false)}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("adding the controller of the serving certificate: %w", err)
	}
	return nil
}
