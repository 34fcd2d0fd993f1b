// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"io"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"countersign.dev/countersign/audit"
)

// TestVerdictsStartAtZero: the first approval of a verdict is an increase.
func TestVerdictsStartAtZero(t *testing.T) {
	if err := registerMetrics(prometheus.NewRegistry(), audit.NewLog(io.Discard)); err != nil {
		t.Fatal(err)
	}
	if got := testutil.CollectAndCount(approvals); got < 3 {
		t.Errorf("%d verdicts are counted", got)
	}
}
