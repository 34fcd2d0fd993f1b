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

// warmUp is the number of requests before a system is measured: they open connections and elect leaders.
const warmUp = 64

// bench is one run.
type bench struct {
	settings     settings
	out          io.Writer
	world        *world
	installation *harness.Installation
	// folder has temporary files. profiles is the folder for profiles, or "".
	folder, profiles string
	results          *results
	systems          map[string]*system
}

// run measures all systems. The results are nil if nothing was measured. An error beside results names the loads that
// were not served as expected.
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
		b.results.Failures = append(b.results.Failures, "the run ended early: "+err.Error())
	}
	b.results.Took = time.Since(began).Round(time.Second).String()
	b.results.derive()
	return b.results, b.results.err()
}

// all runs every part in order. An error ends the run. A load that is not served does not.
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

// empty measures the memory of the installation in a cluster without Pods, and stops it. Later starts use the environment
// of deploy/.
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

// compare measures every system in every round, in a different order each time.
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

// plan is a load for a system.
type plan struct {
	load  string
	count int
	mixed bool
	rate  int // per second; 0 for all at once
}

// visit starts a system, runs loads and stops it. A load that is not served is recorded as a failure and ends the visit.
func (b *bench) visit(ctx context.Context, name, at string, round int, plans ...plan) (err error) {
	s := b.systems[name]
	fmt.Fprintf(b.out, "-- %s, round %d: %s\n", at, round+1, name)
	began := time.Now()
	defer func() { err = errors.Join(err, b.leave(ctx, s)) }()
	var ready map[string]time.Duration
	if err := withProgress(b.out, "starting", nil, func() (err error) {
		ready, err = s.start(ctx)
		return err
	}); err != nil {
		return b.recordFailure(ctx, s, at, round, "starting", err)
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
		return b.recordFailure(ctx, s, at, round, "warming up", err)
	}
	readySeconds["first requests issued"] = time.Since(began).Seconds()
	for _, p := range plans {
		measured, err := b.measure(ctx, s, t, p)
		measured.At, measured.Round, measured.ReadySeconds = at, round, readySeconds
		measured.Pods, measured.Unrelated, measured.Policies = b.world.pods, b.world.unrelated, b.world.policies
		b.results.Measured = append(b.results.Measured, measured)
		if err != nil {
			return b.recordFailure(ctx, s, at, round, p.load, err)
		}
		fmt.Fprintf(b.out, "   %s\n", measured.String())
	}
	return nil
}

// recordFailure records why a load was not served as expected, unless the run ends.
func (b *bench) recordFailure(ctx context.Context, s *system, at string, round int, load string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	failure := fmt.Sprintf("%s, %s, round %d, %s: %v", s.name, at, round+1, load, err)
	b.results.Failures = append(b.results.Failures, failure)
	fmt.Fprintf(b.out, "   FAILED: %s%s\n", failure, tails(s))
	return nil
}

// tails returns the ends of the logs of a system.
func tails(s *system) (text string) {
	for _, p := range s.processes() {
		text += fmt.Sprintf("\nthe log of %s:\n%s", p.Name(), p.Tail())
	}
	return text
}

// leave stops a system and deletes its requests.
func (b *bench) leave(ctx context.Context, s *system) error {
	ctx = context.WithoutCancel(ctx) // stop the processes of an interrupted run too
	if b.profiles != "" {
		for _, p := range s.processes() {
			// Write the whole log: a process that restarts appends to it.
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
	return withProgress(b.out, "deleting its requests", nil, func() error {
		return b.world.writers[0].CertificatesV1().CertificateSigningRequests().DeleteCollection(ctx, metav1.DeleteOptions{}, options)
	})
}

// measure runs one load.
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
	got, loadErr := l.run(ctx, t, s.senders, b.out)
	after, err := b.snapshot(ctx, s)
	if err = errors.Join(loadErr, err, finish()); err != nil && ctx.Err() != nil {
		return m, err
	}
	m.add(got)
	m.compare(before, after)
	return m, err
}

// snapshot has the usage of processes and the number of API requests.
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
			name = nullName // the binary has the name of this program
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

// profile starts the profiles of a burst, if profiles are enabled. The caller calls the returned function after the load.
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
		// About as long as the burst. Idle time has no samples.
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
