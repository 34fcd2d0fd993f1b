// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"countersign.dev/countersign/test/cluster"
)

// run runs the soak. It returns what was measured even if it is interrupted.
func run(ctx context.Context, s settings, out io.Writer) (_ *report, err error) {
	chosen, err := selected(s.only)
	if err != nil {
		return nil, err
	}
	out = &locked{w: out}
	c, err := cluster.Start(ctx, cluster.Options{Progress: out, ControllerManager: true, ServiceCIDR: "10.96.0.0/16", Dir: s.dir})
	if err != nil {
		return nil, fmt.Errorf("starting the control plane: %w", err)
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	w, err := newWorld(ctx, c, s, out)
	if err != nil {
		return nil, fmt.Errorf("preparing the cluster: %w", err)
	}
	installation, processes, err := install(ctx, w)
	defer func() {
		for _, p := range processes {
			err = errors.Join(err, p.limit.remove())
		}
	}()
	if err != nil {
		return nil, fmt.Errorf("installing Countersign: %w", err)
	}
	defer func() { err = errors.Join(err, installation.Stop()) }()

	// The processes that Install started may still hold their leases for some seconds.
	for n := range 10 {
		first, cancel := context.WithTimeout(ctx, patience)
		r := w.askOnce(first, fmt.Sprintf("first-%d", n))
		cancel()
		if r.failure == "" {
			break
		}
		fmt.Fprintf(out, "-- the first request is not issued: %s\n", r.failure)
	}
	w.soak(ctx, processes, chosen)
	return &report{settings: s, processes: processes, attacks: chosen, results: w.honest.results, api: w.honest.api}, ctx.Err()
}

// soak runs everything at once, and returns when all of it has ended.
func (w *world) soak(ctx context.Context, processes []*supervised, chosen []*attack) {
	w.began = time.Now().Add(w.settings.warmup)
	background, stop := context.WithCancel(ctx)
	var group, attackers sync.WaitGroup
	for _, p := range processes {
		group.Go(func() { p.supervise(background, w) })
	}
	group.Go(func() { w.clean(background) })
	group.Go(func() { w.measureAPI(background) })
	group.Go(func() { w.progress(background, processes) })

	asking, stopAsking := context.WithCancel(ctx)
	var honest sync.WaitGroup
	honest.Go(func() { w.ask(asking) })
	fmt.Fprintf(w.out, "-- honest requests alone for %s\n", w.settings.warmup)
	select {
	case <-ctx.Done():
	case <-time.After(w.settings.warmup):
	}
	fmt.Fprintf(w.out, "-- attacks for %s, each for %s\n", w.settings.duration, w.settings.slot)
	attacking, cancel := context.WithTimeout(ctx, w.settings.duration)
	for _, user := range []string{editorUser, requesterUser, authorUser} {
		attackers.Go(func() { w.attackAs(attacking, user, chosen) })
	}
	attackers.Wait()
	cancel()
	stopAsking()
	honest.Wait()
	stop()
	group.Wait()
}

// progress prints a line every few seconds.
func (w *world) progress(ctx context.Context, processes []*supervised) {
	const every = 5 * time.Second
	for tick := time.NewTicker(every); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		w.honest.mu.Lock()
		issued, worst := 0, time.Duration(0)
		for _, r := range w.honest.results {
			if r.failure == "" {
				issued++
			}
			if r.after > time.Since(w.began)-2*every {
				worst = max(worst, r.took)
			}
		}
		asked := len(w.honest.results)
		w.honest.mu.Unlock()
		var line strings.Builder
		fmt.Fprintf(&line, "   %4.0f s: %d of %d issued, lately within %s; memory", time.Since(w.began).Seconds(), issued, asked, worst.Round(time.Millisecond))
		for _, p := range processes {
			fmt.Fprintf(&line, " %s %d MiB", p.name, p.limit.resident()>>20)
		}
		fmt.Fprintf(w.out, "%s; %s\n", line.String(), w.activeAttacks())
	}
}

// locked is a writer for several goroutines.
type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
