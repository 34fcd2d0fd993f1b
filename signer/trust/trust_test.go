// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
)

func TestSelects(t *testing.T) {
	where := func(s metav1.LabelSelector) *v1alpha1.TrustConfigMap {
		return &v1alpha1.TrustConfigMap{NamespaceSelector: s}
	}
	team := metav1.LabelSelector{MatchLabels: map[string]string{"team": "a"}}
	tests := []struct {
		name   string
		where  *v1alpha1.TrustConfigMap
		labels map[string]string
		want   bool
	}{
		{"no ConfigMap asked for", nil, nil, false},
		{"empty selector", where(metav1.LabelSelector{}), nil, true},
		{"label matches", where(team), map[string]string{"team": "a", "x": "y"}, true},
		{"label differs", where(team), map[string]string{"team": "b"}, false},
		{
			"invalid selector",
			where(metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "team", Operator: "Like"}}}),
			map[string]string{"team": "a"},
			false,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := Selects(test.where, test.labels); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}
