// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"io"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/test/monitoring"
)

func TestAlertsAndDashboardUseMetricsThatExist(t *testing.T) {
	ours := prometheus.NewRegistry()
	if _, err := newMetrics(ours); err != nil {
		t.Fatal(err)
	}
	err := monitoring.Compare("signer", ours, audit.NewLog(io.Discard).Metrics(), ctrlmetrics.Registry.(prometheus.Collector))
	if err != nil {
		t.Error(err)
	}
}
