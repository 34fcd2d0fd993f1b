// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"countersign.dev/countersign/test/cluster"
	"countersign.dev/countersign/test/harness"
	"countersign.dev/countersign/test/tutorial"
)

// Names of the systems.
const (
	countersign        = "countersign"
	countersignWebhook = "countersign+webhook"
	kcm                = "kcm"
	kcmDefaults        = "kcm, default limits"
)

// system is a system to measure.
type system struct {
	name, signer string
	// senders create its requests.
	senders []rest.Interface
	// asks returns n requests for it. If mixed, a tenth of them is hostile.
	asks func(n int, mixed bool) []ask
	// start starts it and returns the time until each process was ready, where known. stop stops it.
	start func(ctx context.Context) (ready map[string]time.Duration, err error)
	stop  func(ctx context.Context) error
	// processes returns its running processes.
	processes func() []*cluster.Process
	// metrics is the URL of the approver's metrics, and profilers the address of each process; empty if there are none.
	metrics   string
	profilers map[string]string
}

// pods32 returns 32 senders without credentials: each request has the token of a Pod.
func (w *world) pods32() ([]rest.Interface, error) {
	return ownConnections(clients, func(int) (*rest.Config, error) { return w.TokenConfig(""), nil })
}

// countersignSystem returns the installed Countersign. profiling makes its processes serve profiles, and webhook runs its
// webhook too.
func (w *world) countersignSystem(installation *harness.Installation, profiling, webhook bool) (*system, error) {
	senders, err := w.pods32()
	if err != nil {
		return nil, err
	}
	s := &system{name: countersign, signer: tutorial.SignerName, senders: senders, asks: w.byPods}
	if webhook {
		s.name = countersignWebhook
	}
	s.start = func(ctx context.Context) (map[string]time.Duration, error) {
		flags, err := s.listen(profiling)
		if err != nil {
			return nil, err
		}
		took, err := startProcesses(ctx, installation, flags)
		if err == nil {
			err = w.waitForPolicies(ctx)
		}
		if err == nil && webhook {
			err = installation.StartWebhook(ctx)
		}
		return took, err
	}
	s.stop = func(ctx context.Context) error {
		var errs []error
		if webhook {
			errs = append(errs, installation.StopWebhook(ctx))
		}
		return errors.Join(append(errs, stopAll(installation))...)
	}
	s.processes = func() []*cluster.Process { return running(installation) }
	return s, nil
}

// running returns the processes of an installation that run.
func running(installation *harness.Installation) (out []*cluster.Process) {
	for _, p := range []*harness.Process{installation.Approver, installation.Signer, installation.Webhook} {
		if p != nil {
			out = append(out, p.Process)
		}
	}
	return out
}

// waitForPolicies waits until many policies are ready. Otherwise the first load would share the API server with the
// writes of their statuses.
func (w *world) waitForPolicies(ctx context.Context) error {
	if w.policies == 1 {
		return nil
	}
	_, err := w.Kubectl(ctx, nil, "wait", "--for=condition=Ready", "approvalpolicies.countersign.dev", "--all", "--timeout="+readyWithin.String())
	return err
}

// listen chooses the addresses of metrics and profiles, and returns the flags for them by process.
func (s *system) listen(profiling bool) (flags map[string][]string, err error) {
	addresses, err := freeAddresses(3)
	if err != nil {
		return nil, err
	}
	s.metrics, s.profilers = "http://"+addresses[0]+"/metrics", nil
	flags = map[string][]string{"approver": {"--metrics-bind-address=" + addresses[0]}}
	if profiling {
		s.profilers = map[string]string{"approver": addresses[1], "signer": addresses[2]}
		for name, address := range s.profilers {
			flags[name] = append(flags[name], "--pprof-bind-address="+address)
		}
	}
	return flags, nil
}

// startProcesses starts approver and signer at the same time, and returns how long each took to be ready.
func startProcesses(ctx context.Context, installation *harness.Installation, flags map[string][]string) (map[string]time.Duration, error) {
	type outcome struct {
		name string
		took time.Duration
		err  error
	}
	outcomes := make(chan outcome)
	for _, name := range []string{"approver", "signer"} {
		go func() {
			began := time.Now()
			p, err := installation.Start(ctx, name, flags[name]...)
			if err == nil {
				err = ready(ctx, p)
			}
			outcomes <- outcome{name, time.Since(began), err}
		}()
	}
	took := map[string]time.Duration{}
	var err error
	for range 2 {
		o := <-outcomes
		took[o.name] = o.took
		err = errors.Join(err, o.err)
	}
	return took, err
}

// readyWithin is the time limit until a process is ready. Many policies take a while.
const readyWithin = 3 * time.Minute

