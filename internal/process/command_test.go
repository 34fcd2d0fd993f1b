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
	t.Setenv(NamespaceEnv, "")
	defaults := Config{
		Name: "countersign-test", Namespace: "countersign-system",
		MetricsBindAddress: ":8080", HealthProbeBindAddress: ":8081", PprofBindAddress: "0", LeaderElect: true, Concurrency: 32,
	}
	with := func(change func(*Config)) *Config {
		c := defaults
		change(&c)
		return &c
	}
	usage := func(fault string) string {
		return "countersign-test: " + fault + "\nTry 'countersign-test --help'.\n"
	}
	tests := map[string]struct {
		args   []string
		fault  error   // of Run
		config *Config // what Run got; nil if it must not run
		exit   int
		stderr string // whole, if Run must not run
	}{
		"no flags":         {config: &defaults},
		"every flag":       {args: []string{"--kubeconfig=/k", "--namespace=ns", "--metrics-bind-address=0", "--health-probe-bind-address=:1", "--pprof-bind-address=:2", "--leader-elect=false", "--concurrency=4", "--log-level=debug"}, config: &Config{Name: "countersign-test", Kubeconfig: "/k", Namespace: "ns", MetricsBindAddress: "0", HealthProbeBindAddress: ":1", PprofBindAddress: ":2", Concurrency: 4, LogLevel: Debug}},
		"level by number":  {args: []string{"--log-level=1"}, config: with(func(c *Config) { c.LogLevel = Debug })},
		"run fails":        {fault: errors.New("no API server"), config: &defaults, exit: 1},
		"unknown flag":     {args: []string{"--colour=red"}, exit: 2, stderr: usage("flag provided but not defined: -colour")},
		"stray argument":   {args: []string{"--leader-elect", "false"}, exit: 2, stderr: usage(`unexpected argument "false": everything is set by flags`)},
		"unknown level":    {args: []string{"--log-level=loud"}, exit: 2, stderr: usage(`invalid value "loud" for flag -log-level: want info or debug`)},
		"no worker":        {args: []string{"--concurrency=0"}, exit: 2, stderr: usage("--concurrency 0: must be at least 1")},
		"namespace is bad": {args: []string{"--namespace=A/b"}, exit: 2, stderr: usage(`--namespace "A/b": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got *Config
			var stdout, stderr bytes.Buffer
			exit := Command{Name: "countersign-test", Run: func(_ context.Context, cfg Config) error {
				got = &cfg
				return test.fault
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
			if test.fault != nil && !strings.Contains(stderr.String(), `"error":"no API server"`) {
				t.Errorf("stderr %q does not tell the fault", stderr.String())
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout %q, want nothing", stdout.String())
			}
		})
	}
}

func TestMain_replicated(t *testing.T) {
	var stdout, stderr bytes.Buffer
	var got *Config
	command := Command{Name: "countersign-test", Replicated: true, Run: func(_ context.Context, cfg Config) error { got = &cfg; return nil }}
	if exit := command.Main(t.Context(), nil, &stdout, &stderr); exit != 0 || got == nil || got.LeaderElect {
		t.Errorf("exit status %d, %+v: it must run without a leader", exit, got)
	}
	if exit := command.Main(t.Context(), []string{"--leader-elect=false"}, &stdout, &stderr); exit != 2 {
		t.Errorf("exit status %d: a flag that says nothing must not be taken", exit)
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
			"  --concurrency=number\n        number of certificate requests worked on at a time. Default \"32\".\n",
			"  --grace=time\n        time to wait. Default \"1m0s\".\n",
			"  --leader-elect[=false]\n",
			"  --log-level=level\n        level of detail, info or debug. Default \"info\".\n",
		} {
			if !strings.Contains(stdout.String(), want) {
				t.Errorf("%s: help lacks %q:\n%s", arg, want, stdout.String())
			}
		}
	}
}

func TestMain_keepsNoMemoryProfileThatNobodyCanAskFor(t *testing.T) {
	before := runtime.MemProfileRate
	t.Cleanup(func() { runtime.MemProfileRate = before })
	for address, want := range map[string]int{"0": 0, "127.0.0.1:0": 4096} {
		runtime.MemProfileRate = 4096
		got := -1
		c := Command{Name: "countersign-test", Run: func(context.Context, Config) error { got = runtime.MemProfileRate; return nil }}
		if exit := c.Main(t.Context(), []string{"--pprof-bind-address=" + address}, new(bytes.Buffer), new(bytes.Buffer)); exit != 0 || got != want {
			t.Errorf("--pprof-bind-address=%s: exit status %d, rate %d, want %d", address, exit, got, want)
		}
	}
}

func TestMain_version(t *testing.T) {
	var stdout bytes.Buffer
	if exit := (Command{Name: "countersign-test"}).Main(t.Context(), []string{"--version"}, &stdout, new(bytes.Buffer)); exit != 0 {
		t.Errorf("exit status %d", exit)
	}
	if want := "countersign-test " + Version() + "\n"; stdout.String() != want {
		t.Errorf("got %q, want %q", stdout.String(), want)
	}
}

func TestNewLogger(t *testing.T) {
	for level, lines := range map[Level]int{Info: 2, Debug: 3} {
		var out bytes.Buffer
		log := NewLogger(&out, level)
		log.Info("first", "signerName", "example.com/serving")
		log.V(1).Info("second")
		log.V(2).Info("never")
		log.Error(errors.New("broken"), "third")
		got := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(got) != lines {
			t.Fatalf("level %v: %d lines, want %d:\n%s", level, len(got), lines, out.String())
		}
		var line struct{ TS, Msg, SignerName string }
		if err := json.Unmarshal([]byte(got[0]), &line); err != nil {
			t.Fatalf("line is not JSON: %v", err)
		}
		if line.Msg != "first" || line.SignerName != "example.com/serving" {
			t.Errorf("line %q lacks message or value", got[0])
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
		t.Errorf("outside of a Pod: got %v, want advice to set --kubeconfig", err)
	}
	_, err = (&Config{Kubeconfig: "/nonexistent"}).RESTConfig()
	if err == nil || !strings.HasPrefix(err.Error(), "reading --kubeconfig: ") {
		t.Errorf("no such file: got %v", err)
	}
}
