// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/policies"
)

// TestSlowNode: with a tenth of a CPU, a shipped policy that was changed is compiled and passes its tests.
func TestSlowNode(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	limitCPU(t)
	pkg, modules, _ := policies.Builtin("pod-client")
	modules["pod_client.rego"] += "# changed\n"
	start := time.Now()
	got, err := Check(t.Context(), evaluator.Source{Package: pkg, Modules: modules, Parameters: map[string]any{"maxExpirationSeconds": 3600, "defaultExpirationSeconds": 3600}})
	if err != nil || got.Tests.Failures != nil || got.Tests.Percent != 100 {
		t.Errorf("got %+v, %v", got, err)
	}
	t.Logf("%d tests after %s", got.Tests.Tests, time.Since(start).Round(time.Second))
}

// limitCPU moves this process to a cgroup with a tenth of a CPU until the test ends.
func limitCPU(t *testing.T) {
	t.Helper()
	const period, quota = 100_000, 10_000
	name := fmt.Sprintf("countersign-test-%d", os.Getpid())
	for _, version := range []struct {
		parent string
		files  [][2]string
	}{
		{"/sys/fs/cgroup/cpu", [][2]string{{"cpu.cfs_period_us", strconv.Itoa(period)}, {"cpu.cfs_quota_us", strconv.Itoa(quota)}}},
		{"/sys/fs/cgroup", [][2]string{{"cpu.max", fmt.Sprint(quota, " ", period)}}},
	} {
		group := filepath.Join(version.parent, name)
		if err := os.Mkdir(group, 0o750); err != nil {
			continue
		}
		t.Cleanup(func() { _ = os.Remove(group) })
		err := error(nil)
		for _, file := range append(version.files, [2]string{"cgroup.procs", strconv.Itoa(os.Getpid())}) {
			if err == nil {
				err = os.WriteFile(filepath.Join(group, file[0]), []byte(file[1]), 0)
			}
		}
		if err == nil {
			t.Cleanup(func() {
				_ = os.WriteFile(filepath.Join(version.parent, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
			})
			return
		}
	}
	t.Skip("needs a cgroup with the cpu controller that this user can write")
}
