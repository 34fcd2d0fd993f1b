// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver"
	"countersign.dev/countersign/approver/policy"
	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/internal/servingcert"
)

// Options of the admission server.
type Options struct {
	// Namespace is the namespace of Countersign. Required.
	Namespace string
	// ClusterDomain is the DNS domain of the cluster, such as "cluster.local". Required.
	ClusterDomain string
	// BindAddress is the host:port to serve on. The host may be empty. Required.
	BindAddress string
	// ApproverUsername is the username of the approver. Warnings are about the permissions of this
	// user. Defaults to the ServiceAccount countersign-approver of Namespace.
	ApproverUsername string
	// OnDenial is the action for a new request that the policies would deny. Required.
	OnDenial OnDenial
	// Audit records approvals. Required.
	Audit *audit.Log

	// CertFile and KeyFile contain the serving certificate and its key, in PEM. They are reloaded when
	// they change. Set both or neither.
	CertFile, KeyFile string
	// ServingSigner is the signerName to request the serving certificate from. Required without files.
	ServingSigner string
	// ServiceName is the Service, in Namespace, that the API server connects to. The serving certificate
	// is issued for it. Required without files.
	ServiceName string
	// ClientAuthentication says whether clients must present a certificate. Required: there is no default.
	ClientAuthentication ClientAuthentication
	// ClientCAFile contains the CA certificates of clients, in PEM. Required with client authentication.
	ClientCAFile string
	// ClientNames are the common names of the clients that are accepted. Empty means all that have a
	// certificate of ClientCAFile.
	ClientNames []string

	// CABundleConfigMap is the ConfigMap, in Namespace, with the CA certificates that the API server
	// trusts. If they do not include the issuer of the serving certificate, another certificate is
	// requested. Required without files.
	CABundleConfigMap string
}

const (
	defaultApprover = "countersign-approver"
	// checkTimeout bounds a readiness check, which waits while the caches are not synced.
	checkTimeout = 500 * time.Millisecond
)

// complete validates the options and sets defaults.
func (o *Options) complete() error {
	if (o.CertFile == "") != (o.KeyFile == "") {
		return errors.New("--tls-cert-file and --tls-private-key-file: set both or neither")
	}
	if o.CertFile == "" && (o.ServingSigner == "" || o.ServiceName == "" || o.CABundleConfigMap == "") {
		return errors.New("without certificate files, --serving-signer, --service-name and --ca-bundle-configmap must be set")
	}
	if o.OnDenial != Warn && o.OnDenial != Reject {
		return fmt.Errorf("--on-denial %q: must be warn or reject", o.OnDenial)
	}
	if o.ApproverUsername == "" {
		o.ApproverUsername = "system:serviceaccount:" + o.Namespace + ":" + defaultApprover
	}
	return nil
}

// servingCertificate returns the options of the serving certificate.
func (o *Options) servingCertificate() servingcert.Options {
	return servingcert.Options{
		CertFile: o.CertFile, KeyFile: o.KeyFile,
		SignerName: o.ServingSigner, DNSNames: []string{o.ServiceName + "." + o.Namespace + ".svc"},
		ConfigMap: types.NamespacedName{Namespace: o.Namespace, Name: o.CABundleConfigMap},
	}
}

// Server is the admission server of one process. Configure it in two steps: before and after the
// manager is created.
type Server struct {
	options     Options
	policies    *policy.Set
	certificate *servingcert.Certificate
	server      *server
}

// New returns a Server. Call ConfigureManager with the options of a manager, and then Setup with the
// manager. The error is about the options, or about the files that they name.
func New(o Options) (*Server, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	s := &Server{options: o, policies: &policy.Set{}}
	_, port, err := net.SplitHostPort(o.BindAddress)
	if err != nil {
		return nil, fmt.Errorf("--webhook-bind-address: %w", err)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return nil, fmt.Errorf("--webhook-bind-address %q: the port must be a number from 1 to 65535", o.BindAddress)
	}
	clients, err := o.clients()
	if err != nil {
		return nil, err
	}
	if s.certificate, err = servingcert.New(o.servingCertificate()); err != nil {
		return nil, fmt.Errorf("reading --tls-cert-file and --tls-private-key-file: %w", err)
	}
	s.server = &server{address: o.BindAddress, tls: &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: s.certificate.Get}, bounds: defaultBounds}
	clients(s.server.tls)
	return s, nil
}

