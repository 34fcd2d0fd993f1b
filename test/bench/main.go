// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Command bench measures Countersign on a real control plane and compares it with two references.
//
// It starts etcd and kube-apiserver once, installs Countersign as deploy/ ships it, and fills the
// cluster with Pods. Then it measures three systems in turn with the same load, in several rounds:
//
//   - countersign: approver and signer as separate processes with the shipped RBAC and all checks enabled.
//     Certificates do not depend on the webhook, so it is measured only with -webhook.
//   - null: a process that approves every request and writes a fixed certificate without any check, with one
//     informer and 32 workers: the most that this API server can do on this machine.
//   - kcm: kube-controller-manager with its approving and signing controllers and raised client limits, and
//     once with its default limits.
//
// One control plane serves the whole run, since filling it takes longer than a round. Only the measured system
// runs, and the requests of a load are deleted after it, so that all systems run in the same cluster. Each load
// comes from 32 clients with their own connections. One informer observes the end of the requests.
//
// Then the cluster grows: more Pods, unrelated requests, more policies. The results are printed as a table, and
// written as JSON (-o) and to docs/performance.md (-docs). Times are not asserted: the exit status is 1 only if a
// load was not completely served, or if a hostile request was not denied.
//
// bench null runs the null system, and bench report writes the table of a run from its JSON.
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
	// Rounds of the comparison. Every system is measured in each round.
	Rounds int `json:"rounds"`
	// Burst is the number of requests created at once. Rate is the number per second for the time Steady.
	Burst  int           `json:"burst"`
	Rate   int           `json:"rate"`
	Steady time.Duration `json:"steady"`
	// DefaultLimits is the number of requests for kube-controller-manager with its default limits.
	DefaultLimits int `json:"defaultLimits"`
	// Pods in the cluster: first for the comparison, then at each step of the growth.
	Pods []int `json:"pods"`
	// Namespaces is the number of namespaces. Busy is the number of those whose Pods create requests.
	Namespaces int `json:"namespaces"`
	Busy       int `json:"busyNamespaces"`
	// Services in the cluster. One of each namespace selects its Pods.
	Services int `json:"services"`
	// Unrelated requests and further Policies, added when all Pods exist.
	Unrelated int `json:"unrelated"`
	Policies  int `json:"policies"`
	// GrowthRounds and GrowthBurst are Rounds and Burst of each step of the growth.
	GrowthRounds int `json:"growthRounds"`
	GrowthBurst  int `json:"growthBurst"`
	// Micro is the number of runs of each Go benchmark; 0 skips them.
	Micro int `json:"micro"`
	// Webhook also measures Countersign with its webhook.
	Webhook bool `json:"webhook"`
}

// full is the default, and short the run of the test.
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
	small := fs.Bool("short", false, "Run everything once with some 100 requests, and ignore the other sizes.")
	fs.IntVar(&s.Rounds, "rounds", s.Rounds, "`number` of rounds in which the systems are compared.")
	fs.IntVar(&s.Burst, "burst", s.Burst, "`number` of requests made at once.")
	fs.IntVar(&s.Rate, "rate", s.Rate, "`number` of requests a second of the steady load.")
	fs.DurationVar(&s.Steady, "steady", s.Steady, "`time` that the steady load takes.")
	fs.IntVar(&s.DefaultLimits, "default-limits", s.DefaultLimits, "`number` of requests for kube-controller-manager with its default limits, once; 0 skips it.")
	fs.Func("pods", "`numbers` of Pods, separated by commas: at first, and after each step of the growth. Default 1000,10000,50000.", func(text string) (err error) {
		s.Pods, err = numbers(text)
		return err
	})
	fs.IntVar(&s.Namespaces, "namespaces", s.Namespaces, "`number` of namespaces.")
	fs.IntVar(&s.Busy, "busy-namespaces", s.Busy, "`number` of namespaces that have the Pods which make requests.")
	fs.IntVar(&s.Services, "services", s.Services, "`number` of Services.")
	fs.IntVar(&s.Unrelated, "unrelated", s.Unrelated, "`number` of requests for other signers; 0 skips the step.")
	fs.IntVar(&s.Policies, "policies", s.Policies, "`number` of policies, of which one matches; 1 skips the step.")
	fs.IntVar(&s.GrowthRounds, "growth-rounds", s.GrowthRounds, "`number` of rounds at each step of the growth; 0 skips the growth.")
	fs.IntVar(&s.GrowthBurst, "growth-burst", s.GrowthBurst, "`number` of requests made at once at each step of the growth.")
	fs.IntVar(&s.Micro, "micro", s.Micro, "`number` of runs of the Go benchmarks; 0 skips them.")
	fs.BoolVar(&s.Webhook, "webhook", s.Webhook, "Also measure Countersign with its webhook.")
	output := fs.String("o", "", "`file` for the results, as JSON.")
	docs := fs.String("docs", "", "`file` whose part between the markers becomes the table, such as docs/performance.md.")
	profiles := fs.String("profiles", "", "`folder` for the logs of the systems, and for profiles of approver and signer: CPU during bursts, and memory after them.")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: use flags", fs.Arg(0))
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

// publish prints the results and writes them to files.
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
