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

// Process is a running program. The kernel ends it if this program is killed.
type Process struct {
	// Log is the file that has its output.
	Log  string
	name string
	cmd  *exec.Cmd
	done chan struct{}
}

// Spawn runs a program with its output appended to a log. It lives until it is stopped. env is
// added to the environment.
func Spawn(path string, args []string, log string, env ...string) (*Process, error) {
	p := &Process{Log: log, name: filepath.Base(path), done: make(chan struct{})}
	output, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer output.Close() //nolint:errcheck // the process has its own descriptor
	// Not CommandContext: it lives until Stop, however short the caller's context.
	p.cmd = exec.Command(path, args...)
	p.cmd.Stdout, p.cmd.Stderr = output, output
	p.cmd.Env = append(os.Environ(), env...)
	detach(p.cmd)
	started := make(chan error)
	go func() {
		// The kernel ends a child when the thread that started it ends: keep the thread.
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

// start runs a component with its output appended to a log, and waits until ready says nil.
func (c *Cluster) start(ctx context.Context, name string, args []string, ready func(context.Context) error) (*Process, error) {
	p, err := Spawn(filepath.Join(c.bin, name), args, filepath.Join(c.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := ready(attempt)
		cancel()
		select {
		case <-p.done: // then it was another process on its port that answered, if any did
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

// PID of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Name of the program.
func (p *Process) Name() string { return p.name }

// Resident is how much memory the process has now, such as "48 MiB", where the system tells it in
// /proc (proc(5), VmRSS); empty elsewhere.
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

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Tail is the end of the process's log.
func (p *Process) Tail() string {
	raw, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-4096):])
}

// Stop tells the process to end, and waits for it; one that does not end in time is killed, and
// that is an error.
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

// Kill ends the process without warning, and waits for it.
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

// stop ends a component, whichever way. A nil one is stopped.
func (p *Process) stop() error {
	if p == nil {
		return nil
	}
	_ = p.Stop(10 * time.Second) // the API server may take longer, and is killed then
	return nil
}

// freePorts finds ports on loopback that nobody listens on. They are below those that systems
// give to outgoing connections (from 32768 on Linux, 49152 elsewhere): one of these, open while
// the API server is stopped, would keep it from its port.
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