// ready waits until the readiness probe of a process succeeds.
func ready(ctx context.Context, p *harness.Process) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for wait := 20 * time.Millisecond; ; {
		_, err := p.Probe(ctx, "/readyz")
		if err == nil {
			return nil
		}
		select {
		case <-p.Done():
			return errors.New(p.Name() + " exited")
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return ctx.Err()
			}
			return fmt.Errorf("%s is not ready within %s, and has %s in memory", p.Name(), readyWithin, p.Resident())
		case <-time.After(wait):
			wait = min(wait+wait/10, time.Second) // each failed probe is a line in its log
		}
	}
}

func stopAll(installation *harness.Installation) error {
	var errs []error
	for _, p := range []**harness.Process{&installation.Approver, &installation.Signer} {
		if *p != nil {
			errs = append(errs, (*p).Stop())
		}
		*p = nil
	}
	return errors.Join(errs...)
}

// nullSystem returns the null system, which is a second process of this binary. folder has its files.
func (w *world) nullSystem(ctx context.Context, folder string) (*system, error) {
	senders, err := w.pods32()
	if err != nil {
		return nil, err
	}
	token, err := w.ServiceAccountToken(ctx, benchNamespace, nullName)
	if err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(folder, "null.kubeconfig")
	if err := w.WriteKubeconfig(kubeconfig, w.TokenConfig(token)); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var running *cluster.Process
	return &system{
		name: nullName, signer: nullSigner, senders: senders,
		asks: func(n int, _ bool) []ask { return w.byPods(n, false) }, // it would issue hostile requests
		start: func(context.Context) (_ map[string]time.Duration, err error) {
			running, err = cluster.Spawn(self, []string{nullName, "-kubeconfig=" + kubeconfig}, filepath.Join(folder, "null.log"))
			return nil, err
		},
		stop: func(context.Context) error {
			stopping := running
			if running = nil; stopping == nil {
				return nil
			}
			return stopping.Stop(10 * time.Second)
		},
		processes: func() []*cluster.Process { return present(running) },
	}, nil
}

// kcmSystem returns kube-controller-manager, which approves and signs client certificates of nodes. Each client is a node.
func (w *world) kcmSystem(name string, flags ...string) (*system, error) {
	node := func(i int) string { return fmt.Sprintf("system:node:bench-%02d", i) }
	senders, err := ownConnections(clients, func(i int) (*rest.Config, error) { return w.ConfigFor(node(i), "system:nodes") })
	if err != nil {
		return nil, err
	}
	const controllers = "certificatesigningrequest-approving-controller,certificatesigningrequest-signing-controller"
	return &system{
		name: name, signer: certificatesv1.KubeAPIServerClientKubeletSignerName, senders: senders,
		asks: func(n int, _ bool) []ask { // none is hostile: it would leave them pending
			asks := make([]ask, n)
			for i := range asks {
				asks[i].Request = tutorial.Request{
					CommonName: node(i % clients), Organization: "system:nodes",
					Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
				}
			}
			return asks
		},
		start: func(ctx context.Context) (map[string]time.Duration, error) {
			return nil, w.StartControllerManager(ctx, controllers, flags...)
		},
		stop: func(context.Context) error { return w.StopControllerManager() },
		processes: func() (out []*cluster.Process) {
			for _, p := range w.Processes() {
				if p.Name() == "kube-controller-manager" {
					out = append(out, p)
				}
			}
			return out
		},
	}, nil
}

func present(processes ...*cluster.Process) (out []*cluster.Process) {
	for _, p := range processes {
		if p != nil {
			out = append(out, p)
		}
	}
	return out
}

// ownClientset returns a clientset that shares no connection.
func ownClientset(config *rest.Config) (kubernetes.Interface, error) {
	dialer := &net.Dialer{}
	config.Dial = dialer.DialContext
	return kubernetes.NewForConfig(config)
}

// deployed returns the environment of a container in deploy/, without the variables that depend on its Pod.
func deployed(ctx context.Context, clientset kubernetes.Interface, name string) ([]string, error) {
	deployment, err := clientset.AppsV1().Deployments(harness.SystemNamespace).Get(ctx, "countersign-"+name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	var env []string
	for _, variable := range deployment.Spec.Template.Spec.Containers[0].Env {
		if variable.ValueFrom == nil {
			env = append(env, variable.Name+"="+variable.Value)
		}
	}
	return env, nil
}

// freeAddresses returns addresses on loopback that no process listens on.
func freeAddresses(n int) (out []string, err error) {
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // ends at once
		if err != nil {
			return nil, err
		}
		defer listener.Close() //nolint:errcheck // all at the end, so that they differ
		out = append(out, listener.Addr().String())
	}
	return out, nil
}
