// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/sandbox/limits"
)

const (
	// MaxWaiting is the maximum number of callers that wait for their turn. One process runs at a time.
	MaxWaiting = 8

	maxResult   = 1 << 20
	maxStderr   = 4 << 10
	wallTimeout = 10 * time.Minute // for a container with 2 % of a CPU
)

// ErrBusy is returned if the queue is full.
var ErrBusy = fmt.Errorf("%d sources are already queued to be compiled and tested: retry later", MaxWaiting)

var (
	turn  = make(chan struct{}, 1)
	queue = make(chan struct{}, MaxWaiting+1)
)

// Check compiles and tests a source. If the source exceeds a limit or ends the process in another way, the
// result contains the problem. The error has another cause than the source.
func Check(ctx context.Context, source evaluator.Source) (evaluator.CheckResult, error) {
	if err := source.CheckSize(); err != nil {
		return evaluator.CheckResult{Errors: err}, nil
	}
	select {
	case queue <- struct{}{}:
		defer func() { <-queue }()
	default:
		return evaluator.CheckResult{}, ErrBusy
	}
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
		return evaluator.CheckResult{}, fmt.Errorf("queued to compile and test package %s: %w", source.Package, ctx.Err())
	}
	return run(ctx, source)
}

// run starts the process and returns its result.
func run(ctx context.Context, source evaluator.Source) (evaluator.CheckResult, error) {
	raw, err := json.Marshal(source)
	if err != nil {
		return evaluator.CheckResult{}, fmt.Errorf("encoding package %s: %w", source.Package, err)
	}
	ctx, cancel := context.WithTimeout(ctx, wallTimeout)
	defer cancel()
	executable, err := limits.Executable()
	if err != nil {
		return evaluator.CheckResult{}, fmt.Errorf("finding this binary: %w", err)
	}
	stdout, stderr := &head{max: maxResult}, &head{max: maxStderr}
	command := exec.CommandContext(ctx, executable) //nolint:gosec // of this process
	command.Args = []string{limits.Unlimited}
	command.Env = []string{"GOMAXPROCS=1", fmt.Sprintf("GOMEMLIMIT=%d", limits.Memory/2), "GOTRACEBACK=none"}
	command.Stdin, command.Stdout, command.Stderr = bytes.NewReader(raw), stdout, stderr
	command.WaitDelay = time.Second
	runErr := command.Run()
	if ctx.Err() != nil {
		return evaluator.CheckResult{}, fmt.Errorf("compiling and testing package %s: %w", source.Package, ctx.Err())
	}
	result, compiled := decode(stdout.Bytes())
	switch {
	case runErr == nil && result != nil:
		return *result, nil
	case command.ProcessState == nil:
		return evaluator.CheckResult{}, fmt.Errorf("starting the process that compiles and tests policies: %w", runErr)
	}
	problem, ok := problemOf(command.ProcessState.Sys(), command.ProcessState.UserTime()+command.ProcessState.SystemTime(), stderr.String(), compiled)
	if !ok {
		return evaluator.CheckResult{}, fmt.Errorf("compiling and testing package %s: %w: %s", source.Package, errors.Join(runErr), firstLine(stderr.String()))
	}
	errs := evaluator.Errors{{Message: problem}}
	if compiled {
		return evaluator.CheckResult{Compiled: true, Tests: evaluator.TestReport{Tests: 1, Failures: errs}}, nil
	}
	return evaluator.CheckResult{Errors: errs}, nil
}

// memoryErrors are the errors of Go and of glibc in a process at its memory limit.
var memoryErrors = []string{"out of memory", "cannot allocate memory", "pthread_create failed", "SIGSEGV"}

// problemOf returns the problem of a source that ended the process. It returns false if the process ended
// for another reason.
func problemOf(sys any, cpu time.Duration, stderr string, compiled bool) (string, bool) {
	status, ok := sys.(syscall.WaitStatus)
	if !ok {
		return "", false
	}
	work, seconds := "compiling the source", limits.CompileCPU
	if compiled {
		work, seconds = "the tests", limits.TotalCPU
	}
	switch {
	case strings.Contains(stderr, cpuExceeded), status.Signaled() && cpu >= (limits.TotalCPU-1)*time.Second:
		return fmt.Sprintf("%s used more than %d s of CPU time: remove loops over large values", work, seconds), true
	case slices.ContainsFunc(memoryErrors, func(text string) bool { return strings.Contains(stderr, text) }):
		return fmt.Sprintf("%s used more than %d MiB of memory: remove values that grow", work, limits.Memory>>20), true
	case status.Exited() && status.ExitStatus() == exitPanic:
		return fmt.Sprintf("%s ended the process: %s", work, firstLine(stderr)), true
	}
	return "", false // for example, a signal of another process
}

// decode returns the last result, or nil, and whether the source compiled.
func decode(raw []byte) (result *evaluator.CheckResult, compiled bool) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	for {
		var message message
		if decoder.Decode(&message) != nil {
			return result, compiled
		}
		result, compiled = message.Result, compiled || message.Compiled
	}
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// head keeps the first bytes that are written to it.
type head struct {
	bytes.Buffer
	max int
}

func (h *head) Write(p []byte) (int, error) {
	if _, err := h.Buffer.Write(p[:min(len(p), max(0, h.max-h.Len()))]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// ReadFrom would bypass Write.
func (h *head) ReadFrom(r io.Reader) (int64, error) { return io.Copy(struct{ io.Writer }{h}, r) }
