// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

// container is what deploy/ says about the only container of a Deployment.
type container struct {
	env    []string // NAME=value, without the values that Kubernetes fills in
	memory int64    // the memory limit in bytes
}

// readContainer reads deploy/base/<name>/deployment.yaml.
func readContainer(root, name string) (container, error) {
	path := filepath.Join(root, "deploy", "base", name, "deployment.yaml")
	raw, err := os.ReadFile(path)
	if err != nil {
		return container{}, err
	}
	var deployment appsv1.Deployment
	if err := yaml.UnmarshalStrict(raw, &deployment); err != nil {
		return container{}, fmt.Errorf("%s: %w", path, err)
	}
	containers := deployment.Spec.Template.Spec.Containers
	if len(containers) != 1 {
		return container{}, fmt.Errorf("%s has %d containers, want 1", path, len(containers))
	}
	c := container{memory: containers[0].Resources.Limits.Memory().Value()}
	for _, variable := range containers[0].Env {
		if variable.Value != "" {
			c.env = append(c.env, variable.Name+"="+variable.Value)
		}
	}
	if c.memory == 0 {
		return container{}, fmt.Errorf("%s has no memory limit", path)
	}
	return c, nil
}

// limiter limits the memory of a process and of its children.
type limiter struct {
	kind   string // for the table
	dir    string // the cgroup; empty with RLIMIT_DATA
	memory int64
}

const cgroupRoot = "/sys/fs/cgroup"

// newLimiter creates a cgroup with this memory limit, or returns a limiter with RLIMIT_DATA if it cannot.
func newLimiter(name string, memory int64) *limiter {
	name = fmt.Sprintf("countersign-soak-%d-%s", os.Getpid(), name)
	limit := strconv.FormatInt(memory, 10)
	if dir := filepath.Join(cgroupRoot, "memory", name); createCgroup(dir, "memory.limit_in_bytes", limit) == nil {
		return &limiter{"cgroup v1", dir, memory}
	}
	for _, parent := range unifiedParents() {
		if dir := filepath.Join(parent, name); createCgroup(dir, "memory.max", limit) == nil {
			// The kubelet sets it too: an out-of-memory kill ends the whole container.
			_ = writeCgroup(filepath.Join(dir, "memory.oom.group"), "1")
			return &limiter{"cgroup v2", dir, memory}
		}
	}
	return &limiter{kind: "RLIMIT_DATA", memory: memory}
}

func createCgroup(dir, file, value string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := writeCgroup(filepath.Join(dir, file), value); err != nil {
		return errors.Join(err, os.Remove(dir))
	}
	return nil
}

func writeCgroup(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// unifiedParents returns directories of cgroup v2 that may have children with a memory limit: the parent of this
// process's cgroup, and the root.
func unifiedParents() []string {
	var parents []string
	raw, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(raw)) {
		if path, found := strings.CutPrefix(strings.TrimSpace(line), "0::"); found && path != "/" {
			parents = append(parents, filepath.Dir(filepath.Join(cgroupRoot, path)))
		}
	}
	return append(parents, cgroupRoot)
}

// prefix returns a command that enters the cgroup, or sets RLIMIT_DATA, and replaces itself with its arguments.
func (l *limiter) prefix() []string {
	if l.dir != "" {
		return []string{"sh", "-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(l.dir, "cgroup.procs")}
	}
	return []string{"prlimit", "--data=" + strconv.FormatInt(l.memory, 10)}
}

// resident returns the anonymous memory of the cgroup in bytes, 0 without one.
func (l *limiter) resident() int64 {
	if l.dir == "" {
		return 0
	}
	stat := filepath.Join(l.dir, "memory.stat")
	return max(field(stat, "total_rss "), field(stat, "anon "))
}

// kills returns the number of out-of-memory kills in the cgroup.
func (l *limiter) kills() int64 {
	if l.dir == "" {
		return 0
	}
	return max(field(filepath.Join(l.dir, "memory.oom_control"), "oom_kill "), field(filepath.Join(l.dir, "memory.events"), "oom_kill "))
}

// remove removes the cgroup, which must be empty.
func (l *limiter) remove() error {
	if l.dir == "" {
		return nil
	}
	var err error
	for range 200 {
		if err = syscall.Rmdir(l.dir); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond) // killed processes leave it a moment later
	}
	return fmt.Errorf("removing %s: %w", l.dir, err)
}

// field returns the number after a prefix in a file of lines, 0 if there is none.
func field(file, prefix string) int64 {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if rest, found := strings.CutPrefix(line, prefix); found {
			n, _ := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			return n
		}
	}
	return 0
}

// clockTick is USER_HZ, the unit of times in /proc/<pid>/stat: a constant on Linux.
const clockTick = 10 * time.Millisecond

// usageOf returns the CPU time of a process and of its children that have ended, and its peak memory in bytes.
func usageOf(pid int) (cpu time.Duration, peak int64) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	// The name of the program is in parentheses and can have any character.
	text := string(raw)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	for _, i := range []int{11, 12, 13, 14} { // utime, stime, cutime, cstime of proc(5)
		if i < len(fields) {
			ticks, _ := strconv.ParseInt(fields[i], 10, 64)
			cpu += time.Duration(ticks) * clockTick
		}
	}
	status := fmt.Sprintf("/proc/%d/status", pid)
	raw, _ = os.ReadFile(status)
	var kib int64
	for line := range strings.Lines(string(raw)) {
		_, _ = fmt.Sscanf(line, "VmHWM: %d kB", &kib)
	}
	return cpu, kib << 10
}
