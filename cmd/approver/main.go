// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Command approver approves and denies CertificateSigningRequests by ApprovalPolicies.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"countersign.dev/countersign/approver"
	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/internal/process"
)

func main() {
	var domain string
	command := process.Command{
		Name: "countersign-approver",
		Summary: `Approves and denies CertificateSigningRequests by the Rego of ApprovalPolicies, over the
live Pods and Services. Decisions are recorded on standard output, one line of JSON each.`,
		Examples: []string{
			"countersign-approver",
			"countersign-approver --kubeconfig=$HOME/.kube/config --leader-elect=false --log-level=debug",
		},
		AddFlags: func(fs *flag.FlagSet) { process.AddClusterDomain(fs, &domain) },
		Run:      func(ctx context.Context, cfg process.Config) error { return run(ctx, cfg, domain) },
	}
	os.Exit(command.Main(ctrl.SetupSignalHandler(), os.Args[1:], os.Stdout, os.Stderr))
}

// replica is the name of this process's Pod: the kubelet makes it the host name, too.
func replica() string {
	if name := os.Getenv("POD_NAME"); name != "" {
		return name
	}
	if name, err := os.Hostname(); err == nil {
		return name
	}
	return "unknown"
}

func run(ctx context.Context, cfg process.Config, domain string) error {
	scheme, err := approver.NewScheme()
	if err != nil {
		return fmt.Errorf("making the scheme: %w", err)
	}
	policies := &approver.PolicySet{}
	mgr, err := process.NewManager(cfg, scheme, func(o *manager.Options) {
		o.Cache = approver.CacheOptions(cfg.Namespace, policies)
		o.Controller.MaxConcurrentReconciles = cfg.Concurrency
	})
	if err != nil {
		return err
	}
	err = approver.Setup(ctx, mgr, policies, approver.Options{
		Namespace: cfg.Namespace, ClusterDomain: domain, Replica: replica(), Audit: audit.NewLog(os.Stdout),
	})
	if err != nil {
		return fmt.Errorf("setting up the approver: %w", err)
	}
	return process.Start(ctx, mgr)
}
