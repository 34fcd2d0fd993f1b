// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver"
	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/internal/servingcert"
)

// Options of the admission server.
type Options struct {
	// Namespace that Countersign runs in. Required.
	Namespace string
	// ClusterDomain is the cluster's DNS domain, such as "cluster.local". Required.
	ClusterDomain string
	// BindAddress is host:port to serve on; the host may be empty. Required.
	BindAddress string
	// ApproverUsername is who approves by the policies; empty means the ServiceAccount
	// countersign-approver of Namespace. Warnings are about what it may do.
	ApproverUsername string
	// OnDenial is what becomes of a new request that policy would deny. Required.
	OnDenial OnDenial
	// Audit is where approvals are recorded. Required.
	Audit *audit.Log

	// CertFile and KeyFile hold the serving certificate and its key, in PEM. They are read again when
	// they change. Both or neither.
	CertFile, KeyFile string
	// ServingSigner is the signerName to ask for a certificate of if there are no files.
	ServingSigner string
	// ServiceName is the Service in Namespace that the API server reaches this server by: the
	// certificate is for it.
	ServiceName string
	// ClientCAFile holds CA certificates, in PEM; if set, who calls must have a client certificate by one
	// of them.
	ClientCAFile string

	// Configuration is the ValidatingWebhookConfiguration whose caBundle is kept.
	Configuration string
	// CABundleConfigMap, in Namespace, has the CA certificates to trust. Empty means the Signer's of
	// deploy/signers/webhook, or, if the certificate is in files, that the caBundle is left alone.
	CABundleConfigMap string
}

const (
	defaultApprover  = "countersign-approver"
	defaultConfigMap = "countersign-webhook-ca"
)

// complete checks the options, and sets those that follow from others.
func (o *Options) complete() error {
	if (o.CertFile == "") != (o.KeyFile == "") {
		return errors.New("--tls-cert-file and --tls-private-key-file: set both or neither")
	}
	if o.CertFile == "" && (o.ServingSigner == "" || o.ServiceName == "") {
		return errors.New("without certificate files, --serving-signer and --service-name must be set")
	}
	if o.OnDenial != Warn && o.OnDenial != Reject {
		return fmt.Errorf("--on-denial %q: want warn or reject", o.OnDenial)
	}
	if o.ApproverUsername == "" {
		o.ApproverUsername = "system:serviceaccount:" + o.Namespace + ":" + defaultApprover
	}
	if o.CABundleConfigMap == "" && o.CertFile == "" {
		o.CABundleConfigMap = defaultConfigMap
	}
	return nil
}

func (o *Options) servingCertificate() servingcert.Options {
	serving := servingcert.Options{
		CertFile: o.CertFile, KeyFile: o.KeyFile,
		SignerName: o.ServingSigner, DNSNames: []string{o.ServiceName + "." + o.Namespace + ".svc"},
	}
	if o.CABundleConfigMap != "" {
		serving.ConfigMap = types.NamespacedName{Namespace: o.Namespace, Name: o.CABundleConfigMap}
		serving.CABundle = servingcert.ValidatingWebhooks(o.Configuration)
	}
	return serving
}

// Server is the admission server of one process, to be configured in two steps around the making of a manager.
type Server struct {
	options     Options
	policies    *approver.PolicySet
	host        string
	port        int
	clientCAs   *x509.CertPool
	certificate *servingcert.Certificate
}

// New makes a Server. Call ConfigureManager with the options of a manager, and then Setup with the
// manager. The error says what is wrong with the options, or with the files they name.
func New(o Options) (*Server, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	s := &Server{options: o, policies: &approver.PolicySet{}}
	host, port, err := net.SplitHostPort(o.BindAddress)
	if err != nil {
		return nil, fmt.Errorf("--webhook-bind-address: %w", err)
	}
	s.host = host
	if s.port, err = strconv.Atoi(port); err != nil || s.port < 1 || s.port > 65535 {
		return nil, fmt.Errorf("--webhook-bind-address %q: the port must be a number from 1 to 65535", o.BindAddress)
	}
	if o.ClientCAFile != "" {
		raw, err := os.ReadFile(o.ClientCAFile)
		if err != nil {
			return nil, fmt.Errorf("--client-ca-file: %w", err)
		}
		if s.clientCAs = x509.NewCertPool(); !s.clientCAs.AppendCertsFromPEM(raw) {
			return nil, fmt.Errorf("--client-ca-file %s: there is no certificate in it", o.ClientCAFile)
		}
	}
	if s.certificate, err = servingcert.New(o.servingCertificate()); err != nil {
		return nil, fmt.Errorf("reading --tls-cert-file and --tls-private-key-file: %w", err)
	}
	return s, nil
}

