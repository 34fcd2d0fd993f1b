// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package certreq_test

import (
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/internal/certreq"
)

func condition(conditionType certificatesv1.RequestConditionType, status corev1.ConditionStatus) certificatesv1.CertificateSigningRequestCondition {
	return certificatesv1.CertificateSigningRequestCondition{Type: conditionType, Status: status}
}

func TestStateOf(t *testing.T) {
	approved := condition(certificatesv1.CertificateApproved, corev1.ConditionTrue)
	denied := condition(certificatesv1.CertificateDenied, corev1.ConditionTrue)
	failed := condition(certificatesv1.CertificateFailed, corev1.ConditionTrue)
	type conditions = []certificatesv1.CertificateSigningRequestCondition
	for _, tc := range []struct {
		name              string
		conditions        conditions
		certificate       []byte
		want              certreq.State
		approved, decided bool
	}{
		{"new", nil, nil, certreq.Pending, false, false},
		{"condition of another type", conditions{condition("example.com/Seen", corev1.ConditionTrue)}, nil, certreq.Pending, false, false},
		{"approved", conditions{approved}, nil, certreq.Due, true, true},
		{"approved and issued", conditions{approved}, []byte("pem"), certreq.Issued, true, true},
		{"issued without approval", nil, []byte("pem"), certreq.Issued, false, false},
		{"denied", conditions{denied}, nil, certreq.Denied, false, true},
		{"approved and failed", conditions{approved, failed}, nil, certreq.Failed, true, true},
		{"failed without approval", conditions{failed}, nil, certreq.Failed, false, true},
		{"denied and failed", conditions{failed, denied}, nil, certreq.Denied, false, true},
		{"approved and denied, which the API server rejects", conditions{approved, denied}, []byte("pem"), certreq.Denied, true, true},
		{"status False, which the API server rejects", conditions{condition(certificatesv1.CertificateApproved, corev1.ConditionFalse)}, nil, certreq.Pending, true, true},
		{"status empty, as clients of old versions wrote it", conditions{condition(certificatesv1.CertificateApproved, "")}, nil, certreq.Due, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			csr := &certificatesv1.CertificateSigningRequest{}
			csr.Status.Conditions, csr.Status.Certificate = tc.conditions, tc.certificate
			if got := certreq.StateOf(csr); got != tc.want {
				t.Errorf("StateOf = %s, want %s", got, tc.want)
			}
			if got := certreq.IsApproved(csr); got != tc.approved {
				t.Errorf("IsApproved = %v, want %v", got, tc.approved)
			}
			if got := certreq.IsDecided(csr); got != tc.decided {
				t.Errorf("IsDecided = %v, want %v", got, tc.decided)
			}
		})
	}
}

func TestApprovedAt(t *testing.T) {
	created := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
	updated, transitioned := created.Add(time.Minute), created.Add(time.Hour)
	for _, tc := range []struct {
		name      string
		condition certificatesv1.CertificateSigningRequestCondition
		want      time.Time
	}{
		{"both times", certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateApproved, LastUpdateTime: metav1.NewTime(updated), LastTransitionTime: metav1.NewTime(transitioned),
		}, updated},
		{"transition only", certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateApproved, LastTransitionTime: metav1.NewTime(transitioned),
		}, transitioned},
		{"no time", certificatesv1.CertificateSigningRequestCondition{Type: certificatesv1.CertificateApproved}, created},
		{"another condition", certificatesv1.CertificateSigningRequestCondition{
			Type: "example.com/Seen", LastUpdateTime: metav1.NewTime(updated),
		}, created},
	} {
		t.Run(tc.name, func(t *testing.T) {
			csr := &certificatesv1.CertificateSigningRequest{}
			csr.CreationTimestamp = metav1.NewTime(created)
			csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{tc.condition}
			if got := certreq.ApprovedAt(csr); !got.Equal(tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestServiceAccount(t *testing.T) {
	for _, tc := range []struct {
		username, namespace, name string
		ok                        bool
	}{
		{"system:serviceaccount:ns:sa", "ns", "sa", true},
		{"system:serviceaccount:ns:sa:x", "", "", false},
		{"system:serviceaccount:ns:", "", "", false},
		{"system:serviceaccount::sa", "", "", false},
		{"system:serviceaccount:ns", "", "", false},
		{"system:node:worker-1", "", "", false},
		{"jane", "", "", false},
		{"", "", "", false},
	} {
		t.Run(tc.username, func(t *testing.T) {
			namespace, name, ok := certreq.ServiceAccount(tc.username)
			if namespace != tc.namespace || name != tc.name || ok != tc.ok {
				t.Errorf("got %q, %q, %v; want %q, %q, %v", namespace, name, ok, tc.namespace, tc.name, tc.ok)
			}
		})
	}
}

func TestSingleExtra(t *testing.T) {
	spec := &certificatesv1.CertificateSigningRequestSpec{Extra: map[string]certificatesv1.ExtraValue{
		"one": {"a"}, "two": {"a", "b"}, "none": {},
	}}
	for _, tc := range []struct{ key, want string }{{"one", "a"}, {"two", ""}, {"none", ""}, {"missing", ""}} {
		if got := certreq.SingleExtra(spec, tc.key); got != tc.want {
			t.Errorf("SingleExtra(%q) = %q, want %q", tc.key, got, tc.want)
		}
	}
}

func TestSameRequester(t *testing.T) {
	spec := func(username string, podUIDs ...string) *certificatesv1.CertificateSigningRequestSpec {
		s := &certificatesv1.CertificateSigningRequestSpec{Username: username}
		if podUIDs != nil {
			s.Extra = map[string]certificatesv1.ExtraValue{certreq.PodUIDExtra: podUIDs}
		}
		return s
	}
	for _, tc := range []struct {
		name string
		a, b *certificatesv1.CertificateSigningRequestSpec
		want bool
	}{
		{"the same user without a Pod", spec("u"), spec("u"), true},
		{"another user", spec("u"), spec("v"), false},
		{"the same Pod", spec("u", "1"), spec("u", "1"), true},
		{"another Pod of the ServiceAccount", spec("u", "1"), spec("u", "2"), false},
		{"a Pod and no Pod", spec("u", "1"), spec("u"), false},
		{"two values and one", spec("u", "1", "2"), spec("u", "1 2"), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := certreq.SameRequester(tc.a, tc.b); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestMatchesSignerName(t *testing.T) {
	for _, tc := range []struct {
		pattern, signerName string
		want                bool
	}{
		{"example.com/serving", "example.com/serving", true},
		{"example.com/serving", "example.com/client", false},
		{"example.com/*", "example.com/serving", true},
		{"example.com/*", "example.com/", false},
		{"example.com/*", "example.com", false},
		{"example.com/*", "sub.example.com/serving", false},
		{"*", "example.com/serving", false},
		{"example.com/ser*", "example.com/serving", false},
		{"", "serving", false},
	} {
		if got := certreq.MatchesSignerName(tc.pattern, tc.signerName); got != tc.want {
			t.Errorf("MatchesSignerName(%q, %q) = %v, want %v", tc.pattern, tc.signerName, got, tc.want)
		}
	}
}
