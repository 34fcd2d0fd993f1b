// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"countersign.dev/countersign/audit"
)

// Labels are bounded: handlers, answers and verdicts are constants.
var (
	answers = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "countersign_webhook_answers_total",
		Help: "Answers to the API server, by webhook and answer (allowed, warned, refused, fault).",
	}, []string{"webhook", "answer"})
	approvals = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "countersign_webhook_approvals_total",
		Help: "Manual approvals that were reviewed, by verdict.",
	}, []string{"verdict"})
	clientAuthentication = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "countersign_webhook_client_authentication",
		Help: "1 if clients must present a certificate, 0 if any client can send requests.",
	})
	certificateExpiry = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "countersign_webhook_certificate_expiry_timestamp_seconds",
		Help: "Expiry time of the serving certificate, in seconds since 1970; 0 if there is none.",
	})
)

func registerMetrics(registerer prometheus.Registerer, log *audit.Log) error {
	for _, c := range []prometheus.Collector{answers, approvals, certificateExpiry, clientAuthentication, log.Metrics()} {
		if err := registerer.Register(c); err != nil {
			return fmt.Errorf("registering metrics: %w", err)
		}
	}
	for _, verdict := range []string{ApprovalAllowed, ApprovalRefused, ApprovalOverridden} {
		approvals.WithLabelValues(verdict) // start at 0, so that rate() counts the first one
	}
	return nil
}
