// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/internal/certreq"
)

func TestRequester(t *testing.T) {
	bound := map[string]certificatesv1.ExtraValue{certreq.PodNameExtra: {"p"}, certreq.PodUIDExtra: {"u"}}
	account := &ServiceAccountRef{Namespace: "ns", Name: "sa"}
	for _, tc := range []struct {
		name     string
		username string
		extra    map[string]certificatesv1.ExtraValue
		account  *ServiceAccountRef
		pod      *ObjectRef
	}{
		{"a token bound to a Pod", "system:serviceaccount:ns:sa", bound, account, &ObjectRef{Name: "p", UID: "u"}},
		{"a token bound to nothing", "system:serviceaccount:ns:sa", nil, account, nil},
		{"a human with the extras of a Pod", "jane", bound, nil, nil},
		{"two Pods at once", "system:serviceaccount:ns:sa", map[string]certificatesv1.ExtraValue{certreq.PodNameExtra: {"p", "q"}, certreq.PodUIDExtra: {"u"}}, account, nil},
		{"two UIDs at once", "system:serviceaccount:ns:sa", map[string]certificatesv1.ExtraValue{certreq.PodNameExtra: {"p"}, certreq.PodUIDExtra: {"u", "v"}}, account, nil},
		{"a Pod without a UID", "system:serviceaccount:ns:sa", map[string]certificatesv1.ExtraValue{certreq.PodNameExtra: {"p"}}, account, nil},
		{"a username with a colon too many", "system:serviceaccount:ns:sa:x", bound, nil, nil},
		{"a username without a ServiceAccount", "system:serviceaccount:ns:", bound, nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := requesterOf(&certificatesv1.CertificateSigningRequestSpec{Username: tc.username, Extra: tc.extra})
			if diff := cmp.Diff(Requester{Username: tc.username, Groups: []string{}, ServiceAccount: tc.account, Pod: tc.pod}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestUndash(t *testing.T) {
	for _, tc := range []struct{ label, want string }{
		{"10-0-34-2", "10.0.34.2"},
		{"fd00--1", "fd00::1"},
		{"2001-db8-0-0-0-0-0-1", "2001:db8::1"},
		{"my-pod", ""},
		{"10-0-34", ""},
		{"10-0-34-256", ""},
		{"", ""},
	} {
		if got, ok := undash(tc.label); got != tc.want || ok != (tc.want != "") {
			t.Errorf("undash(%q) = %q, %v", tc.label, got, ok)
		}
	}
}

func TestStripRequest(t *testing.T) {
	request := []byte("-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n")
	object := func() *certificatesv1.CertificateSigningRequest {
		csr := &certificatesv1.CertificateSigningRequest{}
		csr.Annotations = map[string]string{keySHA256Annotation: "forged", "x": "y"}
		csr.Spec = certificatesv1.CertificateSigningRequestSpec{
			Request: request, SignerName: "example.com/serving", Username: "u", Groups: []string{"g"},
			Extra: map[string]certificatesv1.ExtraValue{certreq.PodUIDExtra: {"u"}, "scopes": {"s"}},
		}
		return csr
	}
	managed := func(string) bool { return true }
	t.Run("an undecided request of a managed signer keeps its spec and no metadata of the requester", func(t *testing.T) {
		csr := object()
		csr.Name, csr.UID, csr.ResourceVersion = "web", "u", "1"
		csr.Labels = map[string]string{"x": "y"}
		csr.OwnerReferences = []metav1.OwnerReference{{Name: "x"}}
		csr.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
		stripRequest(csr, managed)
		want := object()
		want.ObjectMeta = metav1.ObjectMeta{Name: "web", UID: "u", ResourceVersion: "1"}
		if diff := cmp.Diff(want, csr); diff != "" {
			t.Error(diff)
		}
	})
	for _, tc := range []struct {
		name    string
		enlarge func(spec *certificatesv1.CertificateSigningRequestSpec, by int)
	}{
		{"request", func(spec *certificatesv1.CertificateSigningRequestSpec, by int) {
			spec.Request = append(slices.Clone(spec.Request), bytes.Repeat([]byte("x"), by)...)
		}},
		{"username", func(spec *certificatesv1.CertificateSigningRequestSpec, by int) {
			spec.Username += strings.Repeat("x", by)
		}},
		{"groups", func(spec *certificatesv1.CertificateSigningRequestSpec, by int) {
			spec.Groups[0] += strings.Repeat("x", by)
		}},
		{"extra", func(spec *certificatesv1.CertificateSigningRequestSpec, by int) {
			spec.Extra["scopes"] = []string{spec.Extra["scopes"][0] + strings.Repeat("x", by)}
		}},
		{"usages", func(spec *certificatesv1.CertificateSigningRequestSpec, by int) {
			spec.Usages = append(spec.Usages, certificatesv1.KeyUsage(strings.Repeat("x", by-perEntry)))
		}},
	} {
		t.Run("a large request of a managed signer is stripped: "+tc.name, func(t *testing.T) {
			for _, over := range []int{0, 1} {
				csr := object()
				tc.enlarge(&csr.Spec, maxRequest-requestSize(csr)+over)
				stripRequest(csr, managed)
				if IsStripped(csr) != (over > 0) || digestOf(csr) == "forged" {
					t.Errorf("%d bytes above the maximum: stripped %v", over, IsStripped(csr))
				}
			}
		})
	}
	t.Run("a digest cannot be forged by an annotation", func(t *testing.T) {
		complete, stripped := object(), object()
		stripRequest(complete, managed)
		stripRequest(stripped, func(string) bool { return false })
		if digestOf(complete) == "forged" || digestOf(stripped) == "forged" || digestOf(complete) != digestOf(stripped) {
			t.Errorf("got %q and %q", digestOf(complete), digestOf(stripped))
		}
	})
	t.Run("a request of another signer keeps only its requester, also when stripped twice", func(t *testing.T) {
		csr := object()
		for range 2 {
			stripRequest(csr, func(string) bool { return false })
		}
		want := certificatesv1.CertificateSigningRequestSpec{
			SignerName: "example.com/serving", Username: "u", Extra: map[string]certificatesv1.ExtraValue{certreq.PodUIDExtra: {"u"}},
		}
		if diff := cmp.Diff(want, csr.Spec); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a decided request is stripped", func(t *testing.T) {
		csr := object()
		csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateDenied, Message: "long"}}
		stripRequest(csr, managed)
		if !IsStripped(csr) || !certreq.IsDecided(csr) || csr.Status.Conditions[0].Message != "" {
			t.Errorf("got %+v", csr)
		}
	})
}

// TestNodeFacts: each address has the type that is reported with it.
func TestNodeFacts(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
		{Type: corev1.NodeHostName, Address: "Node-1"}, {Type: corev1.NodeInternalIP, Address: "::ffff:10.0.0.11"},
	}}}
	want := []NodeAddress{{Type: corev1.NodeHostName, Address: "Node-1"}, {Type: corev1.NodeInternalIP, Address: "10.0.0.11"}}
	if diff := cmp.Diff(want, nodeFacts(node).Addresses); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
