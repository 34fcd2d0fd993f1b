// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/api/v1alpha1"
)

// TestWhyThereIsNoOpinion: who asks a Judge can tell a denial of the kernel's from one of a policy's,
// and a policy that is not loaded from one that has no opinion.
func TestWhyThereIsNoOpinion(t *testing.T) {
	unloaded, watched := mine(t, allowing), mine(t, denying)
	unloaded.name, unloaded.uid, unloaded.compiled = "unloaded", "unloaded-uid", nil
	watched.mode = v1alpha1.ModeAudit
	selector, err := labels.Parse("team=blue")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := mine(t, allowing)
	elsewhere.uid, elsewhere.namespaces = "elsewhere-uid", selector
	watchedUnloaded := unloaded
	watchedUnloaded.mode = v1alpha1.ModeAudit
	for name, tc := range map[string]struct {
		policies  []loadedPolicy
		junk      bool // the request is no PKCS#10
		verdict   Verdict
		refused   bool
		notLoaded string
		ours      bool
		elsewhere bool
	}{
		"a policy that allows":                           {policies: []loadedPolicy{mine(t, allowing)}, verdict: Approved, ours: true},
		"a policy that denies":                           {policies: []loadedPolicy{mine(t, denying)}, verdict: Denied, ours: true},
		"a policy that abstains":                         {policies: []loadedPolicy{mine(t, abstaining)}, ours: true},
		"a policy that is only looked at":                {policies: []loadedPolicy{watched}},
		"one that is not loaded":                         {policies: []loadedPolicy{mine(t, allowing), unloaded}, notLoaded: "unloaded", ours: true},
		"one that is not loaded, and would be looked at": {policies: []loadedPolicy{mine(t, allowing), watchedUnloaded}, verdict: Approved, ours: true},
		"one for another namespace":                      {policies: []loadedPolicy{elsewhere}, elsewhere: true},
		"one for another namespace, and one for all":     {policies: []loadedPolicy{elsewhere, mine(t, allowing)}, verdict: Approved, ours: true},
		"junk":                                   {policies: []loadedPolicy{mine(t, allowing)}, junk: true, verdict: Denied, refused: true, ours: true},
		"junk, and one that is not loaded":       {policies: []loadedPolicy{mine(t, allowing), unloaded}, junk: true, notLoaded: "unloaded", ours: true},
		"junk, for a policy that is looked at":   {policies: []loadedPolicy{watched}, junk: true},
		"junk, and a watcher that is not loaded": {policies: []loadedPolicy{mine(t, allowing), watchedUnloaded}, junk: true, verdict: Denied, refused: true, ours: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, allowing)
			w.reconciler.judge.policies.replace(tc.policies)
			var csr certificatesv1.CertificateSigningRequest
			if err := w.reconciler.live.Get(t.Context(), client.ObjectKey{Name: "web"}, &csr); err != nil {
				t.Fatal(err)
			}
			if tc.junk {
				csr.Spec.Request = []byte("junk")
			}
			got, err := w.reconciler.judge.Judge(t.Context(), &csr, since)
			if err != nil {
				t.Fatal(err)
			}
			if got.Decision.Verdict != tc.verdict || got.Refused != tc.refused || got.NotLoaded != tc.notLoaded || got.Ours != tc.ours || got.Elsewhere != tc.elsewhere {
				t.Errorf("verdict %q, refused %v, not loaded %q, ours %v", got.Decision.Verdict, got.Refused, got.NotLoaded, got.Ours)
			}
		})
	}
}

func TestAJudgeThatHasLoadedNothing(t *testing.T) {
	judge := &Judge{policies: &PolicySet{}}
	if judge.Loaded() || judge.Manages("example.com/serving") {
		t.Error("it says that it has loaded policies")
	}
	judge.policies.replace(nil)
	if !judge.Loaded() || judge.Manages("example.com/serving") {
		t.Error("it does not say that there are none")
	}
}
