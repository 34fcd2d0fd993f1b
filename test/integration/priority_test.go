// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"net/http"
	"strings"
	"testing"

	"k8s.io/client-go/kubernetes"

	"countersign.dev/countersign/test/harness"
)

// priorityOf records the FlowSchema and the priority level of the latest answer.
type priorityOf struct {
	http.RoundTripper
	flowSchema, level string // UIDs
}

func (p *priorityOf) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := p.RoundTripper.RoundTrip(r)
	if err == nil {
		p.flowSchema, p.level = response.Header.Get("X-Kubernetes-Pf-Flowschema-Uid"), response.Header.Get("X-Kubernetes-Pf-Prioritylevel-Uid")
	}
	return response, err
}

// TestPriority checks that the API server serves the processes at levels that it does not serve other ServiceAccounts at.
// An answer of 403 has a level, too.
func TestPriority(t *testing.T) {
	uid := func(kind, name string) string {
		return strings.TrimSpace(kubectl(t, "get", kind, name, "-o", "jsonpath={.metadata.uid}"))
	}
	for _, name := range []string{"countersign", "countersign-leader-election"} {
		if dangling := kubectl(t, "get", "flowschema", name, "-o", `jsonpath={.status.conditions[?(@.type=="Dangling")].status}`); dangling != "False" {
			t.Errorf("FlowSchema %s: Dangling is %q", name, dangling)
		}
	}
	const lease, request = "/apis/coordination.k8s.io/v1/namespaces/" + harness.SystemNamespace + "/leases/x", "/apis/certificates.k8s.io/v1/certificatesigningrequests/x"
	for _, tc := range []struct{ namespace, account, path, flowSchema, level string }{
		{harness.SystemNamespace, "countersign-approver", lease, "countersign-leader-election", "leader-election"},
		{harness.SystemNamespace, "countersign-signer", lease, "countersign-leader-election", "leader-election"},
		{harness.SystemNamespace, "countersign-approver", request, "countersign", "workload-high"},
		{harness.SystemNamespace, "countersign-signer", request, "countersign", "workload-high"},
		{harness.SystemNamespace, "countersign-webhook", request, "countersign", "workload-high"},
		{harness.SystemNamespace, "countersign-webhook", "/version", "countersign", "workload-high"},
		{"default", "default", lease, "service-accounts", "workload-low"},
		{"default", "default", request, "service-accounts", "workload-low"},
	} {
		t.Run(tc.account+tc.path, func(t *testing.T) {
			token, err := world.ServiceAccountToken(t.Context(), tc.namespace, tc.account)
			must(t, err)
			cfg := world.TokenConfig(token)
			got := &priorityOf{}
			cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
				got.RoundTripper = next
				return got
			})
			clientset, err := kubernetes.NewForConfig(cfg)
			must(t, err)
			_ = clientset.Discovery().RESTClient().Get().RequestURI(tc.path).Do(t.Context()).Error() // only its priority counts
			if got.flowSchema != uid("flowschema", tc.flowSchema) || got.level != uid("prioritylevelconfiguration", tc.level) {
				t.Errorf("got the FlowSchema %q and the level %q, want those of %s and %s", got.flowSchema, got.level, tc.flowSchema, tc.level)
			}
		})
	}
}
