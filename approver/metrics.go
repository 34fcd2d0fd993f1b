// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
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
	evaluationSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "countersign_approver_evaluation_seconds",
		Help:    "Time of one evaluation of a policy.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .05, .25, 1},
	}, []string{"policy"})
)

func registerMetrics() error {
	for _, c := range []prometheus.Collector{decisions, decisionErrors, decisionSeconds, audited, candidateDisagreements, evaluationSeconds} {
		if err := metrics.Registry.Register(c); err != nil {
			return err
		}
	}
	return nil
}
