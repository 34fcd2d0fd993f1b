// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package review

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/approver/policy"
	"countersign.dev/countersign/pkcs10"
)

const (
	regoHeader = "package countersign.mine\n\nimport rego.v2\n\n"
	allowing   = regoHeader + "subject_controls_key := true\n\nsubject_is_authorized := true\n\nviolations contains v if some v in []\n"
	denying    = regoHeader + "subject_controls_key := true\n\nsubject_is_authorized := false\n\nviolations contains {\"requirement\": 2, \"id\": \"no\", \"message\": \"not today\"} if true\n"
	holding    = regoHeader + "subject_controls_key := true\n\nsubject_is_authorized := false\n\nviolations contains {\"requirement\": 2, \"id\": \"soon\", \"message\": \"not yet\", \"retryable\": true} if true\n"
	abstaining = allowing + "\napplies := false\n"
)

// podRequest returns the request of Pod ns/my-pod for its DNS name.
func podRequest(t *testing.T) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"my-pod.ns.pod.cluster.local"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "web", UID: "web-uid", CreationTimestamp: metav1.NewTime(since)},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: "example.com/serving", Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			Username: "system:serviceaccount:ns:sa", Usages: []certificatesv1.KeyUsage{"server auth"},
			Extra: map[string]certificatesv1.ExtraValue{"authentication.kubernetes.io/pod-name": {"my-pod"}, "authentication.kubernetes.io/pod-uid": {"u"}},
		},
	}
}

type fieldIndexer struct{ *fake.ClientBuilder }

func (i fieldIndexer) IndexField(_ context.Context, object client.Object, field string, extract client.IndexerFunc) error {
	i.WithIndex(object, field, extract)
	return nil
}

// newReviewer returns a Reviewer without a manager, as a command constructs it, for a cluster with
// Pod ns/my-pod and the objects.
func newReviewer(t *testing.T, policies *policy.Set, objects ...client.Object) *Reviewer {
	t.Helper()
	builder := fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).WithObjects(
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "my-pod", UID: "u"}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}},
	).WithObjects(objects...)
	if err := facts.AddIndexes(t.Context(), fieldIndexer{builder}); err != nil {
		t.Fatal(err)
	}
	c := builder.Build()
	return &Reviewer{
		Policies: policies, Now: func() time.Time { return since },
		Gatherer: facts.NewGatherer(c, facts.LivePods{Reader: c}, c, c, "cluster.local"),
	}
}

// loaded returns a policy for all signers of example.com.
func loaded(t *testing.T, name, module string, mode v1alpha1.PolicyMode) policy.Policy {
	t.Helper()
	active, err := evaluator.Compile(t.Context(), evaluator.Source{Package: "countersign.mine", Modules: map[string]string{"mine.rego": module}})
	if err != nil {
		t.Fatal(err)
	}
	p := notLoaded(name, mode)
	p.Active = active
	return p
}

func notLoaded(name string, mode v1alpha1.PolicyMode) policy.Policy {
	object := &v1alpha1.ApprovalPolicy{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "uid-of-mine"}}
	object.Spec.Mode, object.Spec.Match.SignerNames = mode, []string{"example.com/*"}
	return policy.New(object, nil, nil)
}

