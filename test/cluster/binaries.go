// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bufio"
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
	"syscall"
	"time"
)

// binaries by the package that each is built from.
var binaries = map[string]string{
	"etcd":                    "go.etcd.io/etcd/server/v3",
	"kube-apiserver":          "k8s.io/kubernetes/cmd/kube-apiserver",
	"kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
	"kubectl":                 "k8s.io/kubernetes/cmd/kubectl",
}

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
// already. A build takes some ten minutes and tells progress how far it is.
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
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, dir+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if len(missing(dir)) == 0 {
		return dir, nil
	}
	return dir, build(ctx, module, kubernetes, dir, progress)
}

func missing(dir string) (names []string) {
	for name := range binaries {
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

// lock takes a lock that all processes of this user share.
func lock(ctx context.Context, path string) (func(), error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), file.Close())
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
	packages := make([]string, 0, len(binaries))
	for _, pkg := range binaries {
		packages = append(packages, pkg)
	}
	say := func(format string, args ...any) { fmt.Fprintf(progress, format+"\n", args...) }
	say("building the control plane, Kubernetes %s, once on this machine: about 10 minutes", kubernetes)
	deps, err := goCommand(ctx, module, append([]string{"list", "-deps"}, packages...)...).Output()
	if err != nil {
		return fmt.Errorf("listing the packages of the control plane: %w", withStderr(err))
	}
	total := bytes.Count(deps, []byte("\n"))
	command := goCommand(ctx, module, append([]string{
		"build", "-v", "-trimpath",
		"-ldflags", "-s -w -X k8s.io/component-base/version.gitVersion=" + kubernetes, "-o", temporary + string(filepath.Separator),
	}, packages...)...)
	output, err := command.StderrPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	var log bytes.Buffer
	done, told := 0, time.Now()
	for lines := bufio.NewScanner(output); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "go: ") {
			continue // a module that is fetched
		}
		log.WriteString(lines.Text() + "\n")
		if done++; time.Since(told) > 5*time.Second {
			told = time.Now()
			say("  %d of at most %d packages, %s", done, total, time.Since(start).Round(time.Second))
		}
	}
	if err := command.Wait(); err != nil {
		return fmt.Errorf("building the control plane: %w\n%s", err, tail(log.Bytes()))
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
	say("built the control plane in %s: %s", time.Since(start).Round(time.Second), dir)
	return nil
}

func goCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir = dir
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off")
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
