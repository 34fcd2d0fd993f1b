// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/test/cluster"
	"countersign.dev/countersign/test/harness"
	"countersign.dev/countersign/test/tutorial"
)

const (
	manualApprover = "approver@example.com" // is allowed to approve within policy
	overriding     = "security@example.com" // is allowed to override policy
)

// withWebhook runs the webhook until the test ends.
func withWebhook(t *testing.T) {
	t.Helper()
	must(t, installation.StartWebhook(t.Context()))
	world.Webhook = true
	t.Cleanup(func() {
		world.Webhook = false
		if t.Failed() && installation.Webhook != nil {
			t.Logf("webhook:\n%s", installation.Webhook.Tail())
		}
		if err := installation.StopWebhook(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// TestWebhookTutorial creates the requests of the tutorial that have another outcome with the webhook.
func TestWebhookTutorial(t *testing.T) {
	withWebhook(t)
	for _, row := range tutorial.Rows() {
		if !row.NeedsWebhook && !row.RejectedOnCreate && row.Warnings == nil {
			continue
		}
		row.Name = "webhook-" + row.Name
		if row.NeedsWebhook {
			row.Name = strings.TrimPrefix(row.Name, "webhook-") // its After uses the name
		}
		t.Run(row.Name, func(t *testing.T) { runRow(t, row) })
	}
}

// TestWebhookAuthenticatesClients checks that the webhook, which the API server calls with its client certificate, closes
// the connections of other clients.
func TestWebhookAuthenticatesClients(t *testing.T) {
	withWebhook(t)
	configuration, err := world.Clientset().AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(), "countersign", metav1.GetOptions{})
	must(t, err)
	called := configuration.Webhooks[0].ClientConfig
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(called.CABundle)
	user, err := world.ConfigFor("admin", "system:masters") // of the CA of the cluster, not of the API server's certificate
	must(t, err)
	certificate, err := tls.X509KeyPair(user.CertData, user.KeyData)
	must(t, err)
	for name, certificates := range map[string][]tls.Certificate{"no certificate": nil, "another CA": {certificate}} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certificates, MinVersion: tls.VersionTLS13}}}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, *called.URL, strings.NewReader("{}"))
		must(t, err)
		response, err := client.Do(request)
		if err == nil {
			t.Errorf("%s: %s", name, response.Status)
			must(t, response.Body.Close())
		}
	}
}

// TestWebhookRefusesPolicies checks that a policy that the approver would not load is rejected.
func TestWebhookRefusesPolicies(t *testing.T) {
	withWebhook(t)
	const file = "pod-serving/pod_serving.rego"
	for _, tc := range []struct {
		name                   string
		file, old, replacement string
		want                   []string
	}{
		{"a syntax error", file, "subject_is_authorized if {", "subject_is_authorized if {{", []string{"pod_serving.rego:42:2: rego_parse_error:"}},
		{
			"a field that is misspelt", file, "subject_controls_key if {\n", "subject_controls_key if {\n\tinput.requester.usrname\n",
			[]string{"pod_serving.rego:32:2: ", "input.requester.usrname", "credentialID, groups, node, pod, serviceAccount, uid, username"},
		},
		{"a failing test", file, `not "server auth" in input.request.usages`, `not "client auth" in input.request.usages`, []string{"pod_serving_test.rego:", "test_refused"}},
		{"with outside of tests", file, "subject_controls_key if {\n", "subject_controls_key if {\n\tinput.requester.username with input as {}\n", []string{"pod_serving.rego:32:27: "}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := copyPolicies(t)
			root.apply(t)
			before := settled(t, "pod-serving")
			root.edit(t, tc.file, tc.old, tc.replacement)
			_, err := world.Kubectl(t.Context(), nil, "apply", "--server-side", "--force-conflicts", "-k", string(root))
			if err == nil {
				t.Fatal("the policy was stored")
			}
			for _, want := range append(tc.want, `The ApprovalPolicy "pod-serving" is invalid`, "* spec.rego: ") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in %v", want, err)
				}
			}
			if after := policy(t, "pod-serving"); after.Generation != before.Generation {
				t.Error("the policy was changed")
			}
		})
	}
	t.Run("warns of a policy that decides nothing", func(t *testing.T) {
		t.Cleanup(func() { remove(t, "approvalpolicy/nothing") })
		out, err := world.KubectlAs(t.Context(), world.Config(), "apply", "-f", write(t, `
apiVersion: countersign.dev/v1alpha1
kind: ApprovalPolicy
metadata: {name: nothing}
spec:
  match: {signerNames: [example.com/unserved], namespaceSelector: {matchLabels: {team: none}}}
  rego: {builtin: pod-serving}
`), "--warnings-as-errors")
		if err == nil {
			t.Fatalf("no warning: %s", out)
		}
		for _, want := range []string{"namespaceSelector", "Signer", "countersign-approver", "example.com/unserved"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("no %q in %v", want, err)
			}
		}
	})
}

