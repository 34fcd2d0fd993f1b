// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"countersign.dev/countersign/test/cluster"
)

// results are all measurements of a run and the tables computed from them. test/bench/plot reads growth from the JSON.
type results struct {
	Started  time.Time `json:"started"`
	Took     string    `json:"took"`
	Machine  machine   `json:"machine"`
	Settings settings  `json:"settings"`
	// EmptyMiB is the peak memory of each process when it is ready, in a cluster without Pods.
	EmptyMiB map[string]float64 `json:"emptyMiB"`
	Targets  []target           `json:"targets"`
	Systems  []systemRow        `json:"systems"`
	Growth   []growthRow        `json:"growth"`
	Micro    []microRow         `json:"micro"`
	// Failures are the loads that were not served as expected.
	Failures []string `json:"faults"`
	// Measured are all measurements in order.
	Measured []measurement `json:"measured"`
}

// machine describes the machine of a run.
type machine struct {
	CPU        string  `json:"cpu"`
	CPUs       int     `json:"cpus"`
	MemoryGiB  float64 `json:"memoryGiB"`
	Go         string  `json:"go"`
	Kubernetes string  `json:"kubernetes"`
}

func newResults(_ context.Context, c *cluster.Cluster, s settings) (*results, error) {
	version, err := c.Clientset().Discovery().ServerVersion()
	if err != nil {
		return nil, err
	}
	r := &results{
		Started: time.Now().UTC().Truncate(time.Second), Settings: s, Failures: []string{},
		Machine: machine{CPU: procField("/proc/cpuinfo", "model name"), CPUs: runtime.NumCPU(), Go: runtime.Version(), Kubernetes: version.GitVersion},
	}
	kib, _ := strconv.ParseFloat(strings.TrimSuffix(procField("/proc/meminfo", "MemTotal"), " kB"), 64)
	r.Machine.MemoryGiB = math.Round(kib / (1 << 20))
	return r, nil
}

// procField returns a field of a file of lines "name: value", or "" if the file does not exist.
func procField(path, name string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close() //nolint:errcheck // read only
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if field, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(field) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// measurement is one load of one system.
type measurement struct {
	At     string `json:"at"`
	Round  int    `json:"round"`
	System string `json:"system"`
	Load   string `json:"load"`

	Pods      int `json:"pods"`
	Unrelated int `json:"unrelated"`
	Policies  int `json:"policies"`

	Requests int `json:"requests"`
	Hostile  int `json:"hostile"`
	Issued   int `json:"issued"`
	Denied   int `json:"denied"`

	Seconds float64 `json:"seconds"`
	// PerSecond is the number of requests that ended per second, with a certificate or a denial.
	PerSecond float64 `json:"perSecond"`
	P50       float64 `json:"p50Milliseconds"`
	P99       float64 `json:"p99Milliseconds"`
	// CPUSeconds is the CPU time of each process for 1,000 requests. PeakMiB is its peak memory since it started.
	CPUSeconds map[string]float64 `json:"cpuSecondsPer1000"`
	PeakMiB    map[string]float64 `json:"peakMiB"`
	NowMiB     map[string]float64 `json:"residentMiB"`
	// Calls are requests to the API server for each request of the load, by verb and resource. They include those of the
	// load itself.
	Calls map[string]float64 `json:"callsPerRequest"`
	// Evaluation is the mean time of a policy evaluation in the approver.
	Evaluation float64 `json:"evaluationMicroseconds,omitempty"`
	// ReadySeconds is the time from the start of each process until it was ready, and until the first requests were
	// issued.
	ReadySeconds map[string]float64 `json:"readySeconds"`
}

// add adds the results of the requests.
func (m *measurement) add(b batch) {
	m.Requests, m.Hostile, m.Issued, m.Denied = b.requests, b.hostile, b.issued, b.denied
	m.Seconds = b.took.Seconds()
	if b.took > 0 {
		m.PerSecond = float64(b.issued+b.denied) / b.took.Seconds()
	}
	m.P50, m.P99 = quantile(b.latencies, 0.50), quantile(b.latencies, 0.99)
}

// compare adds the usage and the API requests between two snapshots.
func (m *measurement) compare(before, after snapshot) {
	m.CPUSeconds, m.PeakMiB, m.NowMiB, m.Calls = map[string]float64{}, map[string]float64{}, map[string]float64{}, map[string]float64{}
	for process, used := range after.usage {
		m.CPUSeconds[process] = (used.cpu - before.usage[process].cpu).Seconds() / float64(m.Requests) * 1000
		m.PeakMiB[process], m.NowMiB[process] = used.peakMiB, used.residentMiB
	}
	for call, count := range after.requests {
		if calls := (count - before.requests[call]) / float64(m.Requests); calls >= 0.005 { // smaller values are background requests
			m.Calls[call] = calls
		}
	}
	if evaluated := after.evaluated - before.evaluated; evaluated > 0 {
		m.Evaluation = float64((after.evaluates - before.evaluates).Microseconds()) / float64(evaluated)
	}
}

// String returns a measurement as a progress line.
func (m *measurement) String() string {
	return fmt.Sprintf("%s: %d issued, %d denied, %.0f/s, p50 %.0f ms, p99 %.0f ms", m.Load, m.Issued, m.Denied, m.PerSecond, m.P50, m.P99)
}

// quantile returns a quantile of sorted times in milliseconds, and 0 if there are none.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return float64(sorted[max(i, 0)].Microseconds()) / 1000
}

