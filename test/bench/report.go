// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// The part of the documentation between these lines is generated.
const (
	docsBegin = "<!-- what make bench measured: begin -->"
	docsEnd   = "<!-- what make bench measured: end -->"
)

// reportCommand writes the tables of a run from its JSON.
func reportCommand(args []string) error {
	fs := flag.NewFlagSet("bench report", flag.ContinueOnError)
	from := fs.String("from", "", "`file` with the JSON of a run.")
	docs := fs.String("docs", "", "`file` whose part between the markers becomes the tables.")
	if err := fs.Parse(args); err != nil {
		return err
	}
	r, err := readResults(*from)
	if err != nil {
		return err
	}
	r.derive()
	return publish(r, *from, *docs, os.Stdout)
}

// table is a title, a header and rows.
type table struct {
	title string
	head  []string
	rows  [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// text writes a table in aligned columns.
func (t table) text(out io.Writer) error {
	fmt.Fprintf(out, "%s\n\n", t.title)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{t.head}, t.rows...) {
		fmt.Fprintln(w, "  "+strings.Join(row, "\t"))
	}
	fmt.Fprintln(w)
	return w.Flush()
}

func (t table) markdown(out io.Writer) {
	fmt.Fprintf(out, "### %s\n\n| %s |\n|%s\n", t.title, strings.Join(t.head, " | "), strings.Repeat("---|", len(t.head)))
	for _, row := range t.rows {
		fmt.Fprintf(out, "| %s |\n", strings.Join(row, " | "))
	}
	fmt.Fprintln(out)
}

// print writes the tables and the loads that were not served to a terminal.
func (r *results) print(out io.Writer) []error {
	var errs []error
	for _, t := range r.tables() {
		errs = append(errs, t.text(out))
	}
	for _, failure := range r.Failures {
		fmt.Fprintln(out, "FAILED:", failure)
	}
	fmt.Fprintf(out, "%s; it took %s.\n", r.where(), r.Took)
	return errs
}

// where describes the machine and the versions of a run.
func (r *results) where() string {
	m := r.Machine
	return fmt.Sprintf("Measured on %s, %d CPUs (%s) with %.0f GiB, load and servers on the same machine; Kubernetes %s, %s",
		r.Started.Format("2006-01-02"), m.CPUs, m.CPU, m.MemoryGiB, m.Kubernetes, m.Go)
}

func (r *results) tables() (tables []table) {
	for _, t := range []table{r.targetTable(), r.systemTable(), r.costTable(), r.callTable(), r.growthTable(), r.microTable()} {
		if len(t.rows) > 0 {
			tables = append(tables, t)
		}
	}
	return tables
}

func (r *results) targetTable() table {
	t := table{title: "Targets", head: []string{"figure", "target", "measured", "ratio", "met"}}
	for _, row := range r.Targets {
		ratio, met := "", "no"
		if row.Ratio > 0 {
			ratio = fmt.Sprintf("%.2f", row.Ratio)
		}
		if row.Met {
			met = "yes"
		}
		t.add(row.Figure, row.Target, row.Measured, ratio, met)
	}
	return t
}

func (r *results) systemTable() table {
	t := table{
		title: "The systems",
		head:  []string{"system", "burst, per second", "least to most", "to null", "mix with 10 % hostile, ended per second", fmt.Sprintf("p50 at %d/s", r.Settings.Rate), "p99", "until the first requests are issued"},
	}
	for _, row := range r.Systems {
		mix, ratio := "", ""
		if row.MixPerSecond > 0 {
			mix = fmt.Sprintf("%.0f, %s hostile denied", row.MixPerSecond, thousands(row.DeniedHostile))
		}
		if row.ToNull > 0 {
			ratio = fmt.Sprintf("%.2f", row.ToNull)
		}
		p50, p99 := "", ""
		if row.P50 > 0 {
			p50, p99 = fmt.Sprintf("%.1f ms", row.P50), fmt.Sprintf("%.1f ms", row.P99)
		}
		t.add(systemTitle(row.System), fmt.Sprintf("%.0f", row.PerSecond), fmt.Sprintf("%.0f to %.0f", row.Spread[0], row.Spread[1]), ratio, mix, p50, p99,
			fmt.Sprintf("%.1f s", row.ReadySeconds[firstRequestIssued]))
	}
	return t
}

// costTable shows the CPU and the memory of each process.
func (r *results) costTable() table {
	t := table{title: "What each process needs", head: []string{"system", "process", "CPU seconds per 1,000 requests, burst", "steady", "peak memory", "start to ready"}}
	for _, row := range r.Systems {
		for _, process := range slices.Sorted(maps.Keys(row.CPUSeconds)) {
			steady, ready := "", ""
			if cpu := row.SteadyCPU[process]; cpu > 0 {
				steady = fmt.Sprintf("%.2f", cpu)
			}
			if seconds := row.ReadySeconds[process]; seconds > 0 {
				ready = fmt.Sprintf("%.2f s", seconds)
			}
			t.add(systemTitle(row.System), process, fmt.Sprintf("%.2f", row.CPUSeconds[process]), steady, fmt.Sprintf("%.0f MiB", row.PeakMiB[process]), ready)
		}
	}
	return t
}

// callTable shows what one certificate costs the API server.
func (r *results) callTable() table {
	t := table{title: "API requests per certificate, burst", head: []string{"request"}}
	var systems []systemRow
	calls := map[string]bool{}
	for _, row := range r.Systems {
		if row.System == kcmDefaults {
			continue
		}
		t.head = append(t.head, systemTitle(row.System))
		systems = append(systems, row)
		for call := range row.Calls {
			calls[call] = true
		}
	}
	totals := make([]float64, len(systems))
	for _, call := range slices.Sorted(maps.Keys(calls)) {
		counts := make([]float64, len(systems))
		for i, row := range systems {
			counts[i] = row.Calls[call]
			totals[i] += row.Calls[call]
		}
		if slices.Max(counts) >= leastCount {
			t.add(countCells(call, counts)...)
		}
	}
	if len(t.rows) > 0 {
		t.add(countCells("all", totals)...)
	}
	return t
}

// leastCount is the smallest count that is not rounded to 0.00.
const leastCount = 0.005

// countCells returns a row of counts. The cell of a count that rounds to zero is empty.
func countCells(name string, counts []float64) []string {
	cells := []string{name}
	for _, count := range counts {
		cell := ""
		if count >= leastCount {
			cell = fmt.Sprintf("%.2f", count)
		}
		cells = append(cells, cell)
	}
	return cells
}

func (r *results) growthTable() table {
	t := table{
		title: "As the cluster grows",
		head:  []string{"cluster", "issued per second", "null", "to null", "p50", "p99", "evaluation", "approver, peak", "at the end", "target", "signer, peak", "approver ready after"},
	}
	figure := func(format string, value float64) string {
		if value == 0 {
			return "-" // it was not served
		}
		return fmt.Sprintf(format, value)
	}
	for _, row := range r.Growth {
		t.add(row.At, figure("%.0f", row.PerSecond), figure("%.0f", row.NullPerSecond), figure("%.2f", row.ToNull),
			figure("%.1f ms", row.P50), figure("%.1f ms", row.P99), figure("%.0f µs", row.Evaluation),
			figure("%.0f MiB", row.ApproverMiB), figure("%.0f MiB", row.ApproverNowMiB), figure("%.0f MiB", row.ApproverLimit),
			figure("%.0f MiB", row.SignerMiB), figure("%.1f s", row.ReadySeconds))
	}
	return t
}

func (r *results) microTable() table {
	t := table{title: "Go benchmarks", head: []string{"benchmark", "time", "memory", "allocations"}}
	for _, row := range r.Micro {
		t.add(row.Name, fmt.Sprintf("%.0f µs", row.Microseconds), fmt.Sprintf("%.0f KiB", row.Bytes/1024), fmt.Sprintf("%.0f", row.Allocations))
	}
	return t
}

// updateDocs writes the tables between the markers of a file.
func updateDocs(path string, r *results) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(raw, []byte(docsBegin))
	_, after, ok2 := bytes.Cut(rest, []byte(docsEnd))
	if !ok || !ok2 {
		return fmt.Errorf("%s does not have the lines %q and %q", path, docsBegin, docsEnd)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s%s\n\n%s. Medians of %d rounds; each ratio is the median of the ratios within a round.\n\n", before, docsBegin, r.where(), r.Settings.Rounds)
	for _, failure := range r.Failures {
		fmt.Fprintf(&out, "- **Not served:** %s\n", strings.ReplaceAll(failure, "\n", " "))
	}
	for _, t := range r.tables() {
		t.markdown(&out)
	}
	fmt.Fprintf(&out, "%s%s", docsEnd, after)
	return os.WriteFile(path, out.Bytes(), 0o644)
}