// ConfigureManager sets the cache of the manager.
func (s *Server) ConfigureManager(o *manager.Options) {
	o.LeaderElection = false // every replica serves
	o.Cache = approver.CacheOptions(s.options.Namespace, s.policies)
}

// Setup adds the handlers, the Reviewer, the serving certificate and the readyz checks to the manager.
// The checks fail until the caches are synced, policies have been loaded, and the server has a certificate.
func (s *Server) Setup(ctx context.Context, mgr manager.Manager) error {
	if err := registerMetrics(metrics.Registry, s.options.Audit); err != nil {
		return err
	}
	reviewer, err := approver.SetupReviewer(ctx, mgr, s.policies, approver.Options{Namespace: s.options.Namespace, ClusterDomain: s.options.ClusterDomain})
	if err != nil {
		return fmt.Errorf("setting up the reviewer: %w", err)
	}
	for _, kind := range []client.Object{&corev1.Namespace{}, &v1alpha1.Signer{}} { // for warnings
		if _, err := mgr.GetCache().GetInformer(ctx, kind, cache.BlockUntilSynced(false)); err != nil {
			return fmt.Errorf("watching %T (is its custom resource definition installed?): %w", kind, err)
		}
	}
	if s.server.handler, err = s.handler(mgr, reviewer); err != nil {
		return err
	}
	if s.options.ClientAuthentication == Required {
		clientAuthentication.Set(1)
	} else {
		mgr.GetLogger().Info("clients are not authenticated: any client that reaches the port can request reviews; restrict it to the API server with a NetworkPolicy",
			"address", s.options.BindAddress)
	}
	if err := mgr.Add(s.server); err != nil {
		return fmt.Errorf("adding the server: %w", err)
	}
	if err := s.certificate.Setup(mgr); err != nil {
		return err
	}
	if err := errors.Join(mgr.AddReadyzCheck("certificate", s.checkCertificate(mgr.GetClient())), mgr.AddReadyzCheck("server", s.server.check)); err != nil {
		return fmt.Errorf("adding the readyz checks: %w", err)
	}
	return nil
}

// handler returns the handler of all paths.
func (s *Server) handler(mgr manager.Manager, reviewer reviewer) (http.Handler, error) {
	decoder := admission.NewDecoder(mgr.GetScheme())
	accessReview := access(func(ctx context.Context, r *authorizationv1.SubjectAccessReview) error {
		return mgr.GetClient().Create(ctx, r)
	})
	handlers := []struct {
		path, name string
		handler    admission.Handler
	}{
		{PathApprovalPolicy, "approvalpolicy", &policyHandler{
			decoder: decoder, loader: policy.Loader{Reader: mgr.GetAPIReader(), Namespace: s.options.Namespace},
			cached: mgr.GetClient(), live: mgr.GetAPIReader(), access: accessReview, approver: userOf(s.options.ApproverUsername),
		}},
		{PathRequest, "certificatesigningrequest", &requestHandler{decoder: decoder, reviewer: reviewer, onDenial: s.options.OnDenial}},
		{PathApproval, "approval", &approvalHandler{
			decoder: decoder, reviewer: reviewer, awaitCache: cacheContains(mgr.GetClient()), access: accessReview, log: s.options.Audit,
		}},
	}
	mux := http.NewServeMux()
	for _, h := range handlers {
		handler, err := admission.StandaloneWebhook(&admission.Webhook{Handler: observe(h.name, h.handler)},
			admission.StandaloneOptions{Logger: mgr.GetLogger().WithName("webhook"), MetricsPath: h.path})
		if err != nil {
			return nil, fmt.Errorf("adding the handler of %s: %w", h.path, err)
		}
		mux.Handle(h.path, httpErrors{handler})
	}
	return mux, nil
}

// checkCertificate returns the readiness check of the certificate. It also updates its metric.
func (s *Server) checkCertificate(cached client.Reader) healthz.Checker {
	return func(r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
		defer cancel()
		expires, err := s.certificate.Check(ctx, cached, time.Now())
		if expires.IsZero() {
			certificateExpiry.Set(0)
		} else {
			certificateExpiry.Set(float64(expires.Unix()))
		}
		return err
	}
}
