// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Command signer issues the certificates of approved CertificateSigningRequests.
package main

import (
	"context"
	"flag"
	"os"

	ctrl "sigs.k8s.io/controller-runtime"

	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/internal/process"
	"countersign.dev/countersign/signer"
)

func main() {
	var o signer.Options
	command := process.Command{
		Name: "countersign-signer",
		Summary: `Issues the certificates of approved CertificateSigningRequests, as the Signers
(countersign.dev/v1alpha1) of the cluster define. It does not approve requests. Decisions are
recorded on standard output, one line of JSON each.`,
		Examples: []string{
			"countersign-signer --ca-dir=/var/run/countersign/ca                    # with mounted CAs, for spec.ca.file",
			"countersign-signer                                                    # in a Pod, with its ServiceAccount",
			"countersign-signer --kubeconfig=signer.kubeconfig --leader-elect=false  # outside the cluster",
		},
		AddFlags: func(fs *flag.FlagSet) {
			fs.StringVar(&o.CADirectory, "ca-dir", "",
				"`path` of the parent of the directories that Signers name in spec.ca.file. If not set, CAs are read from Secrets only.")
			fs.StringVar(&o.WebhookConfiguration, "webhook-configuration", "",
				"`name` of the ValidatingWebhookConfiguration whose caBundle is updated for the webhooks that call a Service of the namespace. If not set, none is.")
			fs.StringVar(&o.WebhookCAConfigMap, "webhook-ca-configmap", "countersign-webhook-ca",
				"`name` of the ConfigMap, in the namespace, whose ca.crt becomes the caBundle.")
		},
		Run: func(ctx context.Context, cfg process.Config) error { return run(ctx, cfg, o) },
	}
	os.Exit(command.Main(ctrl.SetupSignalHandler(), os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, cfg process.Config, o signer.Options) error {
	o.Namespace, o.Concurrency, o.Audit = cfg.Namespace, cfg.Concurrency, audit.NewLog(os.Stdout)
	return process.Run(ctx, cfg, signer.NewScheme, signer.New(o))
}
