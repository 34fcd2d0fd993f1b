// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
)

// TestConditionMetric checks that each condition has one series, and a deleted Signer none.
func TestConditionMetric(t *testing.T) {
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ready := func(status metav1.ConditionStatus, reason string) *v1alpha1.SignerStatus {
		return &v1alpha1.SignerStatus{Conditions: []metav1.Condition{
			{Type: v1alpha1.ConditionReady, Status: status, Reason: reason},
			{Type: v1alpha1.ConditionTrustPublished, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonPublished},
		}}
	}
	m.setStatus("serving", ready(metav1.ConditionTrue, v1alpha1.ReasonCALoaded))
	m.setStatus("serving", ready(metav1.ConditionFalse, v1alpha1.ReasonCAExpired))
	want := `# HELP countersign_signer_condition 1 if a condition of a Signer (Ready, TrustPublished, Rotating) is true, 0 otherwise, with its reason.
# TYPE countersign_signer_condition gauge
countersign_signer_condition{reason="CAExpired",signer="serving",type="Ready"} 0
countersign_signer_condition{reason="Published",signer="serving",type="TrustPublished"} 1
`
	if err := testutil.CollectAndCompare(m.condition, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	m.forget("serving")
	if left := testutil.CollectAndCount(m.condition); left != 0 {
		t.Errorf("%d series of a deleted Signer remain", left)
	}
}
