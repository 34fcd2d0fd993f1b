// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime"
	"strings"

	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// Exit statuses of [Command.Main].
const (
	exitOK    = 0
	exitError = 1 // Run returned an error
	exitUsage = 2 // the command line is invalid; Run was not called
)

// Command is one binary.
type Command struct {
	// Name of the binary, such as "countersign-signer". It becomes [Config.Name].
	Name string
	// Summary describes the binary in a few lines, at the start of the help text.
	Summary string
	// Examples are command lines for the help text.
	Examples []string
	// AddFlags adds the flags of this binary only. Can be nil.
	AddFlags func(*flag.FlagSet)
	// Replicated is true for a server whose replicas are all active. It has no leader, and no flags for
	// leader election and concurrency.
	Replicated bool
	// Run does the work until ctx ends. The flags are valid and the logger is set when it is called.
	Run func(ctx context.Context, cfg Config) error
}

// Main parses args, which do not include the name of the program, and calls Run. It returns the exit
// status: 0 if Run returned nil, or for --help and --version; 1 if Run returned an error; 2 if args
// are invalid.
//
// Help and version are written to stdout. Errors and logs, one JSON object a line, are written to stderr.
// Main sets the loggers of controller-runtime and klog: call it once in a process.
func (c Command) Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg := Config{Name: c.Name, Concurrency: defaultConcurrency}
	fs := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // or else the flag package prints errors and help in its own format
	fs.Usage = func() {}
	cfg.AddFlags(fs)
	if !c.Replicated {
		cfg.AddControllerFlags(fs)
	}
	if c.AddFlags != nil {
		c.AddFlags(fs)
	}
	version := fs.Bool("version", false, "Print the version, the commit, and the versions of Go and OPA, and exit.")

	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, c.help(fs))
		return exitOK
	case err == nil && *version:
		fmt.Fprintf(stdout, "%s %s", c.Name, buildInfo())
		return exitOK
	case err == nil && fs.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q: use flags only", fs.Arg(0))
	case err == nil:
		err = cfg.Validate()
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\nTry '%s --help'.\n", c.Name, err, c.Name)
		return exitUsage
	}

	if cfg.PprofBindAddress == "0" {
		runtime.MemProfileRate = 0 // only pprof uses the samples, whose stacks take megabytes
	}
	log := NewLogger(stderr, cfg.LogLevel)
	ctrl.SetLogger(log)
	klog.SetLogger(log.WithName("client-go"))
	log.Info("starting", "command", c.Name, "version", Version(), "revision", buildInfo().revision, "namespace", cfg.Namespace)
	if err := c.Run(ctrl.LoggerInto(ctx, log), cfg); err != nil {
		log.Error(err, "exiting on error")
		return exitError
	}
	log.Info("stopped")
	return exitOK
}

// help returns the text for --help.
func (c Command) help(fs *flag.FlagSet) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nUsage:\n  %s [flags]\n", strings.TrimSpace(c.Summary), c.Name)
	if len(c.Examples) > 0 {
		b.WriteString("\nExamples:\n")
		for _, example := range c.Examples {
			fmt.Fprintf(&b, "  %s\n", example)
		}
	}
	b.WriteString("\nFlags:\n")
	fs.VisitAll(func(f *flag.Flag) {
		placeholder, usage := flag.UnquoteUsage(f)
		fmt.Fprintf(&b, "  --%s", f.Name)
		switch {
		case isBool(f):
			if f.DefValue == "true" {
				b.WriteString("[=false]")
			}
		case placeholder != "":
			b.WriteString("=" + placeholder)
		}
		fmt.Fprintf(&b, "\n        %s", usage)
		if f.DefValue != "" && !isBool(f) {
			fmt.Fprintf(&b, " Default %q.", f.DefValue)
		}
		b.WriteByte('\n')
	})
	b.WriteString("  --help\n        Print this help and exit.\n")
	return b.String()
}

func isBool(f *flag.Flag) bool {
	v, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && v.IsBoolFlag()
}
