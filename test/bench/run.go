// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"countersign.dev/countersign/test/cluster"
	"countersign.dev/countersign/test/harness"
)

// warmUp is how many requests a system gets before it is measured: connections are made, and leaders elected.
const warmUp = 64

// bench is one run.
type bench struct {
	settings     settings
	out          io.Writer
	world        *world
	installation *harness.Installation
	// folder for what only this run needs, and profiles for those that are asked for, or "".
	folder, profiles string
	results          *results
	systems          map[string]*system
}

// run measures. The results are nil if nothing was; an error without results is why, and one with them says
// which loads were not served as they should.
func run(ctx context.Context, s settings, profiles string, out io.Writer) (_ *results, err error) {
	began := time.Now()
	if _, err := cluster.Binaries(ctx, out, cluster.ControllerManager); err != nil { // one of the systems
		return nil, err
	}
	fmt.Fprintln(out, "-- starting etcd and kube-apiserver")
	c, err := cluster.Start(ctx, cluster.Options{Progress: out, ServiceCIDR: serviceCIDR})
	if err != nil {
		return nil, fmt.Errorf("starting the control plane: %w", err)
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	installation, err := harness.Install(ctx, c, out)
	if err != nil {
		return nil, fmt.Errorf("installing: %w", err)
	}
	defer func() { err = errors.Join(err, installation.Stop()) }()
	folder, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder) //nolint:errcheck // temporary
	if profiles != "" {
		if err := os.MkdirAll(profiles, 0o700); err != nil {
			return nil, err
		}
	}
	b := &bench{settings: s, out: out, installation: installation, folder: folder, profiles: profiles}
	b.results, err = newResults(ctx, c, s)
	if err != nil {
		return nil, err
	}
	if err := b.all(ctx, c); err != nil {
		if ctx.Err() != nil || len(b.results.Measured) == 0 {
			return nil, err
		}
		b.results.Faults = append(b.results.Faults, "the run ended early: "+err.Error())
	}
	b.results.Took = time.Since(began).Round(time.Second).String()
	b.results.derive()
	return b.results, b.results.fault()
}

// all does everything in order. An error ends the run; a load that is not served does not.
func (b *bench) all(ctx context.Context, c *cluster.Cluster) error {
	if err := b.empty(ctx); err != nil {
		return err
	}
	var err error
	if b.world, err = newWorld(ctx, c, b.settings, b.out); err != nil {
		return fmt.Errorf("filling the cluster: %w", err)
	}
	if err := b.world.grow(ctx, b.settings.Pods[0]); err != nil {
		return fmt.Errorf("creating Pods: %w", err)
	}
	if err := b.makeSystems(ctx); err != nil {
		return err
	}
	if err := b.compare(ctx); err != nil {
		return err
	}
	if err := b.growth(ctx); err != nil {
		return err
	}
	if b.settings.Micro > 0 {
		b.results.Micro, err = micro(ctx, b.folder, b.settings.Micro, b.out)
	}
	return err
}

// empty looks at what was installed, in a cluster without Pods, and stops it. From then on it is started with
// the environment that deploy/ gives it.
func (b *bench) empty(ctx context.Context) error {
	b.results.EmptyMiB, b.installation.Env = map[string]float64{}, map[string][]string{}
	for name, p := range map[string]*harness.Process{approverProcess: b.installation.Approver, signerProcess: b.installation.Signer} {
		if err := ready(ctx, p); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		b.results.EmptyMiB[name] = usageOf(p.PID()).peakMiB
		env, err := deployed(ctx, b.installation.Cluster.Clientset(), name)
		if err != nil {
			return err
		}
		b.installation.Env[name] = env
	}
	return stopAll(b.installation)
}

func (b *bench) makeSystems(ctx context.Context) error {
	b.systems = map[string]*system{}
	var errs []error
	add := func(s *system, err error) {
		if errs = append(errs, err); err == nil {
			b.systems[s.name] = s
		}
	}
	add(b.world.countersignSystem(b.installation, b.profiles != "", false))
	add(b.world.nullSystem(ctx, b.folder))
	add(b.world.kcmSystem(kcm, "--kube-api-qps=10000", "--kube-api-burst=10000"))
	if b.settings.DefaultLimits > 0 {
		add(b.world.kcmSystem(kcmDefaults))
	}
	if b.settings.Webhook {
		add(b.world.countersignSystem(b.installation, false, true))
	}
	return errors.Join(errs...)
}

