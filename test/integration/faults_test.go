// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/test/harness"
	"countersign.dev/countersign/test/tutorial"
)

// enough is the longest time that a step takes on a busy machine. No test asserts a shorter time.
const enough = 2 * time.Minute

// TestRestarts restarts the approver, the signer and the API server while 200 requests are created, half of them hostile.
// Each request gets the expected verdict, and the approver decides it once.
func TestRestarts(t *testing.T) {
	const count = 200
	ctx := t.Context()
	token, err := world.PodToken(ctx, world.Pods[tutorial.PodName])
	if err != nil {
		t.Fatal(err)
	}
	config := world.TokenConfig(token)
	name := func(i int) string { return fmt.Sprintf("restart-%03d", i) }
	own, foreign := "my-pod.my-namespace.pod.cluster.local", "other-pod.my-namespace.pod.cluster.local"

	second := make(chan struct{})
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := worker; i < count; i += 8 {
				ask := tutorial.Request{DNSNames: []string{own}}
				if i%2 == 1 {
					ask.DNSNames = []string{foreign}
				}
				if i >= 100 { // the second half is created while the API server is stopped
					<-second
				}
				err := harness.Eventually(ctx, enough, func() error {
					_, _, err := ask.Create(ctx, config, name(i))
					if apierrors.IsAlreadyExists(err) {
						return nil
					}
					return err
				})
				if err != nil {
					t.Errorf("creating %s: %v", name(i), err)
				}
			}
		})
	}
	waitForSome(t, name(20))
	must(t, installation.Approver.Kill())
	must(t, installation.Signer.Kill())
	start(t, "approver")
	start(t, "signer")
	// Both lead again: a request that was created after they were killed is issued.
	marker := tutorial.Request{DNSNames: []string{own}}
	_, _, err = marker.Create(ctx, config, "restart-marker")
	must(t, err)
	outcome(t, "restart-marker", certificatesv1.CertificateApproved)
	waitForSome(t, name(80))
	close(second)
	waitForSome(t, name(110))
	must(t, world.StopAPIServer())
	must(t, world.StartAPIServer(ctx))
	wg.Wait()
	restartExited(t) // a process that cannot renew its Lease in time exits, and a kubelet restarts it

	requests := world.Clientset().CertificatesV1().CertificateSigningRequests()
	for i := range count {
		err := harness.Eventually(ctx, enough, func() error {
			csr, err := requests.Get(ctx, name(i), metav1.GetOptions{})
			if err != nil {
				return err
			}
			want := certificatesv1.CertificateApproved
			if i%2 == 1 {
				want = certificatesv1.CertificateDenied
			}
			switch got := tutorial.OutcomeOf(csr); {
			case got.Condition != want:
				return fmt.Errorf("%s: got %q, want %s", csr.Name, got.Condition, want)
			case got.Certificate != (want == certificatesv1.CertificateApproved):
				return fmt.Errorf("%s is %s, certificate %v", csr.Name, got.Condition, got.Certificate)
			case len(csr.Status.Conditions) != 1:
				return fmt.Errorf("%s: conditions %+v", csr.Name, csr.Status.Conditions)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for uid, n := range writtenDecisions(t) {
		if n > 1 {
			t.Errorf("request %s was decided %d times", uid, n)
		}
	}
}

func waitForSome(t *testing.T, name string) {
	t.Helper()
	must(t, harness.Eventually(t.Context(), enough, func() error {
		_, err := world.Clientset().CertificatesV1().CertificateSigningRequests().Get(t.Context(), name, metav1.GetOptions{})
		return err
	}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start starts a process. If it was killed before, its Lease has to expire first.
func start(t *testing.T, name string) {
	t.Helper()
	if _, err := installation.Start(t.Context(), name); err != nil {
		t.Fatal(err)
	}
}

// restartExited starts approver and signer again if they exited.
func restartExited(t *testing.T) {
	t.Helper()
	for name, p := range map[string]*harness.Process{"approver": installation.Approver, "signer": installation.Signer} {
		select {
		case <-p.Done():
			start(t, name)
		default:
		}
	}
}

// writtenDecisions counts the decisions in the approver's audit log that were written to the API server, by UID of the
// request.
func writtenDecisions(t *testing.T) map[types.UID]int {
	t.Helper()
	raw, err := os.ReadFile(installation.Approver.Log)
	if err != nil {
		t.Fatal(err)
	}
	of, counts := map[string]types.UID{}, map[types.UID]int{}
	for line := range bytes.Lines(raw) {
		var record struct {
			Decision *audit.Decision
			Outcome  *audit.Outcome
		}
		if json.Unmarshal(line, &record) != nil {
			continue // a log line cut off by the kill
		}
		if record.Decision != nil {
			of[record.Decision.ID] = record.Decision.Request.UID
		}
		if record.Outcome != nil && record.Outcome.Result == audit.Written {
			uid, ok := of[record.Outcome.DecisionID]
			if !ok {
				t.Errorf("decision %s was written before it was recorded", record.Outcome.DecisionID)
			}
			counts[uid]++
		}
	}
	if len(counts) == 0 {
		t.Fatal("the audit log has no written decision")
	}
	return counts
}

// TestBrokenPolicy checks that a policy that does not compile reports this in its status and in an Event, and that the
// approver stays ready. Requests that it matches stay pending, even if another policy allows them.
func TestBrokenPolicy(t *testing.T) {
	ctx := t.Context()
	apply(t, policyManifest("broken", "subject_controls_key if input.requester.usrname == \"x\""))
	t.Cleanup(func() { remove(t, "approvalpolicy/broken") })
	must(t, harness.Eventually(ctx, enough, func() error {
		return contains(kubectl(t, "get", "approvalpolicy", "broken", "-o", "jsonpath={.status}"),
			`"reason":"InvalidRego"`, `"reason":"NotLoaded"`, `"file":"mine.rego"`, `"row":5`, `"col":25`, "input.requester.usrname", `"username"`)
	}))
	if _, err := installation.Approver.Probe(ctx, "/readyz?verbose"); err != nil {
		t.Errorf("only the requests that the policy matches wait: %v", err)
	}
	must(t, harness.Eventually(ctx, enough, func() error {
		return contains(kubectl(t, "get", "events", "--namespace=default", "--field-selector=involvedObject.name=broken", "-o", "jsonpath={.items[*].message}"), "undefined ref: input.requester.usrname")
	}))
	token, err := world.PodToken(ctx, world.Pods[tutorial.PodName])
	must(t, err)
	_, _, err = tutorial.Request{DNSNames: []string{"my-pod.my-namespace.pod.cluster.local"}}.Create(ctx, world.TokenConfig(token), "held-back")
	must(t, err)
	// An approver that ignores the broken policy has time to decide the request.
	time.Sleep(2 * time.Second)
	csr, err := world.Clientset().CertificatesV1().CertificateSigningRequests().Get(ctx, "held-back", metav1.GetOptions{})
	must(t, err)
	if len(csr.Status.Conditions) > 0 {
		t.Errorf("decided while a policy is broken: %+v", csr.Status.Conditions)
	}

	// After the fix the policy decides. When it is broken again, its last good revision stays active.
	apply(t, policyManifest("broken", "subject_controls_key := true"))
	outcome(t, "held-back", certificatesv1.CertificateApproved)
	must(t, installation.Approver.Ready(ctx))
	apply(t, policyManifest("broken", "subject_controls_key if {"))
	must(t, harness.Eventually(ctx, enough, func() error {
		return contains(kubectl(t, "get", "approvalpolicy", "broken", "-o", "jsonpath={.status}"), `"reason":"InvalidRego"`, `"reason":"LastGoodActive"`)
	}))
	_, _, err = tutorial.Request{DNSNames: []string{"my-pod.my-namespace.pod.cluster.local"}}.Create(ctx, world.TokenConfig(token), "by-last-good")
	must(t, err)
	outcome(t, "by-last-good", certificatesv1.CertificateApproved)
}

func policyManifest(name, rule string) string {
	module := "package countersign.mine\n\nimport rego.v2\n\n" + rule + "\n\nsubject_is_authorized := true\n\nviolations contains v if some v in []\n"
	manifest, err := json.Marshal(map[string]any{
		"apiVersion": "countersign.dev/v1alpha1", "kind": "ApprovalPolicy", "metadata": map[string]any{"name": name},
		"spec": map[string]any{
			"match": map[string]any{"signerNames": []string{"example.com/*"}},
			"rego":  map[string]any{"package": "countersign.mine", "modules": map[string]string{"mine.rego": module}},
		},
	})
	if err != nil {
		panic(err)
	}
	return string(manifest)
}

// TestMissingCA checks that a missing CA is reported in the status of the Signer, and that requests stay pending and do
// not fail.
func TestMissingCA(t *testing.T) {
	ctx := t.Context()
	kubectl(t, "patch", "signer", "serving", "--type=merge", "-p", `{"spec":{"trust":{"propagation":"1s"}}}`)
	t.Cleanup(func() {
		_, err := world.Kubectl(context.Background(), nil, "patch", "signer", "serving", "--type=merge", "-p", `{"spec":{"trust":{"propagation":"10m"}}}`)
		must(t, err)
	})
	must(t, world.Clientset().CoreV1().Secrets(harness.SystemNamespace).Delete(ctx, "serving-ca", metav1.DeleteOptions{}))
	must(t, harness.Eventually(ctx, enough, func() error {
		return contains(kubectl(t, "get", "signer", "serving", "-o", "jsonpath={.status.conditions}"), `"reason":"SecretNotFound"`)
	}))
	token, err := world.PodToken(ctx, world.Pods[tutorial.PodName])
	must(t, err)
	_, _, err = tutorial.Request{DNSNames: []string{"my-pod.my-namespace.pod.cluster.local"}}.Create(ctx, world.TokenConfig(token), "without-ca")
	must(t, err)
	must(t, harness.Eventually(ctx, enough, func() error {
		csr, err := world.Clientset().CertificatesV1().CertificateSigningRequests().Get(ctx, "without-ca", metav1.GetOptions{})
		if err == nil && tutorial.Condition(csr, certificatesv1.CertificateApproved) == nil {
			err = errors.New("not approved")
		}
		return err
	}))
	must(t, installation.StoreCA(ctx, "serving-ca", "Another Example Signer"))
	csr := outcome(t, "without-ca", certificatesv1.CertificateApproved)
	if tutorial.Condition(csr, certificatesv1.CertificateFailed) != nil {
		t.Errorf("the request failed because the CA was missing: %+v", csr.Status.Conditions)
	}
	must(t, harness.Eventually(ctx, enough, func() error {
		return contains(kubectl(t, "get", "signer", "serving", "-o", "jsonpath={.status.ca.subject}"), "Another Example Signer")
	}))
}

// TestPrivileges checks that each process is allowed to do its own part and nothing more.
func TestPrivileges(t *testing.T) {
	const group = "certificates.k8s.io"
	signer := func(verb, name string) authorizationv1.ResourceAttributes {
		return authorizationv1.ResourceAttributes{Group: group, Resource: "signers", Verb: verb, Name: name}
	}
	write := func(verb, subresource string) authorizationv1.ResourceAttributes {
		return authorizationv1.ResourceAttributes{Group: group, Resource: "certificatesigningrequests", Subresource: subresource, Verb: verb, Name: "x"}
	}
	request := func(subresource string) authorizationv1.ResourceAttributes { return write("update", subresource) }
	configuration := func(verb, name string) authorizationv1.ResourceAttributes {
		return authorizationv1.ResourceAttributes{Group: "admissionregistration.k8s.io", Resource: "validatingwebhookconfigurations", Verb: verb, Name: name}
	}
	core := func(verb, resource, namespace, name string) authorizationv1.ResourceAttributes {
		return authorizationv1.ResourceAttributes{Resource: resource, Verb: verb, Namespace: namespace, Name: name}
	}
	for _, tc := range []struct {
		who  string
		what authorizationv1.ResourceAttributes
		want bool
	}{
		{"approver", signer("approve", "example.com/serving"), true},
		{"approver", signer("approve", "example.com/other"), false},
		{"approver", signer("sign", "example.com/serving"), false},
		{"approver", write("patch", "approval"), true},
		{"approver", write("update", "approval"), false},
		{"approver", write("patch", "status"), false},
		{"approver", request("status"), false},
		{"approver", signer("approve", "countersign.dev/webhook"), true},
		{"approver", signer("override-policy", "example.com/serving"), false},
		{"webhook", signer("approve", "example.com/serving"), false},
		{"webhook", signer("sign", "example.com/serving"), false},
		{"webhook", signer("override-policy", "example.com/serving"), false},
		{"webhook", request("approval"), false},
		{"webhook", request("status"), false},
		{"webhook", core("get", "secrets", harness.SystemNamespace, "webhook-ca"), false},
		{"webhook", core("get", "configmaps", "kube-system", "any"), false},
		{"webhook", configuration("patch", "countersign"), false},
		{"approver", configuration("patch", "countersign"), false},
		{"signer", configuration("patch", "countersign"), true},
		{"signer", configuration("update", "countersign"), false},
		{"signer", configuration("patch", "other"), false},
		{"webhook", authorizationv1.ResourceAttributes{Group: "countersign.dev", Resource: "approvalpolicies", Verb: "update", Name: "pod-serving"}, false},
		{"approver", core("get", "secrets", harness.SystemNamespace, "serving-ca"), false},
		{"approver", core("create", "configmaps", tutorial.Namespace, "example-serving-ca"), false},
		{"signer", signer("sign", "example.com/serving"), true},
		{"signer", signer("sign", "example.com/other"), false},
		{"signer", signer("approve", "example.com/serving"), false},
		{"signer", write("patch", "status"), true},
		{"signer", request("status"), false},
		{"signer", request("approval"), false},
		{"signer", core("get", "secrets", harness.SystemNamespace, "serving-ca"), true},
		{"signer", core("get", "secrets", harness.SystemNamespace, "other"), false},
		{"signer", core("list", "secrets", harness.SystemNamespace, ""), false},
		{"signer", core("create", "configmaps", tutorial.Namespace, "example-serving-ca"), true},
		{"signer", core("create", "configmaps", tutorial.Namespace, "other"), false},
	} {
		review, err := world.Clientset().AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{
				User:               "system:serviceaccount:" + harness.SystemNamespace + ":countersign-" + tc.who,
				Groups:             []string{"system:serviceaccounts", "system:serviceaccounts:" + harness.SystemNamespace, "system:authenticated"},
				ResourceAttributes: &tc.what,
			},
		}, metav1.CreateOptions{})
		must(t, err)
		if review.Status.Allowed != tc.want {
			t.Errorf("%s, %+v: allowed %v, want %v", tc.who, tc.what, review.Status.Allowed, tc.want)
		}
	}
}

func apply(t *testing.T, manifest string) {
	t.Helper()
	if _, err := world.Kubectl(t.Context(), strings.NewReader(manifest), "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// remove deletes objects at the end of a test, when its context is canceled.
func remove(t *testing.T, what ...string) {
	t.Helper()
	atEnd(t, append([]string{"delete"}, what...)...)
}

func atEnd(t *testing.T, args ...string) {
	t.Helper()
	if _, err := world.Kubectl(context.Background(), nil, args...); err != nil {
		t.Error(err)
	}
}

func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := world.Kubectl(t.Context(), nil, args...)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func contains(text string, wanted ...string) error {
	for _, want := range wanted {
		if !strings.Contains(text, want) {
			return fmt.Errorf("no %q in %s", want, text)
		}
	}
	return nil
}

// outcome waits until a request is approved and has a certificate, or until it is denied.
func outcome(t *testing.T, name string, want certificatesv1.RequestConditionType) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	var csr *certificatesv1.CertificateSigningRequest
	must(t, harness.Eventually(t.Context(), enough, func() (err error) {
		csr, err = world.Clientset().CertificatesV1().CertificateSigningRequests().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		got := tutorial.OutcomeOf(csr)
		if got.Condition != want || got.Certificate != (want == certificatesv1.CertificateApproved) {
			return fmt.Errorf("%s: %+v", name, got)
		}
		return nil
	}))
	return csr
}
