// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"countersign.dev/countersign/test/cluster"
)

// SystemNamespace is the namespace of Countersign.
const SystemNamespace = "countersign-system"

// Installation is Countersign in a control plane.
type Installation struct {
	Cluster  *cluster.Cluster
	Approver *Process
	Signer   *Process
	// Webhook is nil until StartWebhook.
	Webhook *Process
	// Env is added to the environment of processes that start from now on. The key is the name of the process, such
	// as "approver".
	Env map[string][]string
	// Prefix is a command that runs processes that start from now on, such as one that limits their memory. It gets the
	// program and its arguments as arguments, and has to replace itself with the program. The key is the name of the process.
	Prefix map[string][]string

	dir          string
	webhookFlags []string
	// configuration is the webhook configuration as deploy/ has it.
	configuration *admissionregistrationv1.ValidatingWebhookConfiguration
}

// Install builds the binaries, applies deploy/ and policies/ with kubectl, creates the CA of the Signer "serving", and
// starts approver and signer. It reports each step to progress. The API server does not call the webhook until
// StartWebhook.
func Install(ctx context.Context, c *cluster.Cluster, progress io.Writer) (_ *Installation, err error) {
	root, err := cluster.Root()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "countersign-")
	if err != nil {
		return nil, err
	}
	i := &Installation{Cluster: c, dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, i.Stop())
		}
	}()
	step(progress, "building approver, signer and webhook")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", dir+string(filepath.Separator), "./cmd/approver", "./cmd/signer", "./cmd/webhook")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the binaries: %w\n%s", err, out)
	}
	if err := i.applyManifests(ctx, root, progress); err != nil {
		return nil, err
	}
	for _, name := range []string{"approver", "signer"} {
		step(progress, "starting the "+name+" as ServiceAccount "+SystemNamespace+"/countersign-"+name)
		if _, err := i.Start(ctx, name); err != nil {
			return nil, err
		}
	}
	return i, nil
}

// applyManifests applies deploy/ and policies/, and creates the CA of the Signer "serving".
func (i *Installation) applyManifests(ctx context.Context, root string, progress io.Writer) error {
	apply := func(kustomization string) error {
		step(progress, "kubectl apply --server-side -k "+kustomization)
		_, err := i.Cluster.Kubectl(ctx, nil, "apply", "--server-side", "-k", filepath.Join(root, kustomization))
		return err
	}
	if err := apply("deploy/overlays/default"); err != nil {
		return err
	}
	if err := i.removeConfiguration(ctx); err != nil {
		return err
	}
	if _, err := i.Cluster.Kubectl(ctx, nil, "wait", "--for=condition=established", "--timeout=60s", "crd/approvalpolicies.countersign.dev", "crd/signers.countersign.dev"); err != nil {
		return err
	}
	step(progress, "creating a CA in Secret "+SystemNamespace+"/serving-ca")
	if err := i.StoreCA(ctx, "serving-ca", "My Example Signer"); err != nil {
		return err
	}
	if err := apply("deploy/signers/serving"); err != nil {
		return err
	}
	return apply("policies")
}

// Stop ends the processes and removes the binaries, kubeconfigs and logs.
func (i *Installation) Stop() error {
	var errs []error
	for _, p := range []*Process{i.Webhook, i.Approver, i.Signer} {
		if p != nil {
			errs = append(errs, p.Stop())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(i.dir))...)
}

func step(w io.Writer, text string) { fmt.Fprintln(w, "--", text) }
