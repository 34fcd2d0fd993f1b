// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

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
	if err := registerMetrics(ours); err != nil {
		t.Fatal(err)
	}
	if err := monitoring.Compare("approver", ours, audit.NewLog(io.Discard).Metrics(), metrics.Registry.(prometheus.Collector)); err != nil {
		t.Error(err)
	}
}
