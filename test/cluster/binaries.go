// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The binaries of a control plane.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Kubectl           = "kubectl"
)

// packages are what the binaries are built from.
var packages = map[string]string{
	Etcd:              "go.etcd.io/etcd/server/v3",
	APIServer:         "k8s.io/kubernetes/cmd/kube-apiserver",
	ControllerManager: "k8s.io/kubernetes/cmd/kube-controller-manager",
	Kubectl:           "k8s.io/kubernetes/cmd/kubectl",
}

// progressInterval is the time between two progress lines of a build.
const progressInterval = 5 * time.Second

// Root returns the directory of the module countersign.dev/countersign, at or above the working directory.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for start := dir; ; dir = filepath.Dir(dir) {
		gomod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.Contains(gomod, []byte("module countersign.dev/countersign\n")) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not inside the module countersign.dev/countersign", start)
		}
	}
}

// Binaries returns a directory that has etcd, kube-apiserver, kubectl and the binaries in more, such as
// [ControllerManager].
//
// If KUBEBUILDER_ASSETS is set, it names the directory, and a binary that is missing there is an error. Otherwise
// Binaries builds those that are missing into the user's cache directory, which all clones and tests of the user share.
// One process builds and the others wait. The build of all binaries takes some 10 minutes. It reports to progress, which
// can be nil.
func Binaries(ctx context.Context, progress io.Writer, more ...string) (string, error) {
	names := append([]string{Etcd, APIServer, Kubectl}, more...)
	for _, name := range more {
		if packages[name] == "" {
			return "", fmt.Errorf("unknown binary %q of the control plane", name)
		}
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	module := filepath.Join(root, "test", "controlplane")
	kubernetes, key, err := versions(module)
	if err != nil {
		return "", err
	}
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" {
		return dir, missingAssets(dir, kubernetes, missing(dir, names))
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache directory for the control plane (set KUBEBUILDER_ASSETS to use existing binaries): %w", err)
	}
	dir := filepath.Join(cache, "countersign", "controlplane", key)
	if len(missing(dir, names)) == 0 {
		return dir, nil
	}
	if progress == nil {
		progress = io.Discard
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, dir+".lock", progress)
	if err != nil {
		return "", err
	}
	defer unlock()
	if names = missing(dir, names); len(names) == 0 { // the previous holder of the lock built them
		return dir, nil
	}
	if err := build(ctx, module, kubernetes, dir, names, progress); err != nil {
		return "", err
	}
	return dir, nil
}

// missing returns those of the names that are not executable files in a directory.
func missing(dir string, names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		info, err := os.Stat(filepath.Join(dir, name))
		return err == nil && info.Mode()&0o111 != 0
	})
}

// missingAssets returns an error that says how to install the binaries that are missing in KUBEBUILDER_ASSETS, and nil
// if there are none.
func missingAssets(dir, kubernetes string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	err := fmt.Errorf("KUBEBUILDER_ASSETS=%s: missing %s", dir, strings.Join(names, ", "))
	if slices.Contains(names, ControllerManager) {
		return fmt.Errorf("%w: unset KUBEBUILDER_ASSETS to build from source, or add the binaries (setup-envtest does not install %s)", err, ControllerManager)
	}
	minor := kubernetes[1:strings.LastIndex(kubernetes, ".")]
	return fmt.Errorf("%w: run 'export KUBEBUILDER_ASSETS=$(setup-envtest use %s.x -p path)', or unset it to build from source", err, minor)
}

// versions returns the version of Kubernetes in go.mod, and the key of the binaries in the cache.
func versions(module string) (kubernetes, key string, err error) {
	gomod, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		return "", "", err
	}
	find := func(path string) string {
		match := regexp.MustCompile(`(?m)^\s*` + regexp.QuoteMeta(path) + ` (v\S+)`).FindSubmatch(gomod)
		if match == nil {
			return ""
		}
		return string(match[1])
	}
	kubernetes, etcd := find("k8s.io/kubernetes"), find("go.etcd.io/etcd/server/v3")
	if kubernetes == "" || etcd == "" {
		return "", "", fmt.Errorf("%s/go.mod names no version of Kubernetes or etcd", module)
	}
	return kubernetes, fmt.Sprintf("kubernetes-%s-etcd-%s-%s-%s", kubernetes, etcd, runtime.GOOS, runtime.GOARCH), nil
}

// lock takes a lock that all processes of the user share. The kernel releases it when the process ends.
func lock(ctx context.Context, path string, progress io.Writer) (func(), error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for reported := false; ; {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), file.Close())
		}
		if !reported {
			reported = true
			fmt.Fprintln(progress, "waiting for another process that builds the control plane")
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("waiting for another process that builds the control plane: %w", ctx.Err()), file.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// build builds binaries in a temporary directory and moves each into dir, so that a binary in dir is complete.
func build(ctx context.Context, module, kubernetes, dir string, names []string, progress io.Writer) error {
	start := time.Now()
	temporary, err := os.MkdirTemp(filepath.Dir(dir), "building-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary) //nolint:errcheck // temporary
	var paths []string
	for _, name := range names {
		paths = append(paths, packages[name])
	}
	deps, err := goCommand(ctx, module, append([]string{"list", "-deps"}, paths...)...).Output()
	if err != nil {
		return fmt.Errorf("listing the packages of the control plane: %w", withStderr(err))
	}
	log := &packageLog{}
	command := goCommand(ctx, module, append([]string{
		"build", "-v", "-trimpath",
		"-ldflags", "-s -w -X k8s.io/component-base/version.gitVersion=" + kubernetes, "-o", temporary + string(filepath.Separator),
	}, paths...)...)
	command.Stderr = log
	err = runWithProgress(command, func() {
		fmt.Fprintf(progress, "building %s from source, once per machine (all binaries take some 10 minutes): %d of at most %d packages, %s\n",
			strings.Join(names, ", "), log.count(), bytes.Count(deps, []byte("\n")), time.Since(start).Round(time.Second))
	})
	if err != nil {
		return fmt.Errorf("building %s: %w\n%s", strings.Join(names, ", "), err, log.tail())
	}
	for _, name := range names {
		// go build names a binary after the last element of its package, but ignores the version suffix of etcd's.
		built := strings.TrimSuffix(packages[name], "/v3")
		if err := os.Rename(filepath.Join(temporary, filepath.Base(built)), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	fmt.Fprintf(progress, "built %s in %s: %s\n", strings.Join(names, ", "), time.Since(start).Round(time.Second), dir)
	return nil
}

// runWithProgress runs a command and calls report at once and at each interval. The interval is fixed because the
// linker prints nothing for a while.
func runWithProgress(command *exec.Cmd, report func()) error {
	if err := command.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- command.Wait() }()
	report()
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			report()
		case err := <-done:
			return err
		}
	}
}

// packageLog keeps the output of go build -v: one line for each package that it compiles.
type packageLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *packageLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *packageLog) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.text.Bytes(), []byte("\n")) - bytes.Count(l.text.Bytes(), []byte("go: downloading "))
}

func (l *packageLog) tail() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return tail(l.text.Bytes())
}

// goCommand returns a go command that ignores the build settings of the user.
func goCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir = dir
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	// On an interrupt, go ends its compilers and removes its work directory. A kill would leave both.
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = 10 * time.Second
	return command
}

func withStderr(err error) error {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return fmt.Errorf("%w\n%s", err, tail(exit.Stderr))
	}
	return err
}

// tail returns the end of a log, long enough to show a cause.
func tail(log []byte) []byte { return log[max(0, len(log)-4096):] }
