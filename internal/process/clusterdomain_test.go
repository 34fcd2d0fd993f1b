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
	run := func(args ...string) (domain string, exit int, output string) {
		var stdout, stderr bytes.Buffer
		exit = Command{
			Name:     "countersign-test",
			AddFlags: func(fs *flag.FlagSet) { AddClusterDomain(fs, &domain) },
			Run:      func(context.Context, Config) error { return nil },
		}.Main(t.Context(), args, &stdout, &stderr)
		return domain, exit, stdout.String() + stderr.String()
	}
	for want, args := range map[string][]string{
		"cluster.local":   nil,
		"k8s":             {"--cluster-domain=k8s"},
		"c-1.example.com": {"--cluster-domain", "c-1.example.com"},
	} {
		if got, exit, output := run(args...); got != want || exit != exitOK {
			t.Errorf("%q: got %q, exit status %d: %s", args, got, exit, output)
		}
	}
	for _, bad := range []string{"", ".", "Cluster.Local", "cluster.local.", ".cluster.local", "cluster..local", "cluster_local", "*.local", "\u212Aube.local", "cluster.local ", strings.Repeat("a.", 127) + "a"} {
		_, exit, output := run("--cluster-domain=" + bad)
		want := fmt.Sprintf("countersign-test: invalid value %q for flag -cluster-domain: want a DNS name in lower case without a dot at either end, such as cluster.local: the domain after svc in the search line of a Pod's /etc/resolv.conf\nTry 'countersign-test --help'.\n", bad)
		if exit != exitUsage || output != want {
			t.Errorf("%q: exit status %d, got %s", bad, exit, output)
		}
	}
	if _, _, help := run("--help"); !strings.Contains(help, "  --cluster-domain=domain\n        DNS domain of the cluster. Default \"cluster.local\".\n") {
		t.Errorf("help: %s", help)
	}
}
