// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

const opaModule = "github.com/open-policy-agent/opa"

// build describes a binary. Go records it.
type build struct {
	version    string // a tag, a pseudo-version, or "(devel)"
	revision   string // of the commit; "unknown" if the binary was built outside of a repository
	time       string // of the commit; can be empty
	modified   bool   // there were changes that are not in the commit
	goVersion  string
	opaVersion string // empty if OPA is not linked
}

// buildInfo returns the description of this binary.
func buildInfo() build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return buildOf(info)
}

func buildOf(info *debug.BuildInfo) build {
	b := build{version: cmp.Or(info.Main.Version, "(devel)"), revision: "unknown", goVersion: cmp.Or(info.GoVersion, runtime.Version())}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.revision = s.Value
		case "vcs.time":
			b.time = s.Value
		case "vcs.modified":
			b.modified = s.Value == "true"
		}
	}
	for _, module := range info.Deps {
		if module.Path == opaModule {
			b.opaVersion = module.Version
		}
	}
	return b
}

// String returns the lines of --version after the name of the command.
func (b build) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s\ncommit: %s", b.version, b.revision)
	if b.time != "" {
		s.WriteString(", " + b.time)
	}
	if b.modified {
		s.WriteString(", modified")
	}
	fmt.Fprintf(&s, "\ngo: %s\n", b.goVersion)
	if b.opaVersion != "" {
		fmt.Fprintf(&s, "opa: %s\n", b.opaVersion)
	}
	return s.String()
}

// Version returns the version of the module that Go recorded in the binary: a tag, a pseudo-version, or
// "(devel)".
func Version() string { return buildInfo().version }

// registerBuild registers the metric of the build, whose value is always 1.
func registerBuild(registerer prometheus.Registerer, b build) error {
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "countersign_build_info",
		Help:        "1, with the version, the revision and the Go version that the process was built from as labels.",
		ConstLabels: prometheus.Labels{"version": b.version, "revision": b.revision, "goversion": b.goVersion},
	})
	gauge.Set(1)
	if err := registerer.Register(gauge); err != nil && !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
		return fmt.Errorf("registering the metric of the build: %w", err)
	}
	return nil
}