func TestReviewOutcome(t *testing.T) {
	selector, err := labels.Parse("team=blue")
	if err != nil {
		t.Fatal(err)
	}
	allow := loaded(t, "mine", allowing, v1alpha1.ModeEnforce)
	unloaded, shadowUnloaded := notLoaded("unloaded", v1alpha1.ModeEnforce), notLoaded("unloaded", v1alpha1.ModeAudit)
	unloaded.UID, shadowUnloaded.UID = "uid-of-unloaded", "uid-of-unloaded"
	shadow := loaded(t, "shadow", denying, v1alpha1.ModeAudit)
	elsewhere := loaded(t, "elsewhere", allowing, v1alpha1.ModeEnforce)
	elsewhere.UID, elsewhere.Namespaces = "uid-of-elsewhere", selector
	for _, tc := range []struct {
		name      string
		policies  []policy.Policy
		malformed bool
		want      Outcome
		notLoaded string
	}{
		{name: "no policy", want: NotMatched},
		{name: "a policy that allows", policies: []policy.Policy{allow}, want: Approve},
		{name: "a policy that denies", policies: []policy.Policy{loaded(t, "mine", denying, v1alpha1.ModeEnforce)}, want: Deny},
		{name: "a policy with a retryable violation", policies: []policy.Policy{loaded(t, "mine", holding, v1alpha1.ModeEnforce)}, want: Hold},
		{name: "a policy that abstains", policies: []policy.Policy{loaded(t, "mine", abstaining, v1alpha1.ModeEnforce)}, want: NoOpinion},
		{name: "a shadow policy", policies: []policy.Policy{shadow}, want: NotMatched},
		{name: "a policy that is not loaded", policies: []policy.Policy{allow, unloaded}, want: NotLoaded, notLoaded: "unloaded"},
		{name: "a shadow policy that is not loaded", policies: []policy.Policy{allow, shadowUnloaded}, want: Approve},
		{name: "a policy for another namespace", policies: []policy.Policy{elsewhere}, want: OtherNamespaces},
		{name: "a policy for another namespace, and one for all", policies: []policy.Policy{elsewhere, allow}, want: Approve},
		{name: "malformed", policies: []policy.Policy{allow}, malformed: true, want: Refuse},
		{name: "malformed, and a policy that is not loaded", policies: []policy.Policy{allow, unloaded}, malformed: true, want: NotLoaded, notLoaded: "unloaded"},
		{name: "malformed, and a policy that is not loaded comes first", policies: []policy.Policy{unloaded, allow}, malformed: true, want: NotLoaded, notLoaded: "unloaded"},
		{name: "malformed, and a shadow policy", policies: []policy.Policy{shadow}, malformed: true, want: NotMatched},
		{name: "malformed, and a shadow policy that is not loaded", policies: []policy.Policy{allow, shadowUnloaded}, malformed: true, want: Refuse},
		{name: "malformed, and a policy for another namespace", policies: []policy.Policy{elsewhere}, malformed: true, want: NotMatched},
	} {
		t.Run(tc.name, func(t *testing.T) {
			csr := podRequest(t)
			if tc.malformed {
				csr.Spec.Request = []byte("junk")
			}
			policies := &policy.Set{}
			policies.Replace(tc.policies)
			got, err := newReviewer(t, policies, csr).Review(t.Context(), csr, Clocks{})
			if err != nil {
				t.Fatal(err)
			}
			if got.Outcome != tc.want || got.NotLoaded != tc.notLoaded {
				t.Errorf("outcome %q, not loaded %q; want %q, %q", got.Outcome, got.NotLoaded, tc.want, tc.notLoaded)
			}
		})
	}
}

func TestReviewerLoaded(t *testing.T) {
	reviewer := &Reviewer{Policies: &policy.Set{}}
	if reviewer.Loaded() || reviewer.Manages("example.com/serving") {
		t.Error("policies are loaded, want not loaded")
	}
	reviewer.Policies.Replace(nil)
	if !reviewer.Loaded() || reviewer.Manages("example.com/serving") {
		t.Error("an empty set must be loaded and match nothing")
	}
}

// fixedFacts is a Gatherer that counts its calls. Live facts are about Pods of team blue.
type fixedFacts struct {
	recentErr, liveErr error
	recent, live       int
}

func (f *fixedFacts) Recent(context.Context, *certificatesv1.CertificateSigningRequest, *pkcs10.Request, time.Time) (facts.Gathered, error) {
	f.recent++
	return teamFacts("red"), f.recentErr
}

func (f *fixedFacts) Live(context.Context, *certificatesv1.CertificateSigningRequest, *pkcs10.Request, time.Time) (facts.Gathered, error) {
	f.live++
	return teamFacts("blue"), f.liveErr
}

func teamFacts(team string) facts.Gathered {
	var f facts.Gathered
	f.Cluster.Subject.Namespace = &facts.Namespace{Name: "ns", Labels: map[string]string{"team": team}}
	return f
}

// TestReviewFacts checks which facts an outcome is based on: recent facts can approve or hold a request,
// and every other outcome requires live facts.
func TestReviewFacts(t *testing.T) {
	blue := `input.cluster.subject.namespace.labels.team == "blue"`
	forBlue := regoHeader + "subject_controls_key := true\n\nsubject_is_authorized if " + blue +
		"\n\nviolations contains {\"requirement\": 2, \"id\": \"no\", \"message\": \"not today\"} if not subject_is_authorized\n"
	unavailable := errors.New("unavailable")
	for _, tc := range []struct {
		name    string
		module  string
		facts   fixedFacts
		want    Outcome
		wantErr error
		live    int
	}{
		{name: "recent facts approve", module: allowing, want: Approve},
		{name: "recent facts hold", module: holding, want: Hold},
		{name: "recent facts deny, live facts approve", module: forBlue, want: Approve, live: 1},
		{name: "both deny", module: denying, want: Deny, live: 1},
		{name: "both have no opinion", module: abstaining, want: NoOpinion, live: 1},
		{name: "recent facts cannot be gathered", module: allowing, facts: fixedFacts{recentErr: unavailable}, wantErr: unavailable},
		{name: "recent facts deny, live facts cannot be gathered", module: denying, facts: fixedFacts{liveErr: unavailable}, wantErr: unavailable, live: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			policies := &policy.Set{}
			policies.Replace([]policy.Policy{loaded(t, "mine", tc.module, v1alpha1.ModeEnforce)})
			reviewer := &Reviewer{Policies: policies, Gatherer: &tc.facts, Now: func() time.Time { return since }}
			got, err := reviewer.Review(t.Context(), podRequest(t), Clocks{})
			if !errors.Is(err, tc.wantErr) || got.Outcome != tc.want {
				t.Errorf("outcome %q, error %v; want %q, %v", got.Outcome, err, tc.want, tc.wantErr)
			}
			if tc.facts.recent != 1 || tc.facts.live != tc.live {
				t.Errorf("gathered recent facts %d times and live facts %d times, want 1 and %d", tc.facts.recent, tc.facts.live, tc.live)
			}
		})
	}
}

