// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"io"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/test/monitoring"
)

func TestAlertsAndDashboardUseMetricsThatExist(t *testing.T) {
	ours := prometheus.NewRegistry()
	if err := registerMetrics(ours, audit.NewLog(io.Discard)); err != nil {
		t.Fatal(err)
	}
	if err := monitoring.Compare("webhook", ours, metrics.Registry.(prometheus.Collector)); err != nil {
		t.Error(err)
	}
}
