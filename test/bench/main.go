// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Command bench measures Countersign on a real control plane, beside two references.
//
// It starts etcd and kube-apiserver once, installs Countersign as deploy/ ships it, and fills the
// cluster with Pods. Then it measures three systems in turn, several rounds, each by the same load:
//
//   - countersign: approver and signer, each a process of its own under the RBAC that ships, with every
//     check on. The webhook is not in the way of a certificate, so it is measured only with -webhook.
//   - null: a process that approves whatever it sees and writes a fixed certificate, with no check at
//     all, from one informer and by 32 workers: what this API server can do on this machine at most.
//   - kcm: kube-controller-manager with its approving and its signing controller and the limits of its
//     client raised; once more with its defaults.
//
// One control plane serves the whole run: filling it takes longer than a round does. Only the system that
// is measured runs, and the requests of a load are deleted after it, so that all meet the same cluster. Every
// load comes from 32 clients, each with a connection of its own, that see the end of a request by one informer.
//
// Then the cluster grows: more Pods, unrelated requests, more policies. What was measured is told as a table,
// and written as JSON (-o) and into docs/performance.md (-docs). Times are never asserted: the exit status is
// 1 if a load was not wholly served, or if a hostile request was not denied, and nothing else makes it so.
//
// bench null is the null system, and bench report writes the table of a run anew from its JSON.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// settings are the sizes of a run.
type settings struct {
	// Rounds of the comparison, in each of which every system is measured.
	Rounds int `json:"rounds"`
	// Burst is how many requests are made at once, and Rate and Steady how many a second, for how long.
	Burst  int           `json:"burst"`
	Rate   int           `json:"rate"`
	Steady time.Duration `json:"steady"`
	// DefaultLimits is how many requests kube-controller-manager gets with its default limits.
	DefaultLimits int `json:"defaultLimits"`
	// Pods in the cluster: at first, when systems are compared, and at each step of the growth.
	Pods []int `json:"pods"`
	// Namespaces there are, and Busy, how many of them have the Pods that make requests.
	Namespaces int `json:"namespaces"`
	Busy       int `json:"busyNamespaces"`
	// Services in the cluster. One of each namespace selects its Pods.
	Services int `json:"services"`
	// Unrelated requests and further Policies, added when all Pods are there.
	Unrelated int `json:"unrelated"`
	Policies  int `json:"policies"`
	// GrowthRounds, and GrowthBurst, are Rounds and Burst of each step of the growth.
	GrowthRounds int `json:"growthRounds"`
	GrowthBurst  int `json:"growthBurst"`
	// Micro is how often each Go benchmark is run; 0 leaves them out.
	Micro int `json:"micro"`
	// Webhook measures Countersign with its webhook, too.
	Webhook bool `json:"webhook"`
}

