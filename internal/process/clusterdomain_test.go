// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"strings"
	"testing"
)

func TestAddClusterDomain(t *testing.T) {
	t.Setenv(NamespaceEnv, "of-the-pod")
	run := func(args ...string) (domain string, exit int, output string) {
		var stdout, stderr bytes.Buffer
		exit = Command{
			Name:     "countersign-test",
			AddFlags: func(fs *flag.FlagSet) { AddClusterDomain(fs, &domain) },
			Run:      func(context.Context, Config) error { return nil },
		}.Main(t.Context(), args, &stdout, &stderr)
		return domain, exit, stdout.String() + stderr.String()
	}
	for _, tc := range []struct {
		args []string
		want string
	}{
		{nil, "cluster.local"},
		{[]string{"--cluster-domain=k8s"}, "k8s"},
		{[]string{"--cluster-domain", "c-1.example.com"}, "c-1.example.com"},
	} {
		if got, exit, output := run(tc.args...); got != tc.want || exit != exitOK {
			t.Errorf("%q: got %q, exit status %d: %s", tc.args, got, exit, output)
		}
	}
	for _, bad := range []string{"", ".", "Cluster.Local", "cluster.local.", ".cluster.local", "cluster..local", "cluster_local", "*.local", "\u212Aube.local", "cluster.local ", strings.Repeat("a.", 127) + "a"} {
		_, exit, output := run("--cluster-domain=" + bad)
		want := fmt.Sprintf("countersign-test: invalid value %q for flag -cluster-domain: must be a DNS name in lower case without a leading or trailing dot, such as cluster.local. The search line of /etc/resolv.conf in a Pod has it after svc\nTry 'countersign-test --help'.\n", bad)
		if exit != exitUsage || output != want {
			t.Errorf("%q: exit status %d, got %s", bad, exit, output)
		}
	}
	if _, _, help := run("--help"); !strings.Contains(help, "  --cluster-domain=domain\n        DNS domain of the cluster. Default \"cluster.local\".\n") {
		t.Errorf("help: %s", help)
	}
}
