// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPrepare_approvalAge(t *testing.T) {
	keys := testKeys()
	ago := func(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }
	const hour = "approved at 2026-03-01T10:59:59Z, and the Signer signs only within 1h0m0s of the approval: make a new request, or raise spec.maxApprovalAge of the Signer"
	tests := map[string]struct {
		update, transition, created metav1.Time
		want                        string // empty: it is issued
	}{
		"just now":                                {update: ago(0)},
		"an hour ago":                             {update: ago(time.Hour)},
		"a second more":                           {update: ago(time.Hour + time.Second), want: hour},
		"by a clock that is ahead":                {update: ago(-time.Minute)},
		"by a clock that is a day ahead":          {update: ago(-24 * time.Hour)},
		"only its transition is told":             {transition: ago(time.Minute)},
		"only its transition is told, long ago":   {transition: ago(time.Hour + time.Second), want: hour},
		"again since":                             {update: ago(time.Minute), transition: ago(24 * time.Hour)},
		"not told: no later than it was made":     {created: ago(time.Minute)},
		"not told, and made long ago":             {created: ago(time.Hour + time.Second), want: hour},
		"nothing told: never is no time to trust": {want: "approved at 0001-01-01T00:00:00Z, and the Signer signs only within 1h0m0s of the approval: make a new request, or raise spec.maxApprovalAge of the Signer"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			csr := newCSR(t, keys.EC, nil, func(c *certificatesv1.CertificateSigningRequest) {
				c.CreationTimestamp = test.created
				c.Status.Conditions[0].LastUpdateTime, c.Status.Conditions[0].LastTransitionTime = test.update, test.transition
			})
			_, err := Prepare(now, csr, newProfile(t, nil), newCA(t, keys.EC, nil))
			text := ""
			if err != nil {
				if _, ok := errors.AsType[*TooOld](err); !ok {
					t.Fatalf("got %v, want a *TooOld", err)
				}
				text = err.Error()
			}
			if diff := cmp.Diff(test.want, text); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}
