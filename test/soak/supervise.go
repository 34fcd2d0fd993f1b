// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"countersign.dev/countersign/test/cluster"
	"countersign.dev/countersign/test/harness"
)

// supervised is a process of Countersign, and what was measured of it.
type supervised struct {
	name    string
	limit   *limiter
	start   func(context.Context) error // starts the process again
	started func() *harness.Process     // the process that start started

	mu        sync.Mutex
	current   *harness.Process
	resident  int64         // the highest anonymous memory of the cgroup, sampled
	peak      int64         // the highest VmHWM
	cpu       time.Duration // of processes that have ended
	cpuNow    time.Duration // of the one that runs
	kills     int64         // out-of-memory kills in the cgroup
	deaths    []death
	unhealthy int // times at which a kubelet would have restarted the process
	notReady  time.Duration
}

// death is the end of a process.
type death struct {
	after   time.Duration // since the attacks began
	attacks string        // that ran
	kills   int64         // out-of-memory kills in the cgroup so far
	log     string        // its end
}

// install starts Countersign with the limits of deploy/, and waits until it is ready.
func install(ctx context.Context, w *world) (_ *harness.Installation, _ []*supervised, err error) {
	root, err := cluster.Root()
	if err != nil {
		return nil, nil, err
	}
	i, err := harness.Install(ctx, w.Cluster, w.out)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, i.Stop())
		}
	}()
	start := func(name string) func(context.Context) error {
		return func(ctx context.Context) error { _, err := i.Start(ctx, name); return err }
	}
	all := []*supervised{
		{name: "approver", start: start("approver"), started: func() *harness.Process { return i.Approver }},
		{name: "signer", start: start("signer"), started: func() *harness.Process { return i.Signer }},
		{name: "webhook", start: func(ctx context.Context) error {
			if i.Webhook == nil {
				return i.StartWebhook(ctx)
			}
			return i.RestartWebhook(ctx)
		}, started: func() *harness.Process { return i.Webhook }},
	}
	i.Env, i.Prefix = map[string][]string{}, map[string][]string{}
	for _, p := range all {
		c, err := readContainer(root, p.name)
		if err != nil {
			return nil, nil, err
		}
		i.Env[p.name] = c.env
		p.limit = newLimiter(p.name, c.memory)
		i.Prefix[p.name] = p.limit.prefix()
	}
	// Install has started two of them without their environment.
	if err := errors.Join(i.Approver.Stop(), i.Signer.Stop()); err != nil {
		return nil, nil, err
	}
	for _, p := range all {
		if err := p.startLimited(ctx); err != nil {
			return nil, nil, err
		}
		if err := p.process().Ready(ctx); err != nil {
			return nil, nil, err
		}
	}
	return i, all, nil
}

func (p *supervised) startLimited(ctx context.Context) error {
	if err := p.start(ctx); err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	p.mu.Lock()
	p.current = p.started()
	p.mu.Unlock()
	return nil
}

func (p *supervised) process() *harness.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current
}

// supervise samples a process until ctx ends, and starts it again when it has ended.
func (p *supervised) supervise(ctx context.Context, w *world) {
	go p.probe(ctx)
	for tick := time.NewTicker(250 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-p.process().Done():
			p.restart(ctx, w)
		case <-tick.C:
			p.sample()
		}
	}
}

func (p *supervised) restart(ctx context.Context, w *world) {
	if ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	p.cpu, p.cpuNow, p.kills = p.cpu+p.cpuNow, 0, p.limit.kills()
	d := death{time.Since(w.began), w.activeAttacks(), p.kills, causeIn(p.current.Log)}
	p.deaths = append(p.deaths, d)
	p.mu.Unlock()
	fmt.Fprintf(w.out, "!! %s ended %s after the attacks began, during %s; %d out-of-memory kills; starting it again\n", p.name, d.after.Round(time.Second), d.attacks, d.kills)
	for ctx.Err() == nil {
		if err := p.startLimited(ctx); err == nil {
			return
		} else if ctx.Err() == nil {
			fmt.Fprintf(w.out, "!! %v\n", err)
		}
		time.Sleep(time.Second)
	}
}

func (p *supervised) sample() {
	cpu, peak := usageOf(p.process().PID())
	resident, kills := p.limit.resident(), p.limit.kills()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cpuNow, p.peak, p.resident = max(p.cpuNow, cpu), max(p.peak, peak), max(p.resident, resident)
	p.kills = kills
}

// probe requests /healthz as the kubelet does by default: every 10 s, with a time limit of 1 s; three failures in a
// row restart a container. It also measures how long the process is not ready.
func (p *supervised) probe(ctx context.Context) {
	const period, readyPeriod, limit, threshold = 10 * time.Second, 5 * time.Second, time.Second, 3
	failures := 0
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(readyPeriod):
		}
		get := func(path string) error {
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			_, err := p.process().Probe(ctx, path)
			return err
		}
		if get("/readyz") != nil && ctx.Err() == nil {
			p.mu.Lock()
			p.notReady += readyPeriod
			p.mu.Unlock()
		}
		if n%int(period/readyPeriod) != 0 {
			continue
		}
		if get("/healthz") == nil || ctx.Err() != nil {
			failures = 0
			continue
		}
		if failures++; failures == threshold {
			failures = 0
			p.mu.Lock()
			p.unhealthy++
			p.mu.Unlock()
		}
	}
}

// causeIn returns the beginning of the last panic or fatal error in a log, or the end of the log.
func causeIn(file string) string {
	const most = 800
	raw, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	text := string(raw)
	if i := max(strings.LastIndex(text, "\nfatal error: "), strings.LastIndex(text, "\npanic: "), strings.LastIndex(text, "\nruntime: ")); i >= 0 {
		text = text[i+1:]
		return text[:min(len(text), most)]
	}
	return text[max(0, len(text)-most):]
}
