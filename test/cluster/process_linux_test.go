// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"countersign.dev/countersign/test/cluster"
)

// everything are the processes of a control plane with a controller manager.
var everything = []string{"etcd", "kube-apiserver", "kube-controller-manager"}

func TestStopLeavesNoProcess(t *testing.T) {
	binaries(t)
	dir := filepath.Join(t.TempDir(), "data")
	c, err := cluster.Start(t.Context(), cluster.Options{Dir: dir, ControllerManager: true})
	must(t, err)
	if diff := cmp.Diff(everything, running(t, dir)); diff != "" {
		t.Errorf("before Stop: %s", diff)
	}
	must(t, c.Stop())
	if left := running(t, dir); len(left) > 0 {
		t.Errorf("after Stop: %v", left)
	}
	if _, err := os.Stat(filepath.Join(dir, "kube-apiserver.log")); err != nil {
		t.Errorf("Options.Dir was not kept: %v", err)
	}
}

// TestKilledLeavesNoProcess runs this test binary a second time as the parent of a control plane, and kills it.
func TestKilledLeavesNoProcess(t *testing.T) {
	const dirOfChild = "CLUSTER_TEST_DIR"
	if dir := os.Getenv(dirOfChild); dir != "" {
		_, err := cluster.Start(t.Context(), cluster.Options{Dir: dir, ControllerManager: true})
		must(t, err)
		os.Stdout.WriteString("started\n") //nolint:errcheck // its parent sees
		select {}
	}
	binaries(t)
	dir := filepath.Join(t.TempDir(), "data")
	parent := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledLeavesNoProcess$", "-test.timeout=5m")
	parent.Env, parent.Stderr = append(os.Environ(), dirOfChild+"="+dir), os.Stderr
	output, err := parent.StdoutPipe()
	must(t, err)
	must(t, parent.Start())
	for lines := bufio.NewScanner(output); lines.Scan() && lines.Text() != "started"; {
		t.Log(lines.Text())
	}
	if diff := cmp.Diff(everything, running(t, dir)); diff != "" {
		t.Errorf("before the kill: %s", diff)
	}
	must(t, parent.Process.Kill())
	_ = parent.Wait() // killed
	eventually(t, func(context.Context) (bool, error) { return len(running(t, dir)) == 0, nil })
}

// running returns the names of the processes of the control plane with this data directory, which is in their arguments.
func running(t *testing.T, dir string) (names []string) {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it exited meanwhile
		}
		if command, arguments, _ := bytes.Cut(raw, []byte{0}); bytes.Contains(arguments, []byte(dir)) {
			names = append(names, filepath.Base(string(command)))
		}
	}
	slices.Sort(names)
	return names
}