// ConfigureManager sets what the manager's cache keeps, and how it serves.
func (s *Server) ConfigureManager(o *manager.Options) {
	o.LeaderElection = false // every replica answers
	o.Cache = approver.CacheOptions(s.options.Namespace, s.policies)
	o.Cache.ByObject[&admissionregistrationv1.ValidatingWebhookConfiguration{}] = cache.ByObject{
		Field: fields.OneTermEqualSelector("metadata.name", s.options.Configuration), // RBAC allows that one name
	}
	o.WebhookServer = webhook.NewServer(webhook.Options{Host: s.host, Port: s.port, TLSOpts: []func(*tls.Config){func(c *tls.Config) {
		c.MinVersion = tls.VersionTLS13
		c.GetCertificate = s.certificate.Get
		if s.clientCAs != nil {
			c.ClientCAs, c.ClientAuth = s.clientCAs, tls.RequireAndVerifyClientCert
		}
	}}})
}

// Setup adds to the manager the handlers, what they rest on, the serving certificate and the readyz
// checks. Ready means that caches are synced, policies have been loaded, and there is a certificate.
func (s *Server) Setup(ctx context.Context, mgr manager.Manager) error {
	if err := registerMetrics(metrics.Registry, s.options.Audit); err != nil {
		return err
	}
	judge, err := approver.SetupJudge(ctx, mgr, s.policies, approver.Options{Namespace: s.options.Namespace, ClusterDomain: s.options.ClusterDomain})
	if err != nil {
		return fmt.Errorf("setting up the judge: %w", err)
	}
	for _, kind := range []client.Object{&corev1.Namespace{}, &v1alpha1.Signer{}} { // for warnings
		if _, err := mgr.GetCache().GetInformer(ctx, kind, cache.BlockUntilSynced(false)); err != nil {
			return fmt.Errorf("watching %T (is its custom resource definition installed?): %w", kind, err)
		}
	}
	s.register(mgr, judge)
	if err := s.certificate.Setup(mgr); err != nil {
		return err
	}
	err = mgr.AddReadyzCheck("certificate", s.checkCertificate)
	if err != nil {
		return fmt.Errorf("adding the readyz check: %w", err)
	}
	return nil
}

// register has the handlers answer.
func (s *Server) register(mgr manager.Manager, judge *approver.Judge) {
	decoder := admission.NewDecoder(mgr.GetScheme())
	review := access(func(ctx context.Context, r *authorizationv1.SubjectAccessReview) error {
		return mgr.GetClient().Create(ctx, r)
	})
	handlers := []struct {
		path, name string
		handler    admission.Handler
	}{
		{PathApprovalPolicy, "approvalpolicy", &policyHandler{
			decoder: decoder, loader: approver.Loader{Reader: mgr.GetAPIReader(), Namespace: s.options.Namespace},
			cached: mgr.GetClient(), access: review, approver: userOf(s.options.ApproverUsername),
		}},
		{PathRequest, "certificatesigningrequest", &requestHandler{decoder: decoder, judge: judge, onDenial: s.options.OnDenial, now: time.Now}},
		{PathApproval, "approval", &approvalHandler{
			decoder: decoder, judge: judge, seen: seenBy(mgr.GetClient()), access: review, log: s.options.Audit, now: time.Now,
		}},
	}
	for _, h := range handlers {
		mgr.GetWebhookServer().Register(h.path, failing{&admission.Webhook{Handler: observe(h.name, h.handler)}})
	}
}

// checkCertificate is the readiness check of the certificate. It also updates its metric.
func (s *Server) checkCertificate(*http.Request) error {
	expires, err := s.certificate.Check(time.Now())
	if expires.IsZero() {
		certificateExpiry.Set(0)
	} else {
		certificateExpiry.Set(float64(expires.Unix()))
	}
	return err
}
