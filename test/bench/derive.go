// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
)

// target is a figure and whether it was reached.
type target struct {
	Figure   string  `json:"figure"`
	Target   string  `json:"target"`
	Measured string  `json:"measured"`
	Ratio    float64 `json:"ratio,omitempty"` // to the reference of the target; 0 if there is none
	Met      bool    `json:"met"`
}

// systemRow has the medians of a system over the rounds of the comparison.
type systemRow struct {
	System        string             `json:"system"`
	PerSecond     float64            `json:"perSecond"`
	Spread        [2]float64         `json:"perSecondSpread"` // minimum and maximum of the rounds
	ToNull        float64            `json:"ratioToNull,omitempty"`
	MixPerSecond  float64            `json:"mixPerSecond,omitempty"`
	P50           float64            `json:"p50Milliseconds,omitempty"`
	P99           float64            `json:"p99Milliseconds,omitempty"`
	CPUSeconds    map[string]float64 `json:"cpuSecondsPer1000"`
	SteadyCPU     map[string]float64 `json:"steadyCPUSecondsPer1000,omitempty"`
	PeakMiB       map[string]float64 `json:"peakMiB"`
	Calls         map[string]float64 `json:"callsPerRequest"`
	ReadySeconds  map[string]float64 `json:"readySeconds"`
	DeniedHostile int                `json:"deniedHostile,omitempty"`
}

// growthRow has the medians of a size of the cluster over the rounds.
type growthRow struct {
	At             string  `json:"at"`
	Pods           int     `json:"pods"`
	Unrelated      int     `json:"unrelated"`
	Policies       int     `json:"policies"`
	PerSecond      float64 `json:"perSecond"`
	NullPerSecond  float64 `json:"nullPerSecond"`
	ToNull         float64 `json:"ratioToNull"`
	Evaluation     float64 `json:"evaluationMicroseconds"`
	ApproverMiB    float64 `json:"approverPeakMiB"`
	ApproverNowMiB float64 `json:"approverResidentMiB"`
	ApproverLimit  float64 `json:"approverTargetMiB"`
	SignerMiB      float64 `json:"signerPeakMiB"`
	ReadySeconds   float64 `json:"approverReadySeconds"`
	P50            float64 `json:"p50Milliseconds"`
	P99            float64 `json:"p99Milliseconds"`
}

const comparison = "comparison"

// The targets of the table.
const (
	wantToNull         = 0.75
	wantToKCM          = 1.3
	wantP50, wantP99   = 25.0, 100.0 // milliseconds, or twice null's
	wantGrowth         = 0.9
	wantEvaluations    = 1.1 // "unchanged", within the noise of two runs
	wantMiB            = 60.0
	wantKiBAPod        = 1.5
	wantSignerMiB      = 50.0
	wantSignerGrowth   = 1.1 // "flat"
	wantEvaluation     = 250.0
	wantManyPolicies   = 1.05
	approverProcess    = "approver"
	signerProcess      = "signer"
	firstRequestIssued = "first requests issued"
)

// derive computes the tables from the measurements.
func (r *results) derive() {
	r.Systems, r.Growth, r.Targets = r.systemRows(), r.growthRows(), nil
	r.Targets = append(r.Targets, r.comparisonTargets()...)
	r.Targets = append(r.Targets, r.growthTargets()...)
	r.Targets = append(r.Targets, r.microTargets()...)
}

func (r *results) systemRows() (rows []systemRow) {
	for _, system := range []string{countersign, countersignWebhook, nullName, kcm, kcmDefaults} {
		rates := r.of(comparison, system, "burst", perSecond)
		if len(rates) == 0 {
			continue
		}
		row := systemRow{
			System: system, PerSecond: median(rates), Spread: [2]float64{slices.Min(rates), slices.Max(rates)},
			MixPerSecond: median(r.of(comparison, system, "mix", perSecond)),
			P50:          median(r.of(comparison, system, "steady", p50)), P99: median(r.of(comparison, system, "steady", p99)),
			CPUSeconds:   r.medians(system, "burst", func(m *measurement) map[string]float64 { return m.CPUSeconds }),
			SteadyCPU:    r.medians(system, "steady", func(m *measurement) map[string]float64 { return m.CPUSeconds }),
			PeakMiB:      r.medians(system, "", func(m *measurement) map[string]float64 { return m.PeakMiB }),
			Calls:        r.medians(system, "burst", func(m *measurement) map[string]float64 { return m.Calls }),
			ReadySeconds: r.medians(system, "burst", func(m *measurement) map[string]float64 { return m.ReadySeconds }),
		}
		if system != nullName {
			row.ToNull = r.ratio(comparison, system, nullName)
		}
		for _, denied := range r.of(comparison, system, "mix", func(m *measurement) float64 { return float64(m.Denied) }) {
			row.DeniedHostile += int(denied)
		}
		rows = append(rows, row)
	}
	return rows
}

