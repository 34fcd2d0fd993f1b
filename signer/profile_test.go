// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
)

func TestNewProfile(t *testing.T) {
	duration := func(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }
	tests := map[string]struct {
		signerName string
		spec       v1alpha1.CertificateProfile
		want       Profile
		err        string
	}{
		"defaults": {
			signerName: signerName,
			want: Profile{signerName, 24 * time.Hour, 5 * time.Minute, []certificatesv1.KeyUsage{
				"digital signature", "key encipherment", "server auth",
			}},
		},
		"everything set": {
			signerName: signerName,
			spec:       v1alpha1.CertificateProfile{MaxDuration: duration(10 * time.Minute), Backdate: duration(time.Hour), Usages: []certificatesv1.KeyUsage{"client auth"}},
			want:       Profile{signerName, 10 * time.Minute, time.Hour, []certificatesv1.KeyUsage{"client auth"}},
		},
		"no signerName": {err: `signerName is "": it must be of the form example.com/serving`},
		"no path":       {signerName: "example.com/", err: `signerName is "example.com/": it must be of the form example.com/serving`},
		"signer of Kubernetes": {
			signerName: "kubernetes.io/kubelet-serving",
			err:        `signerName is "kubernetes.io/kubelet-serving": signers of kubernetes.io belong to the cluster itself`,
		},
		"too short": {
			signerName: signerName, spec: v1alpha1.CertificateProfile{MaxDuration: duration(10*time.Minute - 1)},
			err: "maxDuration is 9m59.999999999s: it must be at least 10m0s",
		},
		"backdate in the future": {
			signerName: signerName, spec: v1alpha1.CertificateProfile{Backdate: duration(-time.Second)},
			err: "backdate is -1s: it must be between 0s and 1h0m0s",
		},
		"backdate too far": {
			signerName: signerName, spec: v1alpha1.CertificateProfile{Backdate: duration(2 * time.Hour)},
			err: "backdate is 2h0m0s: it must be between 0s and 1h0m0s",
		},
		"usage of a CA": {
			signerName: signerName, spec: v1alpha1.CertificateProfile{Usages: []certificatesv1.KeyUsage{"server auth", "cert sign"}},
			err: `usage "cert sign" cannot be issued: use only "digital signature", "key encipherment", "server auth", "client auth"`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := NewProfile(v1alpha1.SignerSpec{SignerName: test.signerName, Certificate: test.spec})
			if test.err != "" {
				if err == nil || err.Error() != test.err {
					t.Errorf("got error %v, want %q", err, test.err)
				}
			} else if err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(Profile{})); diff != "" {
				t.Errorf("profile (-want +got):\n%s", diff)
			}
		})
	}
}