// agingFacts is a Gatherer whose facts are as old as ages says, one after the other.
type agingFacts struct {
	ages     []time.Duration
	gathered int
}

func (f *agingFacts) Recent(context.Context, *certificatesv1.CertificateSigningRequest, *pkcs10.Request, time.Time) (facts.Gathered, error) {
	g := teamFacts("red")
	g.ReadAt = time.Now().Add(-f.ages[min(f.gathered, len(f.ages)-1)])
	f.gathered++
	return g, nil
}

func (f *agingFacts) Live(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, request *pkcs10.Request, now time.Time) (facts.Gathered, error) {
	return f.Recent(ctx, csr, request, now)
}

// TestReviewAge: a request is not approved by facts that have expired when the policies have evaluated them.
func TestReviewAge(t *testing.T) {
	const old = facts.MaxDecisionAge + time.Millisecond
	for _, tc := range []struct {
		name     string
		module   string
		ages     []time.Duration
		want     Outcome
		wantErr  bool
		gathered int
	}{
		{name: "as old as is allowed", module: allowing, ages: []time.Duration{facts.MaxDecisionAge}, want: Approve, gathered: 1},
		{name: "too old once", module: allowing, ages: []time.Duration{old, 0}, want: Approve, gathered: 2},
		{name: "too old each time", module: allowing, ages: []time.Duration{4 * time.Second}, wantErr: true, gathered: maxGatherings},
		{name: "a hold on old facts", module: holding, ages: []time.Duration{old}, want: Hold, gathered: 1},
		{name: "a denial", module: denying, ages: []time.Duration{old}, want: Deny, gathered: 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			policies := &policy.Set{}
			policies.Replace([]policy.Policy{loaded(t, "mine", tc.module, v1alpha1.ModeEnforce)})
			synctest.Test(t, func(t *testing.T) {
				gatherer := &agingFacts{ages: tc.ages}
				reviewer := &Reviewer{Policies: policies, Gatherer: gatherer, Now: func() time.Time { return since }}
				got, err := reviewer.Review(t.Context(), podRequest(t), Clocks{})
				if (err != nil) != tc.wantErr || got.Outcome != tc.want || gatherer.gathered != tc.gathered {
					t.Errorf("outcome %q, error %v after %d gatherings; want %q after %d", got.Outcome, err, gatherer.gathered, tc.want, tc.gathered)
				}
			})
		})
	}
}

