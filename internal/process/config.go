// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"cmp"
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

	defaultNamespace = "countersign-system"

	// defaultConcurrency: reconciles wait for the API server far longer than they compute; 32
	// gave 0.85 of the throughput of a bare loop where 8 gave 0.6.
	defaultConcurrency = 32
)

// Config is what the flags of a controller say.
type Config struct {
	// Name of the binary: its user agent, and the name of its Lease. Not a flag.
	Name string

	// Kubeconfig is the path of a kubeconfig file; empty means the Pod's own ServiceAccount.
	Kubeconfig string
	// Namespace that Countersign runs in: Leases, Secrets and ConfigMaps it names are there.
	Namespace string
	// MetricsBindAddress serves /metrics over plain HTTP; "0" turns it off.
	MetricsBindAddress string
	// HealthProbeBindAddress serves /healthz and /readyz over plain HTTP; "0" turns it off.
	HealthProbeBindAddress string
	// PprofBindAddress serves profiles (net/http/pprof) over plain HTTP; "0" turns it off.
	PprofBindAddress string
	// LeaderElect makes one replica work while the others stand by. Without it two replicas
	// do everything twice; turn it off only where there is one.
	LeaderElect bool
	// Concurrency is how many certificate requests are worked on at a time.
	Concurrency int
	// LogLevel is the most detailed level that is logged.
	LogLevel Level
}

// AddFlags adds a flag for each field but those of [Config.AddControllerFlags], and sets each to
// its default.
func (c *Config) AddFlags(fs *flag.FlagSet) {
	fs.StringVar(&c.Kubeconfig, "kubeconfig", "",
		"`path` of a kubeconfig file. Leave it out in a Pod: its ServiceAccount is used.")
	fs.StringVar(&c.Namespace, "namespace", cmp.Or(os.Getenv(NamespaceEnv), defaultNamespace),
		"`namespace` Countersign runs in; "+NamespaceEnv+" sets the default.")
	fs.StringVar(&c.MetricsBindAddress, "metrics-bind-address", ":8080",
		"`address` of /metrics, plain HTTP; 0 turns it off. Metrics name no request and no requester.")
	fs.StringVar(&c.HealthProbeBindAddress, "health-probe-bind-address", ":8081",
		"`address` of /healthz and /readyz, plain HTTP; 0 turns it off.")
	fs.StringVar(&c.PprofBindAddress, "pprof-bind-address", "0",
		"`address` of /debug/pprof/, plain HTTP; 0 turns it off. Profiles can show what is in memory: use 127.0.0.1:6060 or the like.")
	fs.Var(&c.LogLevel, "log-level", "`level` of detail, info or debug.")
}

// AddControllerFlags adds the flags of a process that works in one replica at a time.
func (c *Config) AddControllerFlags(fs *flag.FlagSet) {
	fs.BoolVar(&c.LeaderElect, "leader-elect", true,
		"Work in one replica at a time. Turn it off only where there is but one.")
	fs.IntVar(&c.Concurrency, "concurrency", defaultConcurrency,
		"`number` of certificate requests worked on at a time.")
}

// Validate says what is wrong with a Config, if anything, and by which flag to mend it.
func (c *Config) Validate() error {
	var errs []error
	if problems := validation.IsDNS1123Label(c.Namespace); len(problems) > 0 {
		errs = append(errs, fmt.Errorf("--namespace %q: %s", c.Namespace, strings.Join(problems, "; ")))
	}
	if c.Concurrency < 1 {
		errs = append(errs, fmt.Errorf("--concurrency %d: must be at least 1", c.Concurrency))
	}
	return errors.Join(errs...)
}