// medians returns the median of each key over the rounds, of the last load of each round if load is empty.
func (r *results) medians(system, load string, values func(*measurement) map[string]float64) map[string]float64 {
	byKey := map[string]map[int]float64{}
	rounds := map[int]bool{}
	for i := range r.Measured {
		m := &r.Measured[i]
		if m.At != comparison || m.System != system || (load != "" && m.Load != load) {
			continue
		}
		rounds[m.Round] = true
		for key, value := range values(m) {
			if byKey[key] == nil {
				byKey[key] = map[int]float64{}
			}
			byKey[key][m.Round] = value
		}
	}
	out := map[string]float64{}
	for key, byRound := range byKey {
		var all []float64
		for round := range rounds {
			all = append(all, byRound[round]) // 0 if there was none
		}
		out[key] = median(all)
	}
	return out
}

func (r *results) growthRows() (rows []growthRow) {
	added := map[string]bool{}
	for i := range r.Measured {
		m := &r.Measured[i]
		if m.At == comparison || added[m.At] {
			continue
		}
		added[m.At] = true
		of := func(load string, value func(*measurement) float64) float64 {
			return median(r.of(m.At, countersign, load, value))
		}
		rows = append(rows, growthRow{
			At: m.At, Pods: m.Pods, Unrelated: m.Unrelated, Policies: m.Policies,
			PerSecond: of("burst", perSecond), NullPerSecond: median(r.of(m.At, nullName, "burst", perSecond)),
			ToNull:     r.ratio(m.At, countersign, nullName),
			Evaluation: of("steady", evaluation), P50: of("steady", p50), P99: of("steady", p99),
			ApproverMiB: of("steady", peakOf(approverProcess)), SignerMiB: of("steady", peakOf(signerProcess)),
			ApproverNowMiB: of("steady", func(m *measurement) float64 { return m.NowMiB[approverProcess] }),
			ApproverLimit:  wantMiB + wantKiBAPod*float64(m.Pods)/1024,
			ReadySeconds:   of("burst", readyOf(approverProcess)),
		})
	}
	return rows
}

func (r *results) comparisonTargets() (targets []target) {
	for _, reference := range []struct {
		system string
		want   float64
	}{{nullName, wantToNull}, {kcm, wantToKCM}} {
		ratio := r.ratio(comparison, countersign, reference.system)
		if ratio == 0 {
			continue
		}
		targets = append(targets, target{
			Figure: fmt.Sprintf("issued per second, burst of %s, all checks on, beside %s", thousands(r.Settings.Burst), systemTitle(reference.system)),
			Target: fmt.Sprintf("≥ %.2f x", reference.want),
			Measured: fmt.Sprintf("%.0f beside %.0f", median(r.of(comparison, countersign, "burst", perSecond)),
				median(r.of(comparison, reference.system, "burst", perSecond))),
			Ratio: ratio, Met: ratio >= reference.want,
		})
	}
	for _, latency := range []struct {
		name  string
		value func(*measurement) float64
		want  float64
	}{{"p50", p50, wantP50}, {"p99", p99, wantP99}} {
		own, nulls := median(r.of(comparison, countersign, "steady", latency.value)), median(r.of(comparison, nullName, "steady", latency.value))
		if own == 0 || nulls == 0 {
			continue
		}
		targets = append(targets, target{
			Figure:   fmt.Sprintf("latency %s at a steady %d a second", latency.name, r.Settings.Rate),
			Target:   fmt.Sprintf("≤ %.0f ms or 2 x null's", latency.want),
			Measured: fmt.Sprintf("%.1f ms beside null's %.1f ms", own, nulls),
			Ratio:    own / nulls, Met: own <= max(latency.want, 2*nulls),
		})
	}
	return targets
}

func (r *results) growthTargets() (targets []target) {
	if miB := r.EmptyMiB[approverProcess]; miB > 0 {
		targets = append(targets, target{Figure: "approver memory, no Pods, ready", Target: fmt.Sprintf("≤ %.0f MiB", wantMiB), Measured: fmt.Sprintf("%.0f MiB", miB), Met: miB <= wantMiB})
	}
	var sizes []growthRow // rows that differ in the number of Pods only
	for _, row := range r.Growth {
		if row.Unrelated == 0 && row.Policies == 1 {
			sizes = append(sizes, row)
		}
	}
	if len(sizes) == 0 {
		return targets
	}
	targets = append(targets, sizeTargets(sizes[0], sizes[len(sizes)-1])...)
	for _, row := range sizes {
		targets = append(targets, target{
			Figure: fmt.Sprintf("approver memory, peak, %s Pods", thousands(row.Pods)), Target: fmt.Sprintf("≤ %.0f MiB + %.1f KiB a Pod: %.0f MiB", wantMiB, wantKiBAPod, row.ApproverLimit),
			Measured: fmt.Sprintf("%.0f MiB", row.ApproverMiB), Met: row.ApproverMiB <= row.ApproverLimit,
		})
	}
	targets = append(targets, policyTargets(r.Growth)...)
	return append(targets, signerTargets(r.Growth, sizes[0])...)
}

