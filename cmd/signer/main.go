// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Command countersign-signer issues the certificates of approved CertificateSigningRequests.
package main

import (
	"context"
	"os"

	ctrl "sigs.k8s.io/controller-runtime"

	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/internal/process"
	"countersign.dev/countersign/signer"
)

func main() {
	command := process.Command{
		Name: "countersign-signer",
		Summary: `countersign-signer issues the certificates of approved CertificateSigningRequests, by the Signers
(countersign.dev/v1alpha1) of the cluster. It approves nothing. What it does is recorded on
standard output, one line of JSON each.`,
		Examples: []string{
			"countersign-signer                                                    # in a Pod, as its ServiceAccount",
			"countersign-signer --kubeconfig=signer.kubeconfig --leader-elect=false  # on its own, outside of the cluster",
		},
		Run: run,
	}
	os.Exit(command.Main(ctrl.SetupSignalHandler(), os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, cfg process.Config) error {
	scheme, err := signer.NewScheme()
	if err != nil {
		return err
	}
	s := signer.New(signer.Options{Namespace: cfg.Namespace, Concurrency: cfg.Concurrency, Audit: audit.NewLog(os.Stdout)})
	mgr, err := process.NewManager(cfg, scheme, s.ConfigureManager)
	if err != nil {
		return err
	}
	if err := s.Setup(ctx, mgr); err != nil {
		return err
	}
	return process.Start(ctx, mgr)
}
