// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Command webhook answers the API server's admission questions about what Countersign decides.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

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
		Summary: `Answers the API server's admission questions: refuses ApprovalPolicies that cannot be used, tells
who makes a CertificateSigningRequest what stands in its way, and refuses approvals by hand that
policy does not allow. Approvals are recorded on standard output, one line of JSON each. Every
replica serves.`,
		Examples: []string{
			"countersign-webhook",
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
	fs.StringVar(&o.BindAddress, "webhook-bind-address", ":9443", "`address` to answer on, over TLS.")
	fs.StringVar(&o.ApproverUsername, "approver-username", "",
		"`user` that approves by the policies. Left out: the ServiceAccount countersign-approver of the namespace.")
	o.OnDenial = webhook.Warn
	fs.Func("on-denial", "what becomes of a new request that policy would deny: `warn or reject`. Default \"warn\".", func(value string) error {
		o.OnDenial = webhook.OnDenial(value)
		if o.OnDenial != webhook.Warn && o.OnDenial != webhook.Reject {
			return fmt.Errorf("want warn or reject")
		}
		return nil
	})
	fs.StringVar(&o.CertFile, "tls-cert-file", "",
		"`path` of the serving certificate. Left out: one is asked for, of the signer --serving-signer.")
	fs.StringVar(&o.KeyFile, "tls-private-key-file", "", "`path` of the key of --tls-cert-file.")
	fs.StringVar(&o.ServingSigner, "serving-signer", "countersign.dev/webhook",
		"`signerName` to ask for a serving certificate, if there is none in a file.")
	fs.StringVar(&o.ServiceName, "service-name", "countersign-webhook",
		"`name` of the Service, in the namespace, that the API server reaches this server by.")
	fs.StringVar(&o.ClientCAFile, "client-ca-file", "",
		"`path` of CA certificates. If set, who calls must have a client certificate by one of them.")
	fs.StringVar(&o.Configuration, "webhook-configuration", "countersign",
		"`name` of the ValidatingWebhookConfiguration whose caBundle is kept.")
	fs.StringVar(&o.CABundleConfigMap, "ca-bundle-configmap", "",
		"`name` of the ConfigMap, in the namespace, whose ca.crt becomes the caBundle. Left out: countersign-webhook-ca, or none with --tls-cert-file.")
}

func run(ctx context.Context, cfg process.Config, o webhook.Options) error {
	o.Namespace, o.Audit = cfg.Namespace, audit.NewLog(os.Stdout)
	server, err := webhook.New(o)
	if err != nil {
		return err
	}
	return process.Run(ctx, cfg, approver.NewScheme, server)
}