// compare measures every system in every round, each time in another order.
func (b *bench) compare(ctx context.Context) error {
	names := []string{countersign, nullName, kcm}
	if b.settings.Webhook {
		names = append(names, countersignWebhook)
	}
	s := b.settings
	for round := range s.Rounds {
		for i := range names {
			name := names[(i+round)%len(names)]
			loads := []plan{{load: "burst", count: s.Burst}, {load: "steady", count: int(s.Steady.Seconds() * float64(s.Rate)), rate: s.Rate}}
			if name == countersign || name == countersignWebhook {
				loads = append(loads, plan{load: "mix", count: s.Burst, mixed: true})
			}
			if err := b.visit(ctx, name, "comparison", round, loads...); err != nil {
				return err
			}
		}
	}
	if s.DefaultLimits > 0 {
		return b.visit(ctx, kcmDefaults, "comparison", 0, plan{load: "burst", count: s.DefaultLimits})
	}
	return nil
}

// growth measures Countersign and the null system at each size of the cluster.
func (b *bench) growth(ctx context.Context) error {
	if b.settings.GrowthRounds == 0 {
		return nil
	}
	for _, step := range b.growthSteps() {
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("growing the cluster: %w", err)
		}
		if err := b.measureGrowth(ctx, step.name); err != nil {
			return err
		}
	}
	return nil
}

// growthStep makes the cluster larger.
type growthStep struct {
	name string
	run  func(context.Context) error
}

func (b *bench) growthSteps() (steps []growthStep) {
	s := b.settings
	for _, n := range s.Pods {
		steps = append(steps, growthStep{fmt.Sprintf("%s Pods", thousands(n)), func(ctx context.Context) error { return b.world.grow(ctx, n) }})
	}
	if s.Unrelated > 0 {
		steps = append(steps, growthStep{fmt.Sprintf("and %s requests", thousands(s.Unrelated)), func(ctx context.Context) error { return b.world.addUnrelated(ctx, s.Unrelated) }})
	}
	if s.Policies > 1 {
		steps = append(steps, growthStep{fmt.Sprintf("and %d policies", s.Policies), func(ctx context.Context) error { return b.world.addPolicies(ctx, s.Policies) }})
	}
	return steps
}

// measureGrowth measures both systems at one size of the cluster, in turns.
func (b *bench) measureGrowth(ctx context.Context, at string) error {
	s := b.settings
	rounds := s.GrowthRounds
	if b.world.policies > 1 {
		rounds = 1 // the start takes minutes
	}
	loads := []plan{{load: "burst", count: s.GrowthBurst}}
	withSteady := append(slices.Clone(loads), plan{load: "steady", count: int(s.Steady.Seconds() * float64(s.Rate) / 2), rate: s.Rate})
	for round := range rounds {
		turns := []func() error{
			func() error { return b.visit(ctx, countersign, at, round, withSteady...) },
			func() error { return b.visit(ctx, nullName, at, round, loads...) },
		}
		if round%2 == 1 {
			slices.Reverse(turns)
		}
		for _, turn := range turns {
			if err := turn(); err != nil {
				return err
			}
		}
	}
	return nil
}

// plan is a load to be made of a system.
type plan struct {
	load  string
	count int
	mixed bool
	rate  int // a second; 0 for all at once
}

// visit starts a system, makes loads of it, and stops it. A load that is not served is noted and ends the visit.
func (b *bench) visit(ctx context.Context, name, at string, round int, plans ...plan) (err error) {
	s := b.systems[name]
	fmt.Fprintf(b.out, "-- %s, round %d: %s\n", at, round+1, name)
	began := time.Now()
	defer func() { err = errors.Join(err, b.leave(ctx, s)) }()
	var ready map[string]time.Duration
	if err := telling(b.out, "starting", nil, func() (err error) {
		ready, err = s.start(ctx)
		return err
	}); err != nil {
		return b.note(ctx, s, at, round, "starting", err)
	}
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	t, err := track(watching, b.world.writers[0].CertificatesV1().RESTClient(), s.signer)
	if err != nil {
		return err
	}
	readySeconds := map[string]float64{}
	for process, took := range ready {
		readySeconds[process] = took.Seconds()
	}
	warm := load{name: "warm", signer: s.signer, asks: s.asks(min(warmUp, plans[0].count/4+1), false)}
	if _, err := warm.run(ctx, t, s.senders, b.out); err != nil {
		return b.note(ctx, s, at, round, "warming up", err)
	}
	readySeconds["first requests issued"] = time.Since(began).Seconds()
	for _, p := range plans {
		measured, err := b.measure(ctx, s, t, p)
		measured.At, measured.Round, measured.ReadySeconds = at, round, readySeconds
		measured.Pods, measured.Unrelated, measured.Policies = b.world.pods, b.world.unrelated, b.world.policies
		b.results.Measured = append(b.results.Measured, measured)
		if err != nil {
			return b.note(ctx, s, at, round, p.load, err)
		}
		fmt.Fprintf(b.out, "   %s\n", measured.String())
	}
	return nil
}

