// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"countersign.dev/countersign/internal/watchset"
)

// shutdownTimeout limits the time for work that has begun. It is less than the default
// terminationGracePeriodSeconds of 30 s, so that the Lease is released before the kubelet kills the
// process.
const shutdownTimeout = 20 * time.Second

// Settings of leader election. A standby replica reads the Lease every retryPeriod to 2.2 times retryPeriod. It takes a
// Lease over when it has not changed for leaseDuration, so a killed leader is replaced within
// leaseDuration + 2 * 2.2 * retryPeriod = 7.2 s.
//
// The leader exits if it cannot renew the Lease for renewDeadline. The difference to leaseDuration covers
// clocks that run at different speeds. A request for the Lease times out after half of renewDeadline.
//
// The cost is two PUTs a second by the leader, and 1.25 GETs a second on average by each standby.
const (
	leaseDuration = 5 * time.Second
	renewDeadline = 4 * time.Second
	retryPeriod   = 500 * time.Millisecond
)

// RESTConfig returns the configuration of clients of the API server.
func (c *Config) RESTConfig() (*rest.Config, error) {
	cfg, err := c.loadRESTConfig()
	if err != nil {
		return nil, err
	}
	// No limit in the client: client-go's default of 5 requests a second would delay requests without any
	// sign of it. The API server limits requests by priority and fairness.
	cfg.QPS = -1
	cfg.UserAgent = fmt.Sprintf("%s/%s (%s/%s)", c.Name, Version(), runtime.GOOS, runtime.GOARCH)
	// ContentType stays empty: controller-runtime then uses protobuf for built-in types, and JSON for
	// custom resources, which do not support protobuf.
	return cfg, nil
}

func (c *Config) loadRESTConfig() (*rest.Config, error) {
	if c.Kubeconfig == "" {
		cfg, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("loading the configuration of the Pod (outside a Pod, set --kubeconfig): %w", err)
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

// Component is the work of one binary: controllers or a server.
type Component interface {
	// ConfigureManager changes the options of the manager, such as those of its cache.
	ConfigureManager(*manager.Options)
	// Setup adds controllers, servers and readiness checks to the manager.
	Setup(context.Context, manager.Manager) error
}

// Run runs a component in a manager with the given scheme until ctx ends. The configuration must be
// valid. When Run returns, the Lease of the leader has been released.
func Run(ctx context.Context, c Config, newScheme func() (*kruntime.Scheme, error), component Component) error {
	scheme, err := newScheme()
	if err != nil {
		return fmt.Errorf("creating the scheme: %w", err)
	}
	cfg, err := c.RESTConfig()
	if err != nil {
		return err
	}
	if err := registerBuild(metrics.Registry, buildInfo()); err != nil {
		return err
	}
	log := ctrl.LoggerFrom(ctx)
	probes := newProbes(log)
	if probes.report, err = podEvents(ctx, cfg, c, log); err != nil {
		return err
	}
	if err := errors.Join(
		serveHTTP(ctx, "--health-probe-bind-address", c.HealthProbeBindAddress, probes.handler(), probeBounds, log),
		serveHTTP(ctx, "--metrics-bind-address", c.MetricsBindAddress, metricsHandler(metrics.Registry), metricsBounds, log),
	); err != nil {
		return err
	}
	if err := awaitAPIServer(ctx, cfg, probes, log); err != nil || ctx.Err() != nil {
		return err
	}
	mgr, err := newManager(c, cfg, scheme, component.ConfigureManager)
	if err != nil {
		return err
	}
	if err := component.Setup(ctx, probed{Manager: mgr, probes: probes}); err != nil {
		return fmt.Errorf("setting up %s: %w", c.Name, err)
	}
	probes.set(checkStart, nil) // the checks of the component have replaced it
	return start(ctx, mgr)
}

// newManager returns a manager. configure changes its options.
func newManager(c Config, cfg *rest.Config, scheme *kruntime.Scheme, configure func(*manager.Options)) (manager.Manager, error) {
	options := manager.Options{
		Scheme:                        scheme,
		Metrics:                       metricsserver.Options{BindAddress: "0"}, // see metricsHandler
		HealthProbeBindAddress:        "0",                                     // see probes
		PprofBindAddress:              c.PprofBindAddress,
		LeaderElection:                c.LeaderElect,
		LeaderElectionID:              c.Name,
		LeaderElectionNamespace:       c.Namespace,
		LeaderElectionReleaseOnCancel: true, // so that a rolling update does not wait until the Lease expires
		LeaseDuration:                 new(leaseDuration),
		RenewDeadline:                 new(renewDeadline),
		RetryPeriod:                   new(retryPeriod),
		GracefulShutdownTimeout:       new(shutdownTimeout),
	}
	configure(&options)
	options.Cache.NewInformer = watchset.NewInformer
	mgr, err := manager.New(cfg, options)
	if err != nil {
		return nil, fmt.Errorf("creating the manager: %w", err)
	}
	return mgr, nil
}

// start runs a manager until ctx ends and its work is done.
//
// A manager does not stop while its caches are not synced, for example because a list is forbidden or the
// API server is down (controller-runtime v0.25.2, runnableGroup.Start). start does not wait for such a
// manager, since it has not begun any work.
func start(ctx context.Context, mgr manager.Manager) error {
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

// onStart is called in every replica after the caches are synced.
type onStart func()

// Start implements manager.Runnable.
func (f onStart) Start(context.Context) error { f(); return nil }

// NeedLeaderElection returns false.
func (onStart) NeedLeaderElection() bool { return false }
