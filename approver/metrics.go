// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Labels are bounded: verdicts and reasons are constants, and admins name the policies.
var (
	decisions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "countersign_approver_decisions_total",
		Help: "Decisions written and holds started, by verdict and reason.",
	}, []string{"verdict", "reason"})
	decisionErrors = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "countersign_approver_decision_errors_total",
		Help: "Reviews that failed with an error and are retried.",
	})
	decisionSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "countersign_approver_decision_seconds",
		Help:    "Time from the creation of a request, which is stored in seconds, to its verdict.",
		Buckets: []float64{.25, .5, 1, 2, 5, 10, 30, 60, 300},
	})
	shadowAnswers = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "countersign_approver_audited_total",
		Help: "Answers of policies in mode Audit, by policy and answer (allow, deny, hold, abstain, error).",
	}, []string{"policy", "answer"})
	candidateDisagreements = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "countersign_approver_candidate_disagreements_total",
		Help: "Decisions on which the candidate of a policy disagrees with its active revision.",
	}, []string{"policy"})
	policyLoaded = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "countersign_approver_policy_loaded",
		Help: "1 if the source in the spec of a policy is active on this replica, 0 with the reason LastGoodActive or NotLoaded if not. Not set for policies in mode Disabled.",
	}, []string{"policy", "reason"})
	evaluationSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "countersign_approver_evaluation_seconds",
		Help:    "Duration of one evaluation of a policy.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .05, .25, 1},
	}, []string{"policy"})
)

func registerMetrics(registerer prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{decisions, decisionErrors, decisionSeconds, shadowAnswers, candidateDisagreements, policyLoaded, evaluationSeconds} {
		if err := registerer.Register(c); err != nil {
			return err
		}
	}
	return nil
}
