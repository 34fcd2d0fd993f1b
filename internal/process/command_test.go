// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMain_commandLine(t *testing.T) {
	t.Setenv(NamespaceEnv, "of-the-pod")
	defaults := Config{
		Name: "countersign-test", Namespace: "of-the-pod",
		MetricsBindAddress: ":8080", HealthProbeBindAddress: ":8081", PprofBindAddress: "0", LeaderElect: true, Concurrency: 32,
	}
	with := func(change func(*Config)) *Config {
		c := defaults
		change(&c)
		return &c
	}
	usage := func(problem string) string {
		return "countersign-test: " + problem + "\nTry 'countersign-test --help'.\n"
	}
	tests := []struct {
		name   string
		args   []string
		err    error   // of Run
		config *Config // passed to Run; nil if Run must not be called
		exit   int
		stderr string // if Run must not be called
	}{
		{name: "no flags", config: &defaults},
		{name: "every flag", args: []string{"--kubeconfig=/k", "--namespace=ns", "--metrics-bind-address=0", "--health-probe-bind-address=:1", "--pprof-bind-address=:2", "--leader-elect=false", "--concurrency=4", "--log-level=debug"}, config: &Config{Name: "countersign-test", Kubeconfig: "/k", Namespace: "ns", MetricsBindAddress: "0", HealthProbeBindAddress: ":1", PprofBindAddress: ":2", Concurrency: 4, LogLevel: Debug}},
		{name: "level by number", args: []string{"--log-level=1"}, config: with(func(c *Config) { c.LogLevel = Debug })},
		{name: "Run fails", err: errors.New("no API server"), config: &defaults, exit: 1},
		{name: "unknown flag", args: []string{"--colour=red"}, exit: 2, stderr: usage("flag provided but not defined: -colour")},
		{name: "stray argument", args: []string{"--leader-elect", "false"}, exit: 2, stderr: usage(`unexpected argument "false": use flags only`)},
		{name: "unknown level", args: []string{"--log-level=loud"}, exit: 2, stderr: usage(`invalid value "loud" for flag -log-level: must be info or debug`)},
		{name: "no workers", args: []string{"--concurrency=0"}, exit: 2, stderr: usage("--concurrency 0: must be at least 1")},
		{name: "no namespace", args: []string{"--namespace="}, exit: 2, stderr: usage("--namespace: required, unless the environment variable POD_NAMESPACE is set")},
		{name: "invalid namespace", args: []string{"--namespace=A/b"}, exit: 2, stderr: usage(`--namespace "A/b": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got *Config
			var stdout, stderr bytes.Buffer
			exit := Command{Name: "countersign-test", Run: func(_ context.Context, cfg Config) error {
				got = &cfg
				return test.err
			}}.Main(t.Context(), test.args, &stdout, &stderr)
			if exit != test.exit {
				t.Errorf("exit status %d, want %d", exit, test.exit)
			}
			if diff := cmp.Diff(test.config, got); diff != "" {
				t.Errorf("config (-want +got):\n%s", diff)
			}
			if test.config == nil && stderr.String() != test.stderr {
				t.Errorf("stderr %q, want %q", stderr.String(), test.stderr)
			}
			if test.err != nil && !strings.Contains(stderr.String(), `"error":"no API server"`) {
				t.Errorf("stderr %q does not have the error", stderr.String())
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout %q, want nothing", stdout.String())
			}
		})
	}
}

func TestMain_replicated(t *testing.T) {
	t.Setenv(NamespaceEnv, "of-the-pod")
	var stdout, stderr bytes.Buffer
	var got *Config
	command := Command{Name: "countersign-test", Replicated: true, Run: func(_ context.Context, cfg Config) error { got = &cfg; return nil }}
	if exit := command.Main(t.Context(), nil, &stdout, &stderr); exit != 0 || got == nil || got.LeaderElect {
		t.Errorf("exit status %d, %+v: want a run without leader election", exit, got)
	}
	if exit := command.Main(t.Context(), []string{"--leader-elect=false"}, &stdout, &stderr); exit != 2 {
		t.Errorf("--leader-elect: exit status %d, want 2", exit)
	}
}

func TestMain_namespaceFromEnvironment(t *testing.T) {
	t.Setenv(NamespaceEnv, "elsewhere")
	var got string
	Command{Name: "c", Run: func(_ context.Context, cfg Config) error { got = cfg.Namespace; return nil }}.
		Main(t.Context(), nil, new(bytes.Buffer), new(bytes.Buffer))
	if got != "elsewhere" {
		t.Errorf("namespace %q, want that of %s", got, NamespaceEnv)
	}
}

func TestMain_help(t *testing.T) {
	for _, arg := range []string{"-h", "-help", "--help"} {
		var stdout, stderr bytes.Buffer
		exit := Command{
			Name: "countersign-test", Summary: "Tests things.", Examples: []string{"countersign-test --kubeconfig=k"},
			AddFlags: func(fs *flag.FlagSet) { fs.Duration("grace", time.Minute, "`time` to wait.") },
			Run:      func(context.Context, Config) error { t.Error("ran"); return nil },
		}.Main(t.Context(), []string{arg}, &stdout, &stderr)
		if exit != 0 || stderr.Len() > 0 {
			t.Errorf("%s: exit status %d, stderr %q", arg, exit, stderr.String())
		}
		for _, want := range []string{
			"Tests things.\n\nUsage:\n  countersign-test [flags]\n",
			"Examples:\n  countersign-test --kubeconfig=k\n",
			"  --concurrency=number\n        number of certificate requests that are reconciled at the same time. Default \"32\".\n",
			"  --grace=time\n        time to wait. Default \"1m0s\".\n",
			"  --leader-elect[=false]\n",
			"  --log-level=level\n        log level, info or debug. Default \"info\".\n",
		} {
			if !strings.Contains(stdout.String(), want) {
				t.Errorf("%s: help lacks %q:\n%s", arg, want, stdout.String())
			}
		}
	}
}

func TestMain_memoryProfile(t *testing.T) {
	t.Setenv(NamespaceEnv, "of-the-pod")
	before := runtime.MemProfileRate
	t.Cleanup(func() { runtime.MemProfileRate = before })
	for _, tc := range []struct {
		address string
		want    int
	}{{"0", 0}, {"127.0.0.1:0", 4096}} {
		runtime.MemProfileRate = 4096
		got := -1
		c := Command{Name: "countersign-test", Run: func(context.Context, Config) error { got = runtime.MemProfileRate; return nil }}
		if exit := c.Main(t.Context(), []string{"--pprof-bind-address=" + tc.address}, new(bytes.Buffer), new(bytes.Buffer)); exit != 0 || got != tc.want {
			t.Errorf("--pprof-bind-address=%s: exit status %d, rate %d, want %d", tc.address, exit, got, tc.want)
		}
	}
}

func TestMain_version(t *testing.T) {
	var stdout bytes.Buffer
	if exit := (Command{Name: "countersign-test"}).Main(t.Context(), []string{"--version"}, &stdout, new(bytes.Buffer)); exit != 0 {
		t.Errorf("exit status %d", exit)
	}
	if want := "countersign-test " + Version() + "\ncommit: "; !strings.HasPrefix(stdout.String(), want) {
		t.Errorf("got %q, want %q", stdout.String(), want)
	}
}

func TestNewLogger(t *testing.T) {
	for _, tc := range []struct {
		level Level
		lines int
	}{{Info, 2}, {Debug, 3}} {
		var out bytes.Buffer
		log := NewLogger(&out, tc.level)
		log.Info("first", "signerName", "example.com/serving")
		log.V(1).Info("second")
		log.V(2).Info("never")
		log.Error(errors.New("broken"), "third")
		got := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(got) != tc.lines {
			t.Fatalf("level %v: %d lines, want %d:\n%s", tc.level, len(got), tc.lines, out.String())
		}
		var line struct{ TS, Msg, SignerName string }
		if err := json.Unmarshal([]byte(got[0]), &line); err != nil {
			t.Fatalf("line is not JSON: %v", err)
		}
		if line.Msg != "first" || line.SignerName != "example.com/serving" {
			t.Errorf("line %q does not have the message and the value", got[0])
		}
		if _, err := time.Parse(time.RFC3339Nano, line.TS); err != nil {
			t.Errorf("time: %v", err)
		}
	}
}

func TestRESTConfig(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	_, err := (&Config{}).RESTConfig()
	if err == nil || !strings.Contains(err.Error(), "set --kubeconfig") {
		t.Errorf("outside of a Pod: got %v, want an error that mentions --kubeconfig", err)
	}
	_, err = (&Config{Kubeconfig: "/nonexistent"}).RESTConfig()
	if err == nil || !strings.HasPrefix(err.Error(), "reading --kubeconfig: ") {
		t.Errorf("no such file: got %v", err)
	}
}