func write(t *testing.T, manifest string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "manifest.yaml")
	must(t, os.WriteFile(path, []byte(manifest), 0o600))
	return path
}

// TestManualApprovals checks that a manual approval against the policies is rejected with every violation, and that a user
// with the verb override-policy is allowed to approve. Both are recorded, in the API server's audit log too. The approver
// is stopped, since it would deny the request first.
func TestManualApprovals(t *testing.T) {
	ctx := t.Context()
	withWebhook(t)
	must(t, installation.Approver.Stop())
	t.Cleanup(func() {
		if _, err := installation.Start(context.Background(), "approver"); err != nil {
			t.Error(err)
		}
	})
	token, err := world.PodToken(ctx, world.Pods[tutorial.PodName])
	must(t, err)
	create := func(name string, names ...string) {
		_, _, err := tutorial.Request{DNSNames: names}.Create(ctx, world.TokenConfig(token), name)
		must(t, err)
	}
	create("manual-denied", "other-pod.my-namespace.pod.cluster.local", "*.my-namespace.svc")
	create("manual-allowed", "my-pod.my-namespace.pod.cluster.local")

	_, err = world.ApproveManually(ctx, manualApprover, "manual-denied")
	if err == nil {
		t.Fatal("an approval against the policies went through")
	}
	for _, want := range []string{
		`admission webhook "approvals.countersign.dev" denied the request: `,
		"pod-serving", policy(t, "pod-serving").Status.Revision[:12],
		`dns-name-not-owned: DNS name "other-pod.my-namespace.pod.cluster.local" does not belong to Pod my-namespace/my-pod`,
		`wildcard-not-allowed: DNS name "*.my-namespace.svc" is a wildcard`,
		recorded(t, installation.Webhook.Log, "manual-denied").ID,
		"override-policy", "example.com/serving",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	if _, err := world.ApproveManually(ctx, manualApprover, "manual-allowed"); err != nil {
		t.Errorf("an approval that the policies allow: %v", err)
	}
	if _, err := world.ApproveManually(ctx, overriding, "manual-denied"); err != nil {
		t.Errorf("an approval by a user with override-policy: %v", err)
	}
	outcome(t, "manual-allowed", certificatesv1.CertificateApproved)
	outcome(t, "manual-denied", certificatesv1.CertificateApproved) // the signer issues what is approved

	type entry struct{ Verdict, Request, By string }
	var recorded []entry
	ids := map[string]string{} // by verdict
	for _, d := range decisionsIn(t, installation.Webhook.Log) {
		if strings.HasPrefix(d.Request.Name, "manual-") {
			recorded = append(recorded, entry{d.Verdict, d.Request.Name, d.By.Username})
			ids[d.Verdict] = d.ID
		}
	}
	want := []entry{
		{"ApprovalRefused", "manual-denied", manualApprover}, {"ApprovalAllowed", "manual-allowed", manualApprover}, {"ApprovalOverridden", "manual-denied", overriding},
	}
	if diff := cmp.Diff(want, recorded); diff != "" {
		t.Errorf("on record (-want +got):\n%s", diff)
	}
	revision := policy(t, "pod-serving").Status.Revision[:12]
	must(t, harness.Eventually(ctx, enough, func() error {
		raw, err := os.ReadFile(world.AuditLog())
		if err != nil {
			return err
		}
		for verdict, id := range ids {
			for _, annotation := range []struct{ key, value string }{{"decision-id", id}, {"verdict", verdict}, {"policy-revisions", "pod-serving=" + revision}} {
				if !bytes.Contains(raw, fmt.Appendf(nil, "%q:%q", "approvals.countersign.dev/"+annotation.key, annotation.value)) {
					return fmt.Errorf("the API server's audit log has no %s %s", annotation.key, annotation.value)
				}
			}
		}
		return nil
	}))
}

// decisionsIn reads the decisions of an audit log.
func decisionsIn(t *testing.T, path string) []audit.Decision {
	t.Helper()
	raw, err := os.ReadFile(path)
	must(t, err)
	var out []audit.Decision
	for line := range bytes.Lines(raw) {
		var record struct{ Decision *audit.Decision }
		if json.Unmarshal(line, &record) == nil && record.Decision != nil {
			out = append(out, *record.Decision)
		}
	}
	return out
}

// recorded returns the newest decision about a request in an audit log, holds not counted.
func recorded(t *testing.T, path, request string) audit.Decision {
	t.Helper()
	for _, d := range slices.Backward(decisionsIn(t, path)) {
		if d.Request.Name == request && d.Verdict != "Held" {
			return d
		}
	}
	t.Fatalf("%s has no decision about request %s", path, request)
	return audit.Decision{}
}

// TestWebhookOutage checks that requests are created, decided and signed, and policies applied, while the webhook does not
// run. Only manual approvals are rejected.
func TestWebhookOutage(t *testing.T) {
	ctx := t.Context()
	withWebhook(t)
	must(t, world.RunPendingPod(ctx, "outage-pod"))
	token, err := world.PodToken(ctx, world.Pods["outage-pod"])
	must(t, err)
	_, _, err = tutorial.Request{IPs: []string{"10.0.34.99"}}.Create(ctx, world.TokenConfig(token), "outage-pending")
	must(t, err)
	held(t, "outage-pending")

	must(t, installation.Webhook.Kill())
	if _, err := world.ApproveManually(ctx, manualApprover, "outage-pending"); err == nil || !strings.Contains(err.Error(), "failed calling webhook") {
		t.Errorf("a manual approval while the webhook does not run: %v", err)
	}
	_, err = world.SetPodStatus(ctx, world.Pods["outage-pod"], corev1.PodRunning, "10.0.34.99")
	must(t, err)
	outcome(t, "outage-pending", certificatesv1.CertificateApproved)
	if csr := decided(t, "outage-new", tutorial.Request{DNSNames: []string{"my-pod.my-namespace.pod.cluster.local"}}); csr.Status.Conditions[0].Type != certificatesv1.CertificateApproved {
		t.Errorf("got %+v", csr.Status.Conditions)
	}
	outcome(t, "outage-new", certificatesv1.CertificateApproved)
	root := copyPolicies(t)
	root.edit(t, "pod-serving/policy.yaml", "holdFor: 30s", "holdFor: 31s")
	root.apply(t)
	copyPolicies(t).apply(t)
	settled(t, "pod-serving")
}

// TestWebhookCertificate checks that the webhook gets its serving certificate from Countersign, as a Pod does, and that
// the webhook configuration trusts it. It also checks this for the next CA, when the first one is distrusted.
func TestWebhookCertificate(t *testing.T) {
	ctx := t.Context()
	root, err := cluster.Root()
	must(t, err)
	kubectl(t, "apply", "--server-side", "-k", filepath.Join(root, "deploy/signers/webhook"))
	t.Cleanup(func() { remove(t, "-k", filepath.Join(root, "deploy/signers/webhook")) })
	// The shipped configuration has the address of the Service: only its caBundle matters here. The API server does not
	// call the webhook during this test.
	kubectl(t, "apply", "--server-side", "--force-conflicts", "-k", filepath.Join(root, "deploy/overlays/default"))
	t.Cleanup(func() { remove(t, "validatingwebhookconfiguration/countersign") })
	no, yes := false, true
	pod, err := world.RunPod(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: harness.SystemNamespace, Name: "countersign-webhook-0", Labels: map[string]string{"app.kubernetes.io/name": "countersign-webhook"}},
		Spec: corev1.PodSpec{
			ServiceAccountName: "countersign-webhook",
			SecurityContext:    &corev1.PodSecurityContext{RunAsNonRoot: &yes, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{Name: "webhook", Image: "webhook", SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			}}},
		},
	}, "10.0.34.50")
	must(t, err)
	token, err := world.PodToken(ctx, pod)
	must(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := listener.Addr().String()
	must(t, listener.Close())
	p, err := installation.RunAs(ctx, "webhook", "countersign-webhook-0", token, "--webhook-bind-address="+address)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.Tail())
		}
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	must(t, p.Ready(ctx))
	first := trusted(t, address, nil)
	if first.Subject.CommonName != "" || len(first.DNSNames) != 1 {
		t.Errorf("got %s for %v", first.Subject, first.DNSNames)
	}
	fingerprint := kubectl(t, "get", "signer", "webhook", "-o", "jsonpath={.status.ca.fingerprint}")
	kubectl(t, "patch", "signer", "webhook", "--type=merge", "-p", fmt.Sprintf(`{"spec":{"trust":{"distrusted":[%q]}}}`, fingerprint))
	if second := trusted(t, address, first); bytes.Equal(second.AuthorityKeyId, first.AuthorityKeyId) {
		t.Errorf("issued by the same CA, %s", second.Issuer)
	}
}

// trusted waits until a client that has only the caBundle of the webhook configuration trusts the server by the name of
// its Service, and until the certificate differs from before. It returns the certificate.
func trusted(t *testing.T, address string, before *x509.Certificate) *x509.Certificate {
	t.Helper()
	var leaf *x509.Certificate
	must(t, harness.Eventually(t.Context(), enough, func() error {
		configuration, err := world.Clientset().AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(), "countersign", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, webhook := range configuration.Webhooks {
			roots := x509.NewCertPool()
			if !roots.AppendCertsFromPEM(webhook.ClientConfig.CABundle) {
				return errors.New(webhook.Name + " has no caBundle")
			}
			connection, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: "countersign-webhook." + harness.SystemNamespace + ".svc", MinVersion: tls.VersionTLS13}}).DialContext(t.Context(), "tcp", address)
			if err != nil {
				return err
			}
			secure, ok := connection.(*tls.Conn)
			if !ok {
				return errors.New("no TLS connection")
			}
			leaf = secure.ConnectionState().PeerCertificates[0]
			must(t, connection.Close())
		}
		if before != nil && leaf.Equal(before) {
			return errors.New("the server still uses the old certificate")
		}
		return nil
	}))
	return leaf
}
