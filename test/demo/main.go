// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Command demo follows the Kubernetes page "Manage TLS Certificates in a Cluster" on a real API server. Countersign
// approves and signs. The exit status is 1 if a request has an unexpected outcome.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/test/cluster"
	"countersign.dev/countersign/test/harness"
	"countersign.dev/countersign/test/tutorial"
)

func main() {
	keep := flag.Bool("keep", false, "Leave everything running until interrupted, and print how to use kubectl with it.")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, *keep)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, keep bool) (err error) {
	say := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	say("-- starting etcd and kube-apiserver")
	c, err := cluster.Start(ctx, cluster.Options{Progress: out})
	if err != nil {
		return fmt.Errorf("starting the control plane: %w", err)
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	installation, err := harness.Install(ctx, c, out)
	if err != nil {
		return fmt.Errorf("installing: %w", err)
	}
	defer func() { err = errors.Join(err, installation.Stop()) }()
	for name, process := range map[string]*harness.Process{"approver": installation.Approver, "signer": installation.Signer} {
		if err := process.Ready(ctx); err != nil {
			return fmt.Errorf("waiting for the %s: %w", name, err)
		}
	}
	say("-- starting the webhook as ServiceAccount %s/countersign-webhook, with a certificate from files", harness.SystemNamespace)
	if err := installation.StartWebhook(ctx); err != nil {
		return fmt.Errorf("starting the webhook: %w", err)
	}
	world, err := tutorial.NewWorld(ctx, c, out)
	if err != nil {
		return fmt.Errorf("filling the cluster: %w", err)
	}
	world.Webhook = true
	wrong, err := walk(ctx, world, out)
	if err != nil {
		return err
	}
	for _, p := range []*harness.Process{installation.Approver, installation.Signer, installation.Webhook} {
		if resident := p.Resident(); resident != "" {
			say("%s has %s in memory", p.Name(), resident)
		}
	}
	if keep {
		if err := hold(ctx, c, world, installation, say); err != nil {
			return err
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%d requests have an unexpected outcome", wrong)
	}
	return nil
}

// walk creates every request, serves with the first certificate, and prints the table. wrong is the number of requests
// with an unexpected outcome.
func walk(ctx context.Context, world *tutorial.World, out io.Writer) (wrong int, err error) {
	var table strings.Builder
	t := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tREQUEST\tREQUESTER\tWARNED\tDECISION\tREASON\tCERTIFICATE")
	for i, row := range tutorial.Rows() {
		fmt.Fprintf(out, "-- %s requests %s\n", row.Requester(), row.Description)
		start := time.Now()
		got, err := world.Run(ctx, row)
		if err != nil {
			return 0, fmt.Errorf("request %s: %w", row.Name, err)
		}
		printNotes(out, got)
		fmt.Fprintf(out, "   %s after %s\n", describe(got), time.Since(start).Round(time.Millisecond))
		mark := "ok"
		if want := row.Expected(world); !reflect.DeepEqual(got.Outcome, want) || len(got.Warnings) < len(row.Warnings) {
			mark = "WRONG"
			wrong++
			fmt.Fprintf(out, "   WRONG: want %+v, warnings %v\n", want, row.Warnings)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", mark, row.Description, row.Requester(), yes(len(got.Warnings) > 0, "yes"), or(string(got.Condition), "none (pending)"), or(reason(got), "-"), yes(got.Certificate, "issued"))
		if i == 0 && got.Certificate {
			if err := serve(ctx, world, got.CSR, out); err != nil {
				return 0, err
			}
		}
	}
	if err := t.Flush(); err != nil {
		return 0, err
	}
	fmt.Fprintf(out, "\n%s\n", table.String())
	return wrong, nil
}

// printNotes prints the warnings that the requester got, and the outputs of manual approvals.
func printNotes(out io.Writer, got tutorial.Result) {
	for _, warning := range got.Warnings {
		fmt.Fprintf(out, "   Warning: %s\n", warning)
	}
	for _, output := range got.Notes {
		fmt.Fprintf(out, "   %s\n", strings.Join(strings.Fields(output), " "))
	}
}

// reason returns the reason and the IDs of the violations.
func reason(got tutorial.Result) string {
	if len(got.Violations) == 0 {
		return got.Reason
	}
	return got.Reason + ": " + strings.Join(got.Violations, ", ")
}

func serve(ctx context.Context, world *tutorial.World, csr *certificatesv1.CertificateSigningRequest, out io.Writer) error {
	name := tutorial.ServiceName + "." + tutorial.Namespace + ".svc.cluster.local"
	answer, err := world.Serve(ctx, csr.Status.Certificate, world.Key, name)
	if err != nil {
		return fmt.Errorf("serving with the certificate: %w", err)
	}
	fmt.Fprintf(out, "   a client that trusts only ConfigMap %s/example-serving-ca reads over TLS: %q\n", tutorial.Namespace, answer)
	return nil
}

func describe(got tutorial.Result) string {
	if got.Condition == "" {
		return "stays pending, not modified"
	}
	return fmt.Sprintf("%s (%s): %s", got.Condition, got.Reason, got.Message)
}

// hold prints how to use the control plane, and waits for an interrupt.
func hold(ctx context.Context, c *cluster.Cluster, world *tutorial.World, installation *harness.Installation, say func(string, ...any)) error {
	dir, err := os.MkdirTemp("", "countersign-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // temporary
	admin, pod := filepath.Join(dir, "admin.kubeconfig"), filepath.Join(dir, "my-pod.kubeconfig")
	token, err := world.PodToken(ctx, world.Pods[tutorial.PodName])
	if err != nil {
		return err
	}
	if err := errors.Join(c.WriteKubeconfig(admin, c.Config()), c.WriteKubeconfig(pod, c.TokenConfig(token))); err != nil {
		return err
	}
	say(`The control plane is running. In another terminal:

  export PATH=%s:$PATH
  export KUBECONFIG=%s
  kubectl get csr,approvalpolicies,signers

To request a certificate as the Pod my-pod, use --kubeconfig=%s. Its token expires in two hours.
Approver, signer and webhook run on this machine, and not in their Deployments, which have no replicas.
Their logs with the audit records are %s.

Press Ctrl-C to stop it.`, c.BinDir(), admin, pod, strings.Join([]string{installation.Approver.Log, installation.Signer.Log, installation.Webhook.Log}, ", "))
	<-ctx.Done()
	return nil
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

func yes(b bool, word string) string {
	if b {
		return word
	}
	return "-"
}
