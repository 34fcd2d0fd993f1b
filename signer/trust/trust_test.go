// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"errors"
	"fmt"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"countersign.dev/countersign/api/v1alpha1"
)

func TestSelects(t *testing.T) {
	where := func(s metav1.LabelSelector) *v1alpha1.TrustConfigMap {
		return &v1alpha1.TrustConfigMap{NamespaceSelector: s}
	}
	team := metav1.LabelSelector{MatchLabels: map[string]string{"team": "a"}}
	tests := map[string]struct {
		where  *v1alpha1.TrustConfigMap
		labels map[string]string
		want   bool
	}{
		"no ConfigMap asked for": {nil, nil, false},
		"empty selector":         {where(metav1.LabelSelector{}), nil, true},
		"label matches":          {where(team), map[string]string{"team": "a", "x": "y"}, true},
		"label differs":          {where(team), map[string]string{"team": "b"}, false},
		"invalid selector": {
			where(metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "team", Operator: "Like"}}}),
			map[string]string{"team": "a"},
			false,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Selects(test.where, test.labels); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestJoin(t *testing.T) {
	if err := join("ca", nil); err != nil {
		t.Errorf("no failure: %v", err)
	}
	configMaps := schema.GroupResource{Resource: "configmaps"}
	err := join("ca", []failure{
		{"b", errors.New("no")},
		{"a", apierrors.NewForbidden(configMaps, "ca", errors.New("no get"))},
	})
	want := `a/ca: configmaps "ca" is forbidden: no get (the signer needs get, create and patch on configmaps with resourceNames ["ca"]); b/ca: no`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
	var many []failure
	for i := range 10 {
		many = append(many, failure{fmt.Sprintf("n%d", i), errors.New("no")})
	}
	want = "n0/ca: no; n1/ca: no; n2/ca: no; n3/ca: no; n4/ca: no; n5/ca: no; n6/ca: no; n7/ca: no; and in 2 more namespaces"
	if err := join("ca", many); err == nil || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
}
