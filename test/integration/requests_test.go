// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/test/harness"
	"countersign.dev/countersign/test/tutorial"
)

// signerReads counts the lists and watches of requests by the signer in the API server's audit log, by field selector.
func signerReads(t *testing.T) map[string]int {
	t.Helper()
	raw, err := os.ReadFile(world.AuditLog())
	must(t, err)
	selectors := map[string]int{}
	for line := range bytes.Lines(raw) {
		var event struct {
			Verb, RequestURI, Stage string
			User                    struct{ Username string }
		}
		if err := json.Unmarshal(line, &event); err != nil { // the last line can be incomplete
			continue
		}
		begun := event.Verb == "list" || event.Verb == "watch" && event.Stage == "ResponseStarted"
		if event.User.Username == "system:serviceaccount:countersign-system:countersign-signer" && begun {
			address, err := url.Parse(event.RequestURI)
			must(t, err)
			selectors[address.Query().Get("fieldSelector")]++
		}
	}
	return selectors
}

// TestSignersComeAndGo checks that the signer watches the requests of existing Signers only. Requests that are approved
// before their Signer exists are issued when it is ready, by the replica that leads at that time.
func TestSignersComeAndGo(t *testing.T) {
	ctx := t.Context()
	c := newClient(t)
	grant(t, "come.example", "come")
	managed := v1alpha1.SignerCA{Managed: &v1alpha1.ManagedCA{SecretName: "come", CommonName: "Come"}}
	selector := "spec.signerName=come.example/come"
	noOthers := func() {
		t.Helper()
		for s := range signerReads(t) {
			if !strings.HasPrefix(s, "spec.signerName=") {
				t.Errorf("the signer watched requests with the field selector %q", s)
			}
		}
	}

	request(t, "come-before", own("come.example/come"))
	if n := signerReads(t)[selector]; n > 0 {
		t.Errorf("watched %d times before the Signer existed", n)
	}
	come := &v1alpha1.Signer{ObjectMeta: metav1.ObjectMeta{Name: "come"}, Spec: v1alpha1.SignerSpec{SignerName: "come.example/come", CA: managed}}
	must(t, c.Create(ctx, come.DeepCopy()))
	t.Cleanup(func() {
		ctx := context.Background()
		must(t, client.IgnoreNotFound(c.Delete(ctx, come)))
		must(t, deleteSecret(ctx, "come"))
	})
	outcome(t, "come-before", certificatesv1.CertificateApproved)
	noOthers()

	must(t, c.Delete(ctx, come))
	request(t, "come-between", own("come.example/come"))
	must(t, c.Create(ctx, come.DeepCopy()))
	outcome(t, "come-between", certificatesv1.CertificateApproved)

	// The standby replica watches the requests too, and continues when the leader exits.
	reads := signerReads(t)[selector]
	standby, err := installation.Run(ctx, "signer", "standby")
	must(t, err)
	must(t, standby.Ready(ctx))
	must(t, harness.Eventually(ctx, enough, func() error {
		if n := signerReads(t)[selector]; n <= reads {
			return fmt.Errorf("read %d times, %d times before the standby started", n, reads)
		}
		return nil
	}))
	must(t, installation.Signer.Kill())
	request(t, "come-leaderless", own("come.example/come"))
	outcome(t, "come-leaderless", certificatesv1.CertificateApproved)
	must(t, standby.Stop())
	start(t, "signer")
	must(t, installation.Signer.Ready(ctx))
	noOthers()
}

// TestUnreadableRequests checks that a signer that is not allowed to watch its requests is not ready, and issues the
// pending requests when it is allowed. A signer that is ready stays ready when it is not allowed to watch the requests of
// a new Signer.
func TestUnreadableRequests(t *testing.T) {
	ctx := t.Context()
	c := newClient(t)
	grant(t, "late.example", "late")
	allowWatch := func(ctx context.Context, watch bool) {
		t.Helper()
		roles := world.Clientset().RbacV1().ClusterRoles()
		role, err := roles.Get(ctx, "countersign-signer", metav1.GetOptions{})
		must(t, err)
		for i := range role.Rules {
			if role.Rules[i].Resources[0] == "certificatesigningrequests" {
				role.Rules[i].Verbs = []string{"get"} // which the signer does not use
				if watch {
					role.Rules[i].Verbs = []string{"list", "watch"}
				}
			}
		}
		_, err = roles.Update(ctx, role, metav1.UpdateOptions{})
		must(t, err)
	}
	t.Cleanup(func() {
		allowWatch(context.Background(), true)
		restartExited(t)
	})
	allowWatch(ctx, false)
	must(t, installation.Signer.Stop())
	start(t, "signer")
	request(t, "unreadable", own(tutorial.SignerName))
	awaitSigner(t, c, "serving", func(s *v1alpha1.Signer) error {
		if !meta.IsStatusConditionTrue(s.Status.Conditions, v1alpha1.ConditionReady) {
			return errors.New("not ready")
		}
		return nil
	})
	for range 5 {
		if _, err := installation.Signer.Probe(ctx, "/readyz"); err == nil {
			t.Fatal("the signer is ready and cannot watch requests")
		}
	}
	allowWatch(ctx, true)
	must(t, installation.Signer.Ready(ctx))
	outcome(t, "unreadable", certificatesv1.CertificateApproved)

	allowWatch(ctx, false)
	newSigner(t, c, "late.example", "late", v1alpha1.SignerCA{Managed: &v1alpha1.ManagedCA{SecretName: "late", CommonName: "Late"}})
	request(t, "unreadable-late", own("late.example/late"))
	must(t, harness.Eventually(ctx, enough, func() error {
		return contains(installation.Signer.Tail(), "late.example/late", "forbidden")
	}))
	_, err := installation.Signer.Probe(ctx, "/readyz")
	must(t, err)
	allowWatch(ctx, true)
	outcome(t, "unreadable-late", certificatesv1.CertificateApproved)
}
