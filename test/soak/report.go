// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// report is what was measured.
type report struct {
	settings  settings
	processes []*supervised
	attacks   []*attack
	results   []result
	api       []time.Duration
}

// problems returns why the soak failed, nothing if it passed.
func (r *report) problems() (problems []string) {
	for _, p := range r.processes {
		for _, d := range p.deaths {
			problems = append(problems, fmt.Sprintf("%s ended after %s, during %s", p.name, d.after.Round(time.Second), d.attacks))
		}
		if p.kills > 0 {
			problems = append(problems, fmt.Sprintf("%s: %d out-of-memory kills", p.name, p.kills))
		}
		if p.unhealthy > 0 {
			problems = append(problems, fmt.Sprintf("%s: a kubelet would have restarted it %d times, because /healthz failed", p.name, p.unhealthy))
		}
	}
	if len(r.results) == 0 {
		problems = append(problems, "no honest request was created")
	}
	for _, one := range r.results {
		switch {
		case one.failure != "":
			problems = append(problems, fmt.Sprintf("%s, %s after the attacks began, during %s: %s", one.name, one.after.Round(time.Second), one.attacks, one.failure))
		case one.took > r.settings.within:
			problems = append(problems, fmt.Sprintf("%s, %s after the attacks began, during %s: issued after %s", one.name, one.after.Round(time.Second), one.attacks, one.took.Round(time.Millisecond)))
		}
	}
	for _, a := range r.attacks {
		if a.unauthorized > 0 {
			problems = append(problems, fmt.Sprintf("attack %s: RBAC forbids %d steps, so it tests nothing: %s", a.name, a.unauthorized, a.lastError))
		}
	}
	return problems
}

// print writes the tables, the problems and the logs of processes that ended.
func (r *report) print(out io.Writer) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nprocess\tlimit\tpeak of cgroup\tpeak of process\tCPU\tended\tunhealthy\tnot ready")
	for _, p := range r.processes {
		fmt.Fprintf(t, "%s\t%d MiB by %s\t%d MiB\t%d MiB\t%s\t%d\t%d\t%s\n", p.name, p.limit.memory>>20, p.limit.kind,
			p.resident>>20, p.peak>>20, (p.cpu + p.cpuNow).Round(time.Second), len(p.deaths), p.unhealthy, p.notReady)
	}
	fmt.Fprintln(t, "\nhonest requests\tcount\tfailed\tp50\tp99\tmax")
	r.printPhase(t, "before the attacks", false)
	r.printPhase(t, "during the attacks", true)
	fmt.Fprintf(t, "update of a ConfigMap\t%d\t\t%s\t%s\t%s\n", len(r.api), ms(r.api, 0.5), ms(r.api, 0.99), ms(r.api, 1))
	fmt.Fprintln(t, "\nattack\tuser\tsteps\trefused\tslowest honest request\tlast refusal")
	for _, a := range r.attacks {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%s\n", a.name, a.user, a.steps, a.refused, r.slowest(a).Round(time.Millisecond), shorten(a.lastError, 100))
	}
	_ = t.Flush()
	r.printProblems(out)
}

// printPhase writes the row of the honest requests before or during the attacks.
func (r *report) printPhase(out io.Writer, name string, attacked bool) {
	var took []time.Duration
	failed := 0
	for _, one := range r.results {
		if one.after >= 0 != attacked {
			continue
		}
		if one.failure != "" {
			failed++
		}
		took = append(took, one.took)
	}
	fmt.Fprintf(out, "%s\t%d\t%d\t%s\t%s\t%s\n", name, len(took), failed, ms(took, 0.5), ms(took, 0.99), ms(took, 1))
}

func (r *report) printProblems(out io.Writer) {
	const most = 40
	problems := r.problems()
	for i, problem := range problems {
		if i == most {
			fmt.Fprintf(out, "... and %d more\n", len(problems)-most)
			break
		}
		fmt.Fprintln(out, "FAIL", shorten(problem, 400))
	}
	for _, p := range r.processes {
		for _, d := range p.deaths {
			fmt.Fprintf(out, "\nthe log of %s when it ended after %s:\n%s\n", p.name, d.after.Round(time.Second), d.log)
		}
	}
	if len(problems) == 0 {
		fmt.Fprintf(out, "PASS: no process ended, and every honest request was issued within %s\n", r.settings.within)
	}
}

// slowest returns the longest time of an honest request that was created while the attack ran.
func (r *report) slowest(a *attack) (longest time.Duration) {
	for _, one := range r.results {
		for _, name := range splitAttacks(one.attacks) {
			if name == a.name {
				longest = max(longest, one.took)
			}
		}
	}
	return longest
}

func ms(durations []time.Duration, q float64) string {
	return fmt.Sprintf("%d ms", quantile(durations, q).Milliseconds())
}

func splitAttacks(text string) []string { return strings.Split(text, " + ") }

// shorten returns a text on one line, of at most size bytes.
func shorten(text string, size int) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > size {
		text = strings.ToValidUTF8(text[:size], "") + "..."
	}
	return text
}
