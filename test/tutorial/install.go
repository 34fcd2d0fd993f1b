// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package tutorial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/test/cluster"
)

// SystemNamespace is where Countersign runs.
const SystemNamespace = "countersign-system"

// Installation is Countersign in a cluster.
type Installation struct {
	Cluster  *cluster.Cluster
	Approver *Process
	Signer   *Process
	// Webhook is nil until StartWebhook.
	Webhook *Process
	// Env is added to the environment of processes that are started from now on, by name, such as "approver".
	Env map[string][]string

	dir string
	// configuration of the webhook, as deploy/ has it.
	configuration *admissionregistrationv1.ValidatingWebhookConfiguration
}

// Install builds the binaries, applies deploy/ and policies/ with kubectl, makes the CA of
// the signer "serving", and starts approver and signer. Each step is told to progress. The
// webhook is asked nothing until StartWebhook.
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
		return nil, fmt.Errorf("building: %w\n%s", err, out)
	}
	step(progress, "kubectl apply --server-side -k deploy/overlays/default")
	if _, err := c.Kubectl(ctx, nil, "apply", "--server-side", "-k", filepath.Join(root, "deploy/overlays/default")); err != nil {
		return nil, err
	}
	if err := i.takeConfiguration(ctx); err != nil {
		return nil, err
	}
	if _, err := c.Kubectl(ctx, nil, "wait", "--for=condition=established", "--timeout=60s", "crd/approvalpolicies.countersign.dev", "crd/signers.countersign.dev"); err != nil {
		return nil, err
	}
	step(progress, "making a CA and storing it as Secret "+SystemNamespace+"/serving-ca")
	if err := i.StoreCA(ctx, "serving-ca", "My Example Signer"); err != nil {
		return nil, err
	}
	for _, kustomization := range []string{"deploy/signers/serving", "policies"} {
		step(progress, "kubectl apply --server-side -k "+kustomization)
		if _, err := c.Kubectl(ctx, nil, "apply", "--server-side", "-k", filepath.Join(root, kustomization)); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"approver", "signer"} {
		step(progress, "starting the "+name+" as ServiceAccount "+SystemNamespace+"/countersign-"+name)
		if _, err := i.Start(ctx, name); err != nil {
			return nil, err
		}
	}
	return i, nil
}

// Stop ends the processes and removes what Install has built.
func (i *Installation) Stop() error {
	var errs []error
	for _, p := range []*Process{i.Webhook, i.Approver, i.Signer} {
		if p != nil {
			errs = append(errs, p.Stop())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(i.dir))...)
}

// StoreCA makes a new self-signed CA and stores it in a Secret, where a Signer looks for it.
func (i *Installation) StoreCA(ctx context.Context, secretName, commonName string) error {
	ca, err := newCA(commonName)
	if err != nil {
		return err
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: secretName, Namespace: SystemNamespace}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: ca.certificatePEM, corev1.TLSPrivateKeyKey: ca.keyPEM},
	}
	secrets := i.Cluster.Clientset().CoreV1().Secrets(SystemNamespace)
	if _, err = secrets.Create(ctx, secret, metav1.CreateOptions{}); err == nil {
		return nil
	}
	_, err = secrets.Update(ctx, secret, metav1.UpdateOptions{})
	return err
}

// Process is a running approver, signer or webhook.
type Process struct {
	*cluster.Process
	health string
}

// Start starts the approver or the signer, as its own ServiceAccount, and waits until it is
// healthy; whether it is ready is for the caller to ask. flags are added to the usual ones.
func (i *Installation) Start(ctx context.Context, name string, flags ...string) (*Process, error) {
	p, err := i.Run(ctx, name, "", flags...)
	if p != nil {
		if name == "approver" {
			i.Approver = p
		} else {
			i.Signer = p
		}
	}
	return p, err
}

// Run runs one more replica of a process, under the name of a Pod, and waits until it is healthy.
func (i *Installation) Run(ctx context.Context, name, pod string, flags ...string) (*Process, error) {
	token, err := i.Cluster.ServiceAccountToken(ctx, SystemNamespace, "countersign-"+name)
	if err != nil {
		return nil, err
	}
	return i.RunAs(ctx, name, pod, token, flags...)
}

// RunAs is Run with a token of the caller's.
func (i *Installation) RunAs(ctx context.Context, name, pod, token string, flags ...string) (*Process, error) {
	kubeconfig := filepath.Join(i.dir, name+pod+".kubeconfig")
	if err := i.Cluster.WriteKubeconfig(kubeconfig, i.Cluster.TokenConfig(token)); err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	args := append([]string{
		"--kubeconfig=" + kubeconfig, "--namespace=" + SystemNamespace,
		"--metrics-bind-address=0", "--health-probe-bind-address=" + address,
	}, flags...)
	running, err := cluster.Spawn(filepath.Join(i.dir, name), args, filepath.Join(i.dir, name+pod+".log"), append([]string{"POD_NAME=" + pod}, i.Env[name]...)...)
	if err != nil {
		return nil, err
	}
	p := &Process{Process: running, health: "http://" + address}
	return p, p.wait(ctx, "/healthz")
}

// Ready waits until the process says that it is ready.
func (p *Process) Ready(ctx context.Context) error { return p.wait(ctx, "/readyz") }

func (p *Process) wait(ctx context.Context, path string) error {
	return Eventually(ctx, 60*time.Second, func() error {
		select {
		case <-p.Done():
			return errors.New("the process has ended; its log: " + p.Tail())
		default:
		}
		_, err := p.Probe(ctx, path)
		return err
	})
}

// Probe asks /healthz or /readyz once and returns the answer's body; an answer other than 200 is an error too.
func (p *Process) Probe(ctx context.Context, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.health+path, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s: %s", path, response.Status, body)
	}
	return string(body), err
}

// Stop ends the process as a kubelet would, and waits for it.
func (p *Process) Stop() error { return p.Process.Stop(30 * time.Second) }

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // ends at once
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

func step(w io.Writer, text string) { fmt.Fprintln(w, "--", text) }

// Eventually calls try until it succeeds, at most for a time, and returns its last error.
func Eventually(ctx context.Context, limit time.Duration, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", limit, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
