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

// signerReads counts, in the API server's audit log, what the signer has asked for in lists and watches of requests,
// by the field selector.
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
		if err := json.Unmarshal(line, &event); err != nil { // the last may be half written
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

// TestSignersComeAndGo: the requests of a Signer are watched while there is one, and no others; what is approved before
// it is there is issued when it is ready, by whichever replica leads then.
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
				t.Errorf("the signer asked for the requests of %q", s)
			}
		}
	}

	request(t, "come-before", own("come.example/come"))
	if n := signerReads(t)[selector]; n > 0 {
		t.Errorf("watched %d times before there is a Signer", n)
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

	// One that stands by watches it as well, and goes on where the leader ends.
	reads := signerReads(t)[selector]
	standby, err := installation.Run(ctx, "signer", "standby")
	must(t, err)
	must(t, standby.Ready(ctx))
	must(t, harness.Eventually(ctx, enough, func() error {
		if n := signerReads(t)[selector]; n <= reads {
			return fmt.Errorf("read %d times, %d before there was a standby", n, reads)
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

// TestUnreadableRequests: a signer that may not watch its requests is not ready, and issues what has waited once it
// may. One that was ready stays so when a Signer is made whose requests it may not watch.
func TestUnreadableRequests(t *testing.T) {
	ctx := t.Context()
	c := newClient(t)
	grant(t, "late.example", "late")
	may := func(ctx context.Context, watch bool) {
		t.Helper()
		roles := world.Clientset().RbacV1().ClusterRoles()
		role, err := roles.Get(ctx, "countersign-signer", metav1.GetOptions{})
		must(t, err)
		for i := range role.Rules {
			if role.Rules[i].Resources[0] == "certificatesigningrequests" {
				role.Rules[i].Verbs = []string{"get"} // which it has no use for
				if watch {
					role.Rules[i].Verbs = []string{"list", "watch"}
				}
			}
		}
		_, err = roles.Update(ctx, role, metav1.UpdateOptions{})
		must(t, err)
	}
	t.Cleanup(func() {
		may(context.Background(), true)
		revive(t)
	})
	may(ctx, false)
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
			t.Fatal("ready although the requests cannot be watched")
		}
	}
	may(ctx, true)
	must(t, installation.Signer.Ready(ctx))
	outcome(t, "unreadable", certificatesv1.CertificateApproved)

	may(ctx, false)
	newSigner(t, c, "late.example", "late", v1alpha1.SignerCA{Managed: &v1alpha1.ManagedCA{SecretName: "late", CommonName: "Late"}})
	request(t, "unreadable-late", own("late.example/late"))
	must(t, harness.Eventually(ctx, enough, func() error {
		return contains(installation.Signer.Tail(), "late.example/late", "forbidden")
	}))
	_, err := installation.Signer.Probe(ctx, "/readyz")
	must(t, err)
	may(ctx, true)
	outcome(t, "unreadable-late", certificatesv1.CertificateApproved)
}
