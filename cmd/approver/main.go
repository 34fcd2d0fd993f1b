// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Command approver approves and denies CertificateSigningRequests by ApprovalPolicies.
package main

import (
	"context"
	"flag"
	"os"

	ctrl "sigs.k8s.io/controller-runtime"

	"countersign.dev/countersign/approver"
	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/internal/process"
)

func main() {
	o := approver.Options{Replica: replica()}
	command := process.Command{
		Name: "countersign-approver",
		Summary: `Approves and denies CertificateSigningRequests by the Rego of ApprovalPolicies, based on the
Pods, Services and Nodes of the cluster. Writes an audit record of each decision to standard output,
one line of JSON each.`,
		Examples: []string{
			"countersign-approver",
			"countersign-approver --kubeconfig=$HOME/.kube/config --leader-elect=false --log-level=debug",
		},
		AddFlags: func(fs *flag.FlagSet) { process.AddClusterDomain(fs, &o.ClusterDomain) },
		Run:      func(ctx context.Context, cfg process.Config) error { return run(ctx, cfg, o) },
	}
	os.Exit(command.Main(ctrl.SetupSignalHandler(), os.Args[1:], os.Stdout, os.Stderr))
}

// replica returns the name of the Pod of this process. The kubelet sets the host name to it, too.
func replica() string {
	if name := os.Getenv("POD_NAME"); name != "" {
		return name
	}
	if name, err := os.Hostname(); err == nil {
		return name
	}
	return "unknown"
}

func run(ctx context.Context, cfg process.Config, o approver.Options) error {
	o.Namespace, o.Concurrency, o.Audit = cfg.Namespace, cfg.Concurrency, audit.NewLog(os.Stdout)
	return process.Run(ctx, cfg, approver.NewScheme, approver.New(o))
}