// median returns the median of numbers, and 0 if there are none.
func median(numbers []float64) float64 {
	if len(numbers) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(numbers))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// err returns an error that names the loads that were not served, or nil.
func (r *results) err() error {
	var errs []error
	for _, failure := range r.Failures {
		errs = append(errs, errors.New(failure))
	}
	return errors.Join(errs...)
}

func (r *results) write(path string) error {
	raw, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o644)
}

func readResults(path string) (*results, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &results{}
	if err := json.Unmarshal(raw, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// of returns the values of the loads of a system in the order of the measurements.
func (r *results) of(at, system, load string, value func(*measurement) float64) (out []float64) {
	for i := range r.Measured {
		m := &r.Measured[i]
		if m.At == at && m.System == system && m.Load == load {
			out = append(out, value(m))
		}
	}
	return out
}

// ratio returns the median over the rounds of the ratio of two systems' burst rates in the same round, and 0 if no round
// has both.
func (r *results) ratio(at, system, reference string) float64 {
	byRound := map[int]float64{}
	for i := range r.Measured {
		if m := &r.Measured[i]; m.At == at && m.System == reference && m.Load == "burst" {
			byRound[m.Round] = m.PerSecond
		}
	}
	var ratios []float64
	for i := range r.Measured {
		if m := &r.Measured[i]; m.At == at && m.System == system && m.Load == "burst" && byRound[m.Round] > 0 {
			ratios = append(ratios, m.PerSecond/byRound[m.Round])
		}
	}
	return median(ratios)
}

func perSecond(m *measurement) float64  { return m.PerSecond }
func p50(m *measurement) float64        { return m.P50 }
func p99(m *measurement) float64        { return m.P99 }
func evaluation(m *measurement) float64 { return m.Evaluation }

func peakOf(process string) func(*measurement) float64 {
	return func(m *measurement) float64 { return m.PeakMiB[process] }
}

func readyOf(process string) func(*measurement) float64 {
	return func(m *measurement) float64 { return m.ReadySeconds[process] }
}

// thousands formats a number as 10,000.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// numbers parses a list such as 1000,10000.
func numbers(text string) (out []int, err error) {
	for field := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(field))
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is not a number of at least 1", field)
		}
		out = append(out, n)
	}
	return out, nil
}
