// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a running program. On Linux the kernel kills it if this program is killed.
type Process struct {
	// Log is the file that has its output.
	Log  string
	name string
	cmd  *exec.Cmd
	done chan struct{}
}

// Spawn starts a program and appends its output to a log. It runs until it is stopped. env is added to the environment.
func Spawn(path string, args []string, log string, env ...string) (*Process, error) {
	p := &Process{Log: log, name: filepath.Base(path), done: make(chan struct{})}
	output, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer output.Close() //nolint:errcheck // the process has its own descriptor
	// Not CommandContext: the process runs until Stop, even if the context of the caller ends.
	p.cmd = exec.Command(path, args...)
	p.cmd.Stdout, p.cmd.Stderr = output, output
	p.cmd.Env = append(os.Environ(), env...)
	detach(p.cmd)
	started := make(chan error)
	go func() {
		// The kernel kills a child when the thread that started it exits: keep the thread.
		runtime.LockOSThread()
		defer close(p.done)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	return p, nil
}

// start starts a component, appends its output to a log, and waits until ready returns nil.
func (c *Cluster) start(ctx context.Context, name string, args []string, ready func(context.Context) error) (*Process, error) {
	p, err := Spawn(filepath.Join(c.bin, name), args, filepath.Join(c.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		probe, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := ready(probe)
		cancel()
		select {
		case <-p.done: // an answer came from another process on the port
			return nil, fmt.Errorf("%s ended before it was ready: %s\n%s", name, p.cmd.ProcessState, p.Tail())
		default:
		}
		if err == nil {
			return p, nil
		}
		select {
		case <-p.done:
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("%s was not ready in time: %w\n%s", name, err, p.Tail()), p.stop())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// PID returns the process ID.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Name returns the name of the program.
func (p *Process) Name() string { return p.name }

// Resident returns the resident memory of the process, such as "48 MiB", from VmRSS in /proc. It returns "" on systems
// without /proc.
func (p *Process) Resident() string {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return ""
	}
	var kib int
	for line := range strings.Lines(string(raw)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return fmt.Sprintf("%d MiB", kib>>10)
		}
	}
	return ""
}

// Done returns a channel that is closed when the process has exited.
func (p *Process) Done() <-chan struct{} { return p.done }

// Tail returns the end of the log.
func (p *Process) Tail() string {
	raw, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-4096):])
}

// Stop sends SIGTERM and waits until the process exits. If it does not exit in time, Stop kills it and returns an error.
func (p *Process) Stop(patience time.Duration) error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("%s did not end within %s", p.name, patience), p.Kill())
	}
}

// Kill kills the process and waits for it.
func (p *Process) Kill() error {
	err := p.signal(syscall.SIGKILL)
	<-p.done
	return err
}

func (p *Process) signal(signal syscall.Signal) error {
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("ending %s: %w", p.name, err)
	}
	return nil
}

// stop stops or kills a component. It does nothing if p is nil.
func (p *Process) stop() error {
	if p == nil {
		return nil
	}
	_ = p.Stop(10 * time.Second) // the API server can take longer and is killed then
	return nil
}

// freePorts returns ports on loopback that no process listens on. They are below the ephemeral ports (from 32768 on Linux,
// 49152 elsewhere): an outgoing connection could use one of those while the API server is stopped.
func freePorts(n int) ([]string, error) {
	var ports []string
	for range 100 * n {
		port := strconv.Itoa(10000 + rand.IntN(20000))
		listener, err := net.Listen("tcp", "127.0.0.1:"+port) //nolint:noctx // ends at once
		if err != nil {
			continue // taken
		}
		defer listener.Close() //nolint:errcheck // all at the end, so that the ports differ
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, errors.New("no free ports on 127.0.0.1")
}
