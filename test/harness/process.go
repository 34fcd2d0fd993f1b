// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"countersign.dev/countersign/test/cluster"
)

// Process is a running approver, signer or webhook.
type Process struct {
	*cluster.Process
	health string // the base URL of its probes
}

// deployed are the flags in the Deployments of deploy/.
var deployed = map[string][]string{
	"signer":  {"--webhook-configuration=" + configurationName},
	"webhook": {"--client-authentication=None"},
}

// Start starts the approver or the signer as its own ServiceAccount and waits until it is healthy. It does not wait
// until the process is ready. flags are added to the flags of every process.
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

// Run starts one more replica of a process under the name of a Pod and waits until it is healthy.
func (i *Installation) Run(ctx context.Context, name, pod string, flags ...string) (*Process, error) {
	token, err := i.Cluster.ServiceAccountToken(ctx, SystemNamespace, "countersign-"+name)
	if err != nil {
		return nil, err
	}
	return i.RunAs(ctx, name, pod, token, flags...)
}

// RunAs is Run with the token of the caller.
func (i *Installation) RunAs(ctx context.Context, name, pod, token string, flags ...string) (*Process, error) {
	kubeconfig := filepath.Join(i.dir, name+pod+".kubeconfig")
	if err := i.Cluster.WriteKubeconfig(kubeconfig, i.Cluster.TokenConfig(token)); err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	args := slices.Concat([]string{
		"--kubeconfig=" + kubeconfig, "--namespace=" + SystemNamespace,
		"--metrics-bind-address=0", "--health-probe-bind-address=" + address,
	}, deployed[name], flags)
	program := append(slices.Clone(i.Prefix[name]), filepath.Join(i.dir, name))
	running, err := cluster.Spawn(program[0], append(program[1:], args...), filepath.Join(i.dir, name+pod+".log"), append([]string{"POD_NAME=" + pod}, i.Env[name]...)...)
	if err != nil {
		return nil, err
	}
	p := &Process{Process: running, health: "http://" + address}
	return p, p.wait(ctx, "/healthz")
}

// Ready waits until the readiness probe of the process succeeds.
func (p *Process) Ready(ctx context.Context) error { return p.wait(ctx, "/readyz") }

func (p *Process) wait(ctx context.Context, path string) error {
	return Eventually(ctx, 60*time.Second, func() error {
		select {
		case <-p.Done():
			return errors.New("the process has ended; the end of its log: " + p.Tail())
		default:
		}
		_, err := p.Probe(ctx, path)
		return err
	})
}

// Probe requests /healthz or /readyz once and returns the body. A status other than 200 is an error.
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
		err = fmt.Errorf("%s returns %s: %s", path, response.Status, body)
	}
	return string(body), err
}

// Stop ends the process as a kubelet does and waits for it.
func (p *Process) Stop() error { return p.Process.Stop(30 * time.Second) }

// freeAddress returns an address on loopback that no process listens on.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed at once
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// Eventually calls try until it succeeds or the time limit has passed. It returns the last error of try.
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
