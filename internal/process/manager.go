// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"fmt"
	"runtime"
	"time"

	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// shutdownTimeout is how long work in hand may take to end. It is less than the 30 s that a Pod
// has by default, so that the Lease is released before the kubelet kills the process.
const shutdownTimeout = 20 * time.Second

// RESTConfig is how the API server is reached.
func (c *Config) RESTConfig() (*rest.Config, error) {
	cfg, err := c.loadRESTConfig()
	if err != nil {
		return nil, err
	}
	// No limit on the client's side: client-go's default of 5 requests a second makes a queue
	// nobody sees, and it is the API server that knows how much it can take, by its
	// priority and fairness.
	cfg.QPS = -1
	cfg.UserAgent = fmt.Sprintf("%s/%s (%s/%s)", c.Name, Version(), runtime.GOOS, runtime.GOARCH)
	// ContentType stays empty: controller-runtime then speaks protobuf for built-in types and
	// JSON for custom resources, which have no protobuf.
	return cfg, nil
}

func (c *Config) loadRESTConfig() (*rest.Config, error) {
	if c.Kubeconfig == "" {
		cfg, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("reaching the API server from within a Pod (outside of one, set --kubeconfig): %w", err)
		}
		return cfg, nil
	}
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: c.Kubeconfig}
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("reading --kubeconfig: %w", err)
	}
	return cfg, nil
}

// NewManager makes a manager from a valid Config, with a healthz check. It opens the listeners
// for metrics and probes. The caller adds controllers and readyz checks, and ends the process
// when Start returns: the Lease is released on the way out.
//
// adjust, which may be nil, changes the options last; caches are configured there.
func NewManager(c Config, scheme *kruntime.Scheme, adjust func(*manager.Options)) (manager.Manager, error) {
	cfg, err := c.RESTConfig()
	if err != nil {
		return nil, err
	}
	options := manager.Options{
		Scheme:                        scheme,
		Metrics:                       metricsserver.Options{BindAddress: c.MetricsBindAddress},
		HealthProbeBindAddress:        c.HealthProbeBindAddress,
		PprofBindAddress:              c.PprofBindAddress,
		LeaderElection:                c.LeaderElect,
		LeaderElectionID:              c.Name,
		LeaderElectionNamespace:       c.Namespace,
		LeaderElectionReleaseOnCancel: true, // a rolling update does not wait for a Lease to run out
		GracefulShutdownTimeout:       new(shutdownTimeout),
	}
	if adjust != nil {
		adjust(&options)
	}
	mgr, err := manager.New(cfg, options)
	if err != nil {
		return nil, fmt.Errorf("setting up the manager: %w", err)
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return nil, fmt.Errorf("adding the healthz check: %w", err)
	}
	return mgr, nil
}

// Start runs a manager until ctx ends, and returns when its work has.
//
// A manager whose caches are not filled yet, because it may not list something or cannot reach
// the API server, does not end with ctx (controller-runtime v0.25.2, runnableGroup.Start). Such a
// one has no work in hand, and is left behind.
func Start(ctx context.Context, mgr manager.Manager) error {
	working := make(chan struct{})
	if err := mgr.Add(onStart(func() { close(working) })); err != nil {
		return fmt.Errorf("adding the start hook: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace := shutdownTimeout + time.Second
	select {
	case <-working:
	default:
		grace = time.Second
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(grace):
		return nil
	}
}

// onStart is called once caches are filled, in every replica.
type onStart func()

// Start implements manager.Runnable.
func (f onStart) Start(context.Context) error { f(); return nil }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (onStart) NeedLeaderElection() bool { return false }