// TestReviewTooLarge: no policy evaluates facts that are too large. The request is held until the shortest holdFor,
// and then denied.
func TestReviewTooLarge(t *testing.T) {
	short, patient := loaded(t, "short", allowing, v1alpha1.ModeEnforce), loaded(t, "patient", allowing, v1alpha1.ModeEnforce)
	short.HoldFor, patient.HoldFor, patient.UID = 30*time.Second, time.Hour, "patient"
	shadow := loaded(t, "shadow", allowing, v1alpha1.ModeAudit)
	shadow.HoldFor, shadow.UID = time.Second, "shadow"
	elsewhere := loaded(t, "elsewhere", allowing, v1alpha1.ModeEnforce)
	elsewhere.HoldFor, elsewhere.UID = time.Second, "elsewhere"
	selector, err := labels.Parse("team=green")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere.Namespaces = selector
	unloaded := notLoaded("unloaded", v1alpha1.ModeEnforce)
	unloaded.UID = "unloaded"
	enlarge := func(by int) func(*facts.Gathered) {
		return func(f *facts.Gathered) {
			f.Cluster.Subject.Namespace.Labels["x"] = ""
			f.Cluster.Subject.Namespace.Labels["x"] = strings.Repeat("x", facts.MaxSize-len(evaluator.NewInput(&f.Facts).JSON())+by)
		}
	}
	excess := func(f *facts.Gathered) { f.Excess = "too many" }
	for _, tc := range []struct {
		name     string
		policies []policy.Policy
		change   func(*facts.Gathered)
		after    time.Duration
		want     Decision
	}{
		{name: "as large as is allowed", policies: []policy.Policy{short}, change: enlarge(0), want: Decision{Outcome: Approve, Reason: ReasonPolicyAllowed}},
		{name: "one byte more", policies: []policy.Policy{patient, short}, change: enlarge(1), want: Decision{Outcome: Hold, Reason: ReasonFactsTooLarge, Until: since.Add(30 * time.Second)}},
		{name: "just before the end of the hold", policies: []policy.Policy{short}, change: enlarge(1 << 20), after: 30*time.Second - 1, want: Decision{Outcome: Hold, Reason: ReasonFactsTooLarge, Until: since.Add(30 * time.Second)}},
		{name: "at the end of the hold", policies: []policy.Policy{short, patient}, change: enlarge(1 << 20), after: 30 * time.Second, want: Decision{Outcome: Deny, Reason: ReasonFactsTooLarge}},
		{name: "incomplete", policies: []policy.Policy{short}, change: excess, want: Decision{Outcome: Hold, Reason: ReasonFactsTooLarge, Until: since.Add(30 * time.Second)}},
		{name: "a shadow policy", policies: []policy.Policy{shadow}, change: excess, after: time.Hour, want: Decision{Outcome: NotMatched}},
		{name: "a shadow policy beside another", policies: []policy.Policy{shadow, short}, change: excess, after: 2 * time.Second, want: Decision{Outcome: Hold, Reason: ReasonFactsTooLarge, Until: since.Add(30 * time.Second)}},
		{name: "a policy for another namespace", policies: []policy.Policy{elsewhere}, change: excess, after: time.Hour, want: Decision{Outcome: OtherNamespaces}},
		{name: "a policy for another namespace beside another", policies: []policy.Policy{elsewhere, short}, change: excess, after: 2 * time.Second, want: Decision{Outcome: Hold, Reason: ReasonFactsTooLarge, Until: since.Add(30 * time.Second)}},
		{name: "a policy that is not loaded", policies: []policy.Policy{short, unloaded}, change: excess, after: time.Hour, want: Decision{Outcome: NotLoaded}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			policies := &policy.Set{}
			policies.Replace(tc.policies)
			reviewer := &Reviewer{Policies: policies, Gatherer: changedFacts{tc.change}, Now: func() time.Time { return since.Add(tc.after) }}
			got, err := reviewer.Review(t.Context(), podRequest(t), Clocks{Held: map[string]time.Duration{FactsTooLarge: tc.after}})
			if err != nil {
				t.Fatal(err)
			}
			if tooLarge := tc.want.Reason == ReasonFactsTooLarge; tooLarge != (got.Message != "" && len(got.Evaluations) == 0) {
				t.Errorf("message %q, %d evaluations", got.Message, len(got.Evaluations))
			}
			got.Message = ""
			if diff := cmp.Diff(tc.want, got.Decision); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if record := Record(podRequest(t), got); tc.want.Reason == ReasonFactsTooLarge && (record.Facts != nil || !slices.Contains(record.Truncated, "facts")) {
				t.Errorf("%d bytes of facts on record", len(record.Facts))
			}
		})
	}
}

// changedFacts is a Gatherer whose facts are changed.
type changedFacts struct{ change func(*facts.Gathered) }

func (f changedFacts) Recent(context.Context, *certificatesv1.CertificateSigningRequest, *pkcs10.Request, time.Time) (facts.Gathered, error) {
	g := teamFacts("red")
	f.change(&g)
	return g, nil
}

func (f changedFacts) Live(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, request *pkcs10.Request, now time.Time) (facts.Gathered, error) {
	return f.Recent(ctx, csr, request, now)
}

// TestReviewSlowShadowPolicies: policies in mode Audit that need much CPU time neither stop nor delay a
// decision for long.
func TestReviewSlowShadowPolicies(t *testing.T) {
	const slow = regoHeader + "subject_controls_key := true\n\nsubject_is_authorized := true\n\nviolations contains v if {\n\tsome v in [1]\n\tsome a in numbers.range(1, 10000)\n\tsome b in numbers.range(1, 10000)\n\ta + b == -1\n}\n"
	policies := []policy.Policy{loaded(t, "web", allowing, v1alpha1.ModeEnforce)}
	const shadows = 8
	for i := range shadows {
		policies = append(policies, loaded(t, string(rune('a'+i)), slow, v1alpha1.ModeAudit))
	}
	set := &policy.Set{}
	set.Replace(policies)
	got, err := newReviewer(t, set).Review(t.Context(), podRequest(t), Clocks{})
	if err != nil || got.Outcome != Approve {
		t.Fatalf("got %v, %v", got.Decision, err)
	}
	answers := map[string]int{}
	for i := range got.Shadow {
		answers[got.Shadow[i].Answer()]++
	}
	if answers["error"] != shadows {
		t.Errorf("answers of shadow policies: %v", answers)
	}
}
