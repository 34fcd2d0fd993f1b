// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Command countersign-signer issues the certificates of approved CertificateSigningRequests.
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
		Summary: `countersign-signer issues the certificates of approved CertificateSigningRequests, by the Signers
(countersign.dev/v1alpha1) of the cluster. It approves nothing. What it does is recorded on
standard output, one line of JSON each.`,
		Examples: []string{
			"countersign-signer --ca-dir=/var/run/countersign/ca                    # CAs of spec.ca.file, mounted there",
			"countersign-signer                                                    # in a Pod, as its ServiceAccount",
			"countersign-signer --kubeconfig=signer.kubeconfig --leader-elect=false  # on its own, outside of the cluster",
		},
		AddFlags: func(fs *flag.FlagSet) {
			fs.StringVar(&o.CADirectory, "ca-dir", "",
				"`path` of the folder above those that Signers name in spec.ca.file. Left out: CAs come from Secrets only.")
		},
		Run: func(ctx context.Context, cfg process.Config) error { return run(ctx, cfg, o) },
	}
	os.Exit(command.Main(ctrl.SetupSignalHandler(), os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, cfg process.Config, o signer.Options) error {
	o.Namespace, o.Concurrency, o.Audit = cfg.Namespace, cfg.Concurrency, audit.NewLog(os.Stdout)
	return process.Run(ctx, cfg, signer.NewScheme, signer.New(o))
}