// sizeTargets compare the largest number of Pods with the smallest.
func sizeTargets(first, last growthRow) (targets []target) {
	if last.Pods > first.Pods && first.PerSecond > 0 && first.Evaluation > 0 {
		at := fmt.Sprintf("%s Pods beside %s", thousands(last.Pods), thousands(first.Pods))
		rate, evaluation := last.PerSecond/first.PerSecond, last.Evaluation/first.Evaluation
		targets = append(targets, target{
			Figure: "issued per second, " + at, Target: fmt.Sprintf("≥ %.1f x", wantGrowth),
			Measured: fmt.Sprintf("%.0f beside %.0f (null: %.0f beside %.0f)", last.PerSecond, first.PerSecond, last.NullPerSecond, first.NullPerSecond),
			Ratio:    rate, Met: rate >= wantGrowth,
		}, target{
			Figure: "evaluation time in the approver, " + at, Target: fmt.Sprintf("unchanged (≤ %.1f x)", wantEvaluations),
			Measured: fmt.Sprintf("%.0f µs beside %.0f µs", last.Evaluation, first.Evaluation), Ratio: evaluation, Met: evaluation <= wantEvaluations,
		})
	}
	return targets
}

// policyTargets compare many policies with one.
func policyTargets(growth []growthRow) (targets []target) {
	if row, before := growth[len(growth)-1], growth[max(0, len(growth)-2)]; row.Policies > 1 && before.PerSecond > 0 {
		ratio := row.PerSecond / before.PerSecond
		measured := fmt.Sprintf("%.0f beside %.0f", row.PerSecond, before.PerSecond)
		if ratio == 0 {
			measured = "not served"
		}
		targets = append(targets, target{
			Figure: fmt.Sprintf("issued per second, %d policies of which one matches, beside 1", row.Policies), Target: fmt.Sprintf("≥ %.2f x", 1/wantManyPolicies),
			Measured: measured, Ratio: ratio, Met: ratio >= 1/wantManyPolicies,
		})
	}
	return targets
}

// signerTargets compare the size at which the signer has the highest peak with the first size.
func signerTargets(growth []growthRow, first growthRow) (targets []target) {
	most := first
	for _, row := range growth {
		if row.SignerMiB > most.SignerMiB {
			most = row
		}
	}
	if first.SignerMiB > 0 {
		ratio := most.SignerMiB / first.SignerMiB
		targets = append(targets, target{
			Figure: "signer memory, peak, at whichever size it is the most", Target: fmt.Sprintf("≤ %.0f MiB, flat (≤ %.1f x)", wantSignerMiB, wantSignerGrowth),
			Measured: fmt.Sprintf("%.0f MiB (%s) beside %.0f MiB", most.SignerMiB, most.At, first.SignerMiB), Ratio: ratio, Met: most.SignerMiB <= wantSignerMiB && ratio <= wantSignerGrowth,
		})
	}
	return targets
}

func (r *results) microTargets() (targets []target) {
	runs := map[string]microRow{}
	for _, row := range r.Micro {
		runs[row.Name] = row
	}
	if row, ok := runs[benchEvaluate]; ok {
		targets = append(targets, target{
			Figure: "policy evaluation, pod-serving, 4 names and addresses", Target: fmt.Sprintf("≤ %.0f µs", wantEvaluation),
			Measured: fmt.Sprintf("%.0f µs, %.0f allocations", row.Microseconds, row.Allocations), Met: row.Microseconds <= wantEvaluation,
		})
	}
	one, many := runs[benchOne], runs[benchMany]
	var ratios []float64
	for i := range min(len(one.Runs), len(many.Runs)) {
		ratios = append(ratios, many.Runs[i]/one.Runs[i])
	}
	if len(ratios) > 0 {
		ratio := median(ratios)
		targets = append(targets, target{
			Figure: "deciding among 200 policies of which one matches, beside 1 policy", Target: fmt.Sprintf("≤ %.2f x", wantManyPolicies),
			Measured: fmt.Sprintf("%.0f µs beside %.0f µs", many.Microseconds, one.Microseconds), Ratio: ratio, Met: ratio <= wantManyPolicies,
		})
	}
	return targets
}

// systemTitle returns the name of a system in a table.
func systemTitle(system string) string {
	switch system {
	case kcm:
		return "kube-controller-manager with raised limits"
	case kcmDefaults:
		return "kube-controller-manager with its default limits"
	case countersignWebhook:
		return "Countersign with its webhook"
	case countersign:
		return "Countersign"
	default:
		return system
	}
}
