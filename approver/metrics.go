// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Labels are bounded: verdicts and reasons are constants, policies are named by admins.
var (
	decisions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "countersign_approver_decisions_total",
		Help: "Decisions carried out, and holds begun, by verdict and reason.",
	}, []string{"verdict", "reason"})
	decisionErrors = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "countersign_approver_decision_errors_total",
		Help: "Attempts to decide that ended in a fault and are retried.",
	})
	decisionSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "countersign_approver_decision_seconds",
		Help:    "Time from the creation of a request, which is stored to the second, to its verdict.",
		Buckets: []float64{.25, .5, 1, 2, 5, 10, 30, 60, 300},
	})
	audited = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "countersign_approver_audited_total",
		Help: "What policies in mode Audit answered, by policy and answer (allow, deny, hold, abstain, error).",
	}, []string{"policy", "answer"})
	candidateDisagreements = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "countersign_approver_candidate_disagreements_total",
		Help: "Decisions on which a policy's candidate answers otherwise than its active revision.",
	}, []string{"policy"})
	policyLoaded = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "countersign_approver_policy_loaded",
		Help: "1 if this replica decides by the source that a policy names; 0 if not, for the reason LastGoodActive or NotLoaded. Absent of one that is disabled.",
	}, []string{"policy", "reason"})
	evaluationSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "countersign_approver_evaluation_seconds",
		Help:    "Time of one evaluation of a policy.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .05, .25, 1},
	}, []string{"policy"})
)

func registerMetrics(registerer prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{decisions, decisionErrors, decisionSeconds, audited, candidateDisagreements, policyLoaded, evaluationSeconds} {
		if err := registerer.Register(c); err != nil {
			return err
		}
	}
	return nil
}
