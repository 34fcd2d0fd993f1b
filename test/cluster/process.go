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
	"syscall"
	"time"
)

// process is one component of the control plane.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
}

// start runs a component with its output appended to a log, and waits until ready says nil.
func (c *Cluster) start(ctx context.Context, name string, args []string, ready func(context.Context) error) (*process, error) {
	p := &process{name: name, log: filepath.Join(c.dir, name+".log"), done: make(chan struct{})}
	output, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer output.Close() //nolint:errcheck // the process has its own descriptor
	// Not CommandContext: it lives until Stop, however short the caller's context.
	p.cmd = exec.Command(filepath.Join(c.bin, name), args...)
	p.cmd.Stdout, p.cmd.Stderr = output, output
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
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := ready(attempt)
		cancel()
		select {
		case <-p.done: // then it was another process on its port that answered, if any did
			return nil, fmt.Errorf("%s ended before it was ready: %s\n%s", name, p.cmd.ProcessState, p.tail())
		default:
		}
		if err == nil {
			return p, nil
		}
		select {
		case <-p.done:
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("%s was not ready in time: %w\n%s", name, err, p.tail()), p.stop())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (p *process) tail() []byte {
	raw, err := os.ReadFile(p.log)
	if err != nil {
		return []byte(err.Error())
	}
	return tail(raw)
}

// stop ends the process and waits for it. A nil process is stopped.
func (p *process) stop() error {
	if p == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping %s: %w", p.name, err)
	}
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
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
