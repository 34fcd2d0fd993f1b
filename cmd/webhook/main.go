// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Command webhook is the admission server of Countersign.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"

	ctrl "sigs.k8s.io/controller-runtime"

	"countersign.dev/countersign/approver"
	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/internal/process"
	"countersign.dev/countersign/webhook"
)

func main() {
	var o webhook.Options
	command := process.Command{
		Name: "countersign-webhook",
		Summary: `Validating admission webhook: rejects ApprovalPolicies that cannot be used, warns requesters of
CertificateSigningRequests about violations, and rejects manual approvals that the policies do not
allow. Writes an audit record of each approval to standard output, one line of JSON each. Every
replica serves.`,
		Examples: []string{
			"countersign-webhook --client-ca-file=/etc/countersign/client-ca/ca.crt --client-names=front-proxy-client",
			"countersign-webhook --client-authentication=None",
			"countersign-webhook --kubeconfig=webhook.kubeconfig --webhook-bind-address=127.0.0.1:9443 --tls-cert-file=tls.crt --tls-private-key-file=tls.key",
		},
		Replicated: true,
		AddFlags:   func(fs *flag.FlagSet) { addFlags(fs, &o) },
		Run:        func(ctx context.Context, cfg process.Config) error { return run(ctx, cfg, o) },
	}
	os.Exit(command.Main(ctrl.SetupSignalHandler(), os.Args[1:], os.Stdout, os.Stderr))
}

func addFlags(fs *flag.FlagSet, o *webhook.Options) {
	process.AddClusterDomain(fs, &o.ClusterDomain)
	fs.StringVar(&o.BindAddress, "webhook-bind-address", ":9443", "`address` to serve on, over TLS.")
	fs.StringVar(&o.ApproverUsername, "approver-username", "",
		"`username` of the approver. Defaults to the ServiceAccount countersign-approver of the namespace.")
	o.OnDenial = webhook.Warn
	fs.Func("on-denial", "Action for a new request that the policies would deny: `warn or reject`. Default \"warn\".", func(value string) error {
		o.OnDenial = webhook.OnDenial(value)
		if o.OnDenial != webhook.Warn && o.OnDenial != webhook.Reject {
			return fmt.Errorf("must be warn or reject")
		}
		return nil
	})
	fs.StringVar(&o.CertFile, "tls-cert-file", "",
		"`path` of the serving certificate. If empty, one is requested from --serving-signer.")
	fs.StringVar(&o.KeyFile, "tls-private-key-file", "", "`path` of the key of --tls-cert-file.")
	fs.StringVar(&o.ServingSigner, "serving-signer", "countersign.dev/webhook",
		"`signerName` to request the serving certificate from, unless --tls-cert-file is set.")
	fs.StringVar(&o.ServiceName, "service-name", "countersign-webhook",
		"`name` of the Service, in the namespace, that the API server connects to.")
	o.ClientAuthentication = webhook.Required
	fs.StringVar((*string)(&o.ClientAuthentication), "client-authentication", string(webhook.Required),
		"`Required or None`: whether clients must present a certificate. With None, restrict the port to the API server with a NetworkPolicy.")
	fs.StringVar(&o.ClientCAFile, "client-ca-file", "",
		"`path` of the CA certificates of clients. Required, unless --client-authentication=None.")
	fs.Func("client-names", "`names` of the clients that are accepted, the common names of their certificates, comma-separated. If not set, every client with a certificate of --client-ca-file is.", func(value string) error {
		o.ClientNames = strings.Split(value, ",")
		return nil
	})
	fs.StringVar(&o.CABundleConfigMap, "ca-bundle-configmap", "countersign-webhook-ca",
		"`name` of the ConfigMap, in the namespace, whose ca.crt the API server trusts. If it does not contain the issuer of the serving certificate, another certificate is requested. Not used with --tls-cert-file.")
}

func run(ctx context.Context, cfg process.Config, o webhook.Options) error {
	o.Namespace, o.Audit = cfg.Namespace, audit.NewLog(os.Stdout)
	server, err := webhook.New(o)
	if err != nil {
		return err
	}
	return process.Run(ctx, cfg, approver.NewScheme, server)
}
