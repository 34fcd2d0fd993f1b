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
	"strings"
	"sync"
	"syscall"
	"time"
)

// binaries are the files of a control plane, and packages what they are built from.
var (
	binaries = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kubectl"}
	packages = []string{
		"go.etcd.io/etcd/server/v3",
		"k8s.io/kubernetes/cmd/kube-apiserver",
		"k8s.io/kubernetes/cmd/kube-controller-manager",
		"k8s.io/kubernetes/cmd/kubectl",
	}
)

// tick is the time between two lines that tell of a build.
const tick = 5 * time.Second

// Root is the folder of the module countersign.dev/countersign, at or above the working directory.
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
			return "", fmt.Errorf("%s is not inside of the module countersign.dev/countersign", start)
		}
	}
}

// Binaries returns the directory of the control plane's binaries. KUBEBUILDER_ASSETS names it,
// if set; otherwise they are built into the user's cache directory, unless they are there
// already: every clone and every package under test shares them, and one process builds while
// the others wait. A build takes some ten minutes and tells progress, which may be nil, how far
// it is.
func Binaries(ctx context.Context, progress io.Writer) (string, error) {
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" {
		if missing := missing(dir); len(missing) > 0 {
			return "", fmt.Errorf("KUBEBUILDER_ASSETS=%s lacks %s: add them, or unset it to have them built", dir, strings.Join(missing, ", "))
		}
		return dir, nil
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
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding a place for the control plane (set KUBEBUILDER_ASSETS to use one of your own): %w", err)
	}
	dir := filepath.Join(cache, "countersign", "controlplane", key)
	if len(missing(dir)) == 0 {
		return dir, nil
	}
	if progress == nil {
		progress = io.Discard
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, dir+".lock", progress)
	if err != nil {
		return "", err
	}
	defer unlock()
	if len(missing(dir)) == 0 { // whoever held the lock has built them
		return dir, nil
	}
	if err := build(ctx, module, kubernetes, dir, progress); err != nil {
		return "", err
	}
	return dir, nil
}

func missing(dir string) (names []string) {
	for _, name := range binaries {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode()&0o111 == 0 {
			names = append(names, name)
		}
	}
	return names
}

// versions reads from go.mod which Kubernetes is built, and a name for the whole set.
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

// lock takes a lock that all processes of this user share. It ends with the process at the latest.
func lock(ctx context.Context, path string, progress io.Writer) (func(), error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for told := false; ; {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), file.Close())
		}
		if !told {
			told = true
			fmt.Fprintln(progress, "waiting for another process, which builds the control plane")
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("waiting for another build of the control plane: %w", ctx.Err()), file.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// build builds into a folder beside dir and renames it, so that dir is whole or not there.
func build(ctx context.Context, module, kubernetes, dir string, progress io.Writer) error {
	start := time.Now()
	temporary, err := os.MkdirTemp(filepath.Dir(dir), "building-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary) //nolint:errcheck // renamed, or of no use
	deps, err := goCommand(ctx, module, append([]string{"list", "-deps"}, packages...)...).Output()
	if err != nil {
		return fmt.Errorf("listing the packages of the control plane: %w", withStderr(err))
	}
	log := &packageLog{}
	tell := func() {
		fmt.Fprintf(progress, "building the control plane, once per machine (about 10 minutes): %d of at most %d packages, %s\n",
			log.count(), bytes.Count(deps, []byte("\n")), time.Since(start).Round(time.Second))
	}
	command := goCommand(ctx, module, append([]string{
		"build", "-v", "-trimpath",
		"-ldflags", "-s -w -X k8s.io/component-base/version.gitVersion=" + kubernetes, "-o", temporary + string(filepath.Separator),
	}, packages...)...)
	command.Stderr = log
	if err := command.Start(); err != nil {
		return fmt.Errorf("building the control plane: %w", err)
	}
	built := make(chan error, 1)
	go func() { built <- command.Wait() }()
	tell()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for building := true; building; {
		select {
		case <-ticker.C: // and not each line: the linker is silent for a while
			tell()
		case err := <-built:
			if err != nil {
				return fmt.Errorf("building the control plane: %w\n%s", err, log.tail())
			}
			building = false
		}
	}
	// A binary is called as the last element of its package, but for etcd.
	if err := os.Rename(filepath.Join(temporary, "server"), filepath.Join(temporary, "etcd")); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Chmod(temporary, 0o755); err != nil {
		return err
	}
	if err := os.Rename(temporary, dir); err != nil {
		return err
	}
	fmt.Fprintf(progress, "built the control plane in %s: %s\n", time.Since(start).Round(time.Second), dir)
	return nil
}

// packageLog keeps what go build -v says: a line for each package that it compiles.
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

// goCommand is a command of Go that depends on nothing the user has set for other builds.
func goCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir = dir
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	// Interrupted, Go ends its compilers and removes its scratch folder; killed, it would not.
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

// tail is the end of a log, long enough to show a cause.
func tail(log []byte) []byte { return log[max(0, len(log)-4096):] }
