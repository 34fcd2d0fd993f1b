// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	// NamespaceEnv is the environment variable that --namespace defaults to. The Deployment sets
	// it from metadata.namespace.
	NamespaceEnv = "POD_NAMESPACE"

	// defaultConcurrency is high because a reconcile mostly waits for the API server. The throughput is
	// 0.85 of that of a bare loop with 32 workers, and 0.6 with 8.
	defaultConcurrency = 32
)

// Config holds the values of the flags that binaries share.
type Config struct {
	// Name of the binary. It is also the user agent and the name of the Lease. Not a flag.
	Name string

	// Kubeconfig is the path of a kubeconfig file; if empty, the ServiceAccount of the Pod is used.
	Kubeconfig string
	// Namespace of Countersign, which holds its Leases, and the Secrets and ConfigMaps that its resources name.
	Namespace string
	// MetricsBindAddress serves /metrics over plain HTTP; "0" disables it.
	MetricsBindAddress string
	// HealthProbeBindAddress serves /healthz and /readyz over plain HTTP; "0" disables it.
	HealthProbeBindAddress string
	// PprofBindAddress serves profiles (net/http/pprof) over plain HTTP; "0" disables it.
	PprofBindAddress string
	// LeaderElect enables leader election: one replica is active and the others are on standby. Without it every
	// replica is active: disable it only for a single replica.
	LeaderElect bool
	// Concurrency is the number of certificate requests that are reconciled at the same time.
	Concurrency int
	// LogLevel is the highest level that is logged.
	LogLevel Level
}

// AddFlags adds the flags of all binaries, and sets their fields to the defaults.
func (c *Config) AddFlags(fs *flag.FlagSet) {
	fs.StringVar(&c.Kubeconfig, "kubeconfig", "",
		"`path` of a kubeconfig file. If empty, the ServiceAccount of the Pod is used.")
	fs.StringVar(&c.Namespace, "namespace", os.Getenv(NamespaceEnv),
		"`namespace` of Countersign. Required, unless "+NamespaceEnv+" sets it.")
	fs.StringVar(&c.MetricsBindAddress, "metrics-bind-address", ":8080",
		"`address` of /metrics, plain HTTP; 0 disables it. No metric has the name of a request or a requester.")
	fs.StringVar(&c.HealthProbeBindAddress, "health-probe-bind-address", ":8081",
		"`address` of /healthz and /readyz, plain HTTP; 0 disables it.")
	fs.StringVar(&c.PprofBindAddress, "pprof-bind-address", "0",
		"`address` of /debug/pprof/, plain HTTP; 0 disables it. Profiles can expose memory contents: bind to a local address such as 127.0.0.1:6060.")
	fs.Var(&c.LogLevel, "log-level", "log `level`, info or debug.")
}

// AddControllerFlags adds the flags of binaries with controllers, which run in the leader only.
func (c *Config) AddControllerFlags(fs *flag.FlagSet) {
	fs.BoolVar(&c.LeaderElect, "leader-elect", true,
		"Enable leader election, so that only one replica is active. Disable it only for a single replica.")
	fs.IntVar(&c.Concurrency, "concurrency", defaultConcurrency,
		"`number` of certificate requests that are reconciled at the same time.")
}

// Validate returns an error that names each flag with an invalid value.
func (c *Config) Validate() error {
	var errs []error
	if c.Namespace == "" {
		errs = append(errs, errors.New("--namespace: required, unless the environment variable "+NamespaceEnv+" is set"))
	} else if problems := validation.IsDNS1123Label(c.Namespace); len(problems) > 0 {
		errs = append(errs, fmt.Errorf("--namespace %q: %s", c.Namespace, strings.Join(problems, "; ")))
	}
	if c.Concurrency < 1 {
		errs = append(errs, fmt.Errorf("--concurrency %d: must be at least 1", c.Concurrency))
	}
	return errors.Join(errs...)
}