// full is what make bench runs, and short what a test does.
var (
	full = settings{
		Rounds: 3, Burst: 2000, Rate: 50, Steady: 10 * time.Second, DefaultLimits: 60,
		Pods: []int{1000, 10000, 50000}, Namespaces: 200, Busy: 20, Services: 2000, Unrelated: 10000, Policies: 200,
		GrowthRounds: 2, GrowthBurst: 1000, Micro: 15,
	}
	short = settings{
		Rounds: 1, Burst: 30, Rate: 50, Steady: 400 * time.Millisecond,
		Pods: []int{20, 40}, Namespaces: 4, Busy: 2, Services: 8, Unrelated: 10, Policies: 4,
		GrowthRounds: 1, GrowthBurst: 10,
	}
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case nullName:
			return nullCommand(ctx, args[1:])
		case "report":
			return reportCommand(args[1:])
		}
	}
	s, fs := full, flag.NewFlagSet("bench", flag.ContinueOnError)
	small := fs.Bool("short", false, "Run everything once with some 100 requests; the other sizes are not looked at.")
	fs.IntVar(&s.Rounds, "rounds", s.Rounds, "`number` of rounds in which the systems are compared.")
	fs.IntVar(&s.Burst, "burst", s.Burst, "`number` of requests made at once.")
	fs.IntVar(&s.Rate, "rate", s.Rate, "`number` of requests a second of the steady load.")
	fs.DurationVar(&s.Steady, "steady", s.Steady, "`time` that the steady load takes.")
	fs.IntVar(&s.DefaultLimits, "default-limits", s.DefaultLimits, "`number` of requests for kube-controller-manager with its default limits, once; 0 leaves it out.")
	fs.Func("pods", "`numbers` of Pods, separated by commas: at first, and after each step of the growth. Default 1000,10000,50000.", func(text string) (err error) {
		s.Pods, err = numbers(text)
		return err
	})
	fs.IntVar(&s.Namespaces, "namespaces", s.Namespaces, "`number` of namespaces.")
	fs.IntVar(&s.Busy, "busy-namespaces", s.Busy, "`number` of namespaces that have the Pods which make requests.")
	fs.IntVar(&s.Services, "services", s.Services, "`number` of Services.")
	fs.IntVar(&s.Unrelated, "unrelated", s.Unrelated, "`number` of requests for other signers; 0 leaves the step out.")
	fs.IntVar(&s.Policies, "policies", s.Policies, "`number` of policies, of which one matches; 1 leaves the step out.")
	fs.IntVar(&s.GrowthRounds, "growth-rounds", s.GrowthRounds, "`number` of rounds at each step of the growth; 0 leaves the growth out.")
	fs.IntVar(&s.GrowthBurst, "growth-burst", s.GrowthBurst, "`number` of requests made at once at each step of the growth.")
	fs.IntVar(&s.Micro, "micro", s.Micro, "`number` of runs of the Go benchmarks; 0 leaves them out.")
	fs.BoolVar(&s.Webhook, "webhook", s.Webhook, "Measure Countersign with its webhook, too.")
	output := fs.String("o", "", "`file` for what was measured, as JSON.")
	docs := fs.String("docs", "", "`file` whose part between the markers becomes the table, such as docs/performance.md.")
	profiles := fs.String("profiles", "", "`folder` for the logs of what is measured, and for profiles of approver and signer: of their CPU during bursts, and of their memory after.")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: everything is set by flags", fs.Arg(0))
	}
	if *small {
		s = short
	}
	if err := s.validate(); err != nil {
		return err
	}
	r, err := run(ctx, s, *profiles, os.Stdout)
	if r == nil {
		return err
	}
	return errors.Join(err, publish(r, *output, *docs, os.Stdout))
}

// publish tells what was measured, and writes it.
func publish(r *results, output, docs string, out io.Writer) error {
	var errs []error
	if output != "" {
		errs = append(errs, r.write(output))
	}
	if docs != "" {
		errs = append(errs, updateDocs(docs, r))
	}
	fmt.Fprintln(out)
	return errors.Join(append(errs, r.print(out)...)...)
}

func (s *settings) validate() error {
	if s.Rounds < 1 || s.Burst < 1 || s.Rate < 1 || len(s.Pods) == 0 || s.GrowthBurst < 1 {
		return errors.New("rounds, burst, rate, pods and growth-burst must be at least 1")
	}
	if s.Busy > s.Namespaces || s.Services < s.Namespaces || s.Pods[0] < 2*s.Busy || s.Busy < 2 || s.Pods[0]%s.Busy != 0 {
		return fmt.Errorf("want two busy namespaces or more (%d), at most all of them (%d), a Service for each namespace (%d), and at first the same number of Pods, two or more, for each busy one (%d)",
			s.Busy, s.Namespaces, s.Services, s.Pods[0])
	}
	for i := 1; i < len(s.Pods); i++ {
		if s.Pods[i] <= s.Pods[i-1] {
			return fmt.Errorf("the number of Pods must grow: %v", s.Pods)
		}
	}
	return nil
}
