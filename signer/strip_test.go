// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A reflector may transform an object twice: one that is due must stay due, or an approved
// request that was listed before its Signer was known would never be signed.
func TestStripIsIdempotent(t *testing.T) {
	object := func() *certificatesv1.CertificateSigningRequest {
		return &certificatesv1.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{"x": "y"}},
			Spec:       certificatesv1.CertificateSigningRequestSpec{SignerName: "example.com/serving", Request: []byte("request")},
			Status: certificatesv1.CertificateSigningRequestStatus{Conditions: []certificatesv1.CertificateSigningRequestCondition{
				{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue},
			}},
		}
	}
	for name, known := range map[string]bool{"by no Signer known now": false, "by a Signer": true} {
		t.Run(name, func(t *testing.T) {
			r := newRegistry()
			if known {
				r.set("serving", "example.com/serving", nil)
			}
			var stripped any = object()
			for range 2 {
				var err error
				if stripped, err = r.strip(stripped); err != nil {
					t.Fatal(err)
				}
			}
			csr := stripped.(*certificatesv1.CertificateSigningRequest)
			if csr.Spec.SignerName != "example.com/serving" || (len(csr.Spec.Request) > 0) != known {
				t.Errorf("got %+v", csr)
			}
		})
	}
	r := newRegistry()
	pending := object()
	pending.Status.Conditions = nil
	stripped, err := r.strip(pending)
	if csr := stripped.(*certificatesv1.CertificateSigningRequest); err != nil || csr.Spec.SignerName != "" || csr.Annotations != nil {
		t.Errorf("a request that is not to be signed keeps its identity only, got %+v, %v", csr, err)
	}
}