// note keeps why a load was not served as it should, unless the run ends anyway.
func (b *bench) note(ctx context.Context, s *system, at string, round int, load string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	fault := fmt.Sprintf("%s, %s, round %d, %s: %v", s.name, at, round+1, load, err)
	b.results.Faults = append(b.results.Faults, fault)
	fmt.Fprintf(b.out, "   FAULT: %s%s\n", fault, tails(s))
	return nil
}

// tails are the ends of the logs of a system.
func tails(s *system) (text string) {
	for _, p := range s.processes() {
		text += fmt.Sprintf("\nthe log of %s:\n%s", p.Name(), p.Tail())
	}
	return text
}

// leave stops a system and deletes the requests that were made of it.
func (b *bench) leave(ctx context.Context, s *system) error {
	ctx = context.WithoutCancel(ctx) // an interrupted run ends its processes too
	if b.profiles != "" {
		for _, p := range s.processes() {
			// Whole each time: a process that starts again appends to its log.
			raw, err := os.ReadFile(p.Log)
			if err := errors.Join(err, os.WriteFile(filepath.Join(b.profiles, filepath.Base(p.Log)), raw, 0o600)); err != nil {
				return err
			}
		}
	}
	if err := s.stop(ctx); err != nil {
		return fmt.Errorf("stopping %s: %w", s.name, err)
	}
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.signerName", s.signer).String()}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return telling(b.out, "deleting its requests", nil, func() error {
		return b.world.writers[0].CertificatesV1().CertificateSigningRequests().DeleteCollection(ctx, metav1.DeleteOptions{}, options)
	})
}

// measure makes one load.
func (b *bench) measure(ctx context.Context, s *system, t *tracker, p plan) (measurement, error) {
	l := load{name: p.load, signer: s.signer, asks: s.asks(p.count, p.mixed)}
	if p.rate > 0 {
		l.pace = time.Second / time.Duration(p.rate)
	}
	m := measurement{System: s.name, Load: p.load}
	finish := b.profile(ctx, s, p)
	before, err := b.snapshot(ctx, s)
	if err != nil {
		return m, err
	}
	got, fault := l.run(ctx, t, s.senders, b.out)
	after, err := b.snapshot(ctx, s)
	if err = errors.Join(fault, err, finish()); err != nil && ctx.Err() != nil {
		return m, err
	}
	m.add(got)
	m.compare(before, after)
	return m, err
}

// snapshot is what has been used and asked so far.
type snapshot struct {
	usage     map[string]usage
	requests  map[string]float64
	evaluated uint64
	evaluates time.Duration
}

func (b *bench) snapshot(ctx context.Context, s *system) (snapshot, error) {
	out := snapshot{usage: map[string]usage{"bench": usageOf(os.Getpid())}}
	for _, p := range append(b.world.Processes(), s.processes()...) {
		name := p.Name()
		if s.name == nullName && !slices.Contains([]string{"etcd", "kube-apiserver"}, name) {
			name = nullName // the file is called as this program
		}
		out.usage[name] = usageOf(p.PID())
	}
	var err error
	if out.requests, err = apiRequests(ctx, b.world.Clientset()); err != nil {
		return out, err
	}
	if s.metrics != "" {
		out.evaluated, out.evaluates, err = evaluations(ctx, s.metrics)
	}
	return out, err
}

// profile takes, if profiles are asked for, those of a burst. Call what it returns after the load.
func (b *bench) profile(ctx context.Context, s *system, p plan) func() error {
	if b.profiles == "" || s.profilers == nil || p.rate > 0 {
		return func() error { return nil }
	}
	var taking sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	prefix := fmt.Sprintf("%02d-%s-", len(b.results.Measured), p.load)
	take := func(process, what, name string) {
		err := profile(ctx, s.profilers[process], what, b.profiles, prefix+process+"-"+name)
		mu.Lock()
		errs = append(errs, err)
		mu.Unlock()
	}
	for _, process := range slices.Sorted(maps.Keys(s.profilers)) {
		// About as long as the burst: the rest is idle, and no samples.
		taking.Go(func() { take(process, fmt.Sprintf("profile?seconds=%d", max(2, p.count/200)), "cpu.pprof") })
	}
	return func() error {
		taking.Wait()
		for process := range s.profilers {
			take(process, "heap", "heap.pprof")
			take(process, "allocs", "allocs.pprof")
		}
		return errors.Join(errs...)
	}
}
