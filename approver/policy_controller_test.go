// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/approver/policy"
)

// loading is a policyReconciler and its API server.
type loading struct {
	*policyReconciler
	client client.Client
	away   bool // every read of a ConfigMap fails
	// requeued reports that another reconciliation was requested.
	requeued bool
	emitted  *events.FakeRecorder
}

func newLoading(t *testing.T, objects ...client.Object) *loading {
	t.Helper()
	scheme, err := NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	l := &loading{}
	l.client = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(&v1alpha1.ApprovalPolicy{}).
		WithInterceptorFuncs(interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
				if _, ok := object.(*corev1.ConfigMap); ok && l.away {
					return errors.New("connection refused")
				}
				return c.Get(ctx, key, object, options...)
			},
			List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
				err := c.List(ctx, list, options...)
				if policies, ok := list.(*v1alpha1.ApprovalPolicyList); ok { // as they are in the cache
					for i := range policies.Items {
						policy.Strip(&policies.Items[i])
					}
				}
				return err
			},
		}).Build()
	elected := make(chan struct{})
	close(elected)
	l.emitted = events.NewFakeRecorder(100)
	l.policyReconciler = &policyReconciler{
		start: func(load func()) { load() }, requeue: func(time.Duration) { l.requeued = true },
		client: l.client, policies: &policy.Set{}, loader: policy.Loader{Reader: l.client, Namespace: "countersign-system"},
		status:  &statusWriter{client: l.client, podExists: podsOf(t, objects...).Exist, namespace: "countersign-system", replica: "approver-a", elected: elected, comparison: newComparison(), events: l.emitted},
		changed: func(context.Context) error { return nil },
	}
	return l
}

// reconcile reconciles until no source is pending.
func (l *loading) reconcile(t *testing.T) error {
	t.Helper()
	for {
		l.requeued = false
		if _, err := l.Reconcile(t.Context(), reconcile.Request{}); !l.requeued {
			return err
		}
	}
}

// loads reconciles and returns the status of a policy, each condition as "type status reason".
func (l *loading) loads(t *testing.T, name string) (v1alpha1.ApprovalPolicyStatus, []string) {
	t.Helper()
	if err := l.reconcile(t); err != nil {
		t.Fatal(err)
	}
	status := l.get(t, name).Status
	var conditions []string
	for _, kind := range []string{v1alpha1.ConditionCompiled, v1alpha1.ConditionTestsPassed, v1alpha1.ConditionReady} {
		if c := meta.FindStatusCondition(status.Conditions, kind); c != nil {
			conditions = append(conditions, fmt.Sprint(c.Type, " ", c.Status, " ", c.Reason))
		}
	}
	return status, conditions
}

func (l *loading) get(t *testing.T, name string) *v1alpha1.ApprovalPolicy {
	t.Helper()
	var policy v1alpha1.ApprovalPolicy
	if err := l.client.Get(t.Context(), client.ObjectKey{Name: name}, &policy); err != nil {
		t.Fatal(err)
	}
	return &policy
}

func (l *loading) change(t *testing.T, change func(*v1alpha1.ApprovalPolicySpec)) {
	t.Helper()
	policy := l.get(t, "p")
	change(&policy.Spec)
	if err := l.client.Update(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
}

// decides returns the revisions that decide requests of a signer, "" for none.
func (l *loading) decides(signerName string) []string {
	var out []string
	for _, p := range l.policies.Matching(signerName) {
		revision := ""
		if p.Active != nil {
			revision = p.Active.Revision()
		}
		out = append(out, revision)
	}
	return out
}

func policyOf(name string, modules map[string]string) *v1alpha1.ApprovalPolicy {
	return &v1alpha1.ApprovalPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: "uid-of-" + "p"},
		Spec: v1alpha1.ApprovalPolicySpec{
			Match: v1alpha1.ApprovalPolicyMatch{SignerNames: []string{"example.com/" + name}},
			Rego:  v1alpha1.RegoSource{Package: "countersign.mine", Modules: modules},
		},
	}
}

func modules(text string, more ...string) map[string]string {
	out := map[string]string{"mine.rego": text}
	for i := 0; i+1 < len(more); i += 2 {
		out[more[i]] = more[i+1]
	}
	return out
}

const passing = "package countersign.mine_test\n\nimport rego.v2\n\nimport data.countersign.mine\n\ntest_control if mine.subject_controls_key\n"

func TestPolicyConditions(t *testing.T) {
	failingTest := strings.Replace(passing, "if mine", "if not mine", 1)
	for _, tc := range []struct {
		name       string
		policy     *v1alpha1.ApprovalPolicy
		conditions []string
		errors     []v1alpha1.RegoError
		coverage   *v1alpha1.Coverage
	}{
		{
			"one that compiles and has no tests",
			policyOf("p", modules(allowing)),
			[]string{"Compiled True Compiled", "TestsPassed Unknown NoTests", "Ready True PolicyLoaded"},
			nil, nil,
		},
		{
			"one whose tests pass",
			policyOf("p", modules(allowing, "mine_test.rego", passing)),
			[]string{"Compiled True Compiled", "TestsPassed True TestsPassed", "Ready True PolicyLoaded"},
			nil,
			&v1alpha1.Coverage{Percent: 33, NotCovered: []string{"mine.rego:7", "mine.rego:9"}},
		},
		{
			"a test fails",
			policyOf("p", modules(allowing, "mine_test.rego", failingTest)),
			[]string{"Compiled True Compiled", "TestsPassed False TestsFailed", "Ready False NotLoaded"},
			[]v1alpha1.RegoError{{File: "mine_test.rego", Row: 7, Col: 1, Message: "test_control fails"}},
			&v1alpha1.Coverage{Percent: 33, NotCovered: []string{"mine.rego:7", "mine.rego:9"}},
		},
		{
			"a field that is misspelt",
			policyOf("p", modules(strings.Replace(allowing, "subject_controls_key := true", `subject_controls_key if input.requester.usrname == ""`, 1))),
			[]string{"Compiled False InvalidRego", "TestsPassed Unknown NotCompiled", "Ready False NotLoaded"},
			[]v1alpha1.RegoError{{
				File: "mine.rego", Row: 5, Col: 25, Message: "rego_type_error: undefined ref: input.requester.usrname",
				Suggestions: []string{"credentialID", "groups", "node", "pod", "serviceAccount", "uid", "username"},
			}},
			nil,
		},
		{
			"a builtin that is not there",
			&v1alpha1.ApprovalPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u"}, Spec: v1alpha1.ApprovalPolicySpec{Rego: v1alpha1.RegoSource{Builtin: "no-such"}}},
			[]string{"Compiled False SourceNotFound", "TestsPassed Unknown NotCompiled", "Ready False NotLoaded"},
			nil, nil,
		},
		{
			"a ConfigMap that is not there",
			&v1alpha1.ApprovalPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u"}, Spec: v1alpha1.ApprovalPolicySpec{Rego: v1alpha1.RegoSource{Package: "x", ConfigMapRef: &v1alpha1.LocalObjectReference{Name: "no-such"}}}},
			[]string{"Compiled False SourceNotFound", "TestsPassed Unknown NotCompiled", "Ready False NotLoaded"},
			nil, nil,
		},
		{
			"parameters that its schema does not have",
			policyOf("p", modules(allowing, "parameters.schema.json", `{"type": "object", "required": ["team"]}`)),
			[]string{"Compiled False InvalidParameters", "TestsPassed Unknown NotCompiled", "Ready False NotLoaded"},
			[]v1alpha1.RegoError{{File: "spec.parameters", Message: "team is required"}},
			nil,
		},
		{
			"one that is disabled",
			func() *v1alpha1.ApprovalPolicy {
				p := policyOf("p", modules(allowing))
				p.Spec.Mode = v1alpha1.ModeDisabled
				return p
			}(),
			[]string{"Compiled True Compiled", "TestsPassed Unknown NoTests", "Ready False Disabled"},
			nil, nil,
		},
		{
			"tests that reach too little",
			func() *v1alpha1.ApprovalPolicy {
				p := policyOf("p", modules(allowing, "mine_test.rego", passing))
				p.Spec.MinCoverage = 100
				return p
			}(),
			[]string{"Compiled True Compiled", "TestsPassed False CoverageTooLow", "Ready False NotLoaded"},
			nil,
			&v1alpha1.Coverage{Percent: 33, NotCovered: []string{"mine.rego:7", "mine.rego:9"}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLoading(t, tc.policy)
			status, conditions := l.loads(t, "p")
			if diff := cmp.Diff(tc.conditions, conditions); diff != "" {
				t.Errorf("conditions (-want +got):\n%s%+v", diff, status.Conditions)
			}
			if diff := cmp.Diff(tc.errors, status.Errors); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.coverage, status.Coverage); diff != "" {
				t.Errorf("coverage (-want +got):\n%s", diff)
			}
			ready := strings.HasPrefix(conditions[2], "Ready True")
			if (status.Revision != "") != ready && tc.policy.Spec.Mode != v1alpha1.ModeDisabled {
				t.Errorf("revision %q", status.Revision)
			}
			if want := []v1alpha1.ReplicaStatus{{Name: "approver-a", Revision: status.Revision}}; !slices.Equal(status.Replicas, want) {
				t.Errorf("replicas %+v, want %+v", status.Replicas, want)
			}
			before := l.get(t, "p").ResourceVersion
			if l.loads(t, "p"); l.get(t, "p").ResourceVersion != before {
				t.Error("an unchanged status was written")
			}
		})
	}
}

// TestPolicyErrorsAreIndependent: a policy with a problem, or whose ConfigMap cannot be
// read, does not affect the others.
// TestPolicyTooLarge: a source beyond a limit is a problem of its policy, and writing the status removes
// nothing from the policy.
func TestPolicyTooLarge(t *testing.T) {
	p := policyOf("p", modules(allowing, "mine_test.rego", strings.Repeat("#", evaluator.MaxSource)))
	p.Labels = map[string]string{"team": "blue"}
	l := newLoading(t, p)
	_, conditions := l.loads(t, "p")
	want := []string{"Compiled False InvalidRego", "TestsPassed Unknown NotCompiled", "Ready False NotLoaded"}
	if diff := cmp.Diff(want, conditions); diff != "" {
		t.Error(diff)
	}
	after := l.get(t, "p")
	if !cmp.Equal(p.Spec, after.Spec) || !cmp.Equal(p.Labels, after.Labels) {
		t.Errorf("the policy has changed: labels %v, %d modules", after.Labels, len(after.Spec.Rego.Modules))
	}
}

func TestPolicyErrorsAreIndependent(t *testing.T) {
	function := policyOf("function", modules(allowing+"\napplies(x) if x\n"))
	unread := &v1alpha1.ApprovalPolicy{ObjectMeta: metav1.ObjectMeta{Name: "unread", UID: "unread"}, Spec: v1alpha1.ApprovalPolicySpec{
		Match: v1alpha1.ApprovalPolicyMatch{SignerNames: []string{"example.com/unread"}},
		Rego:  v1alpha1.RegoSource{Package: "countersign.mine", ConfigMapRef: &v1alpha1.LocalObjectReference{Name: "rego"}},
	}}
	good := policyOf("good", modules(allowing))
	function.UID, good.UID = "function", "good"
	configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "countersign-system", Name: "rego"}, Data: modules(allowing)}
	l := newLoading(t, function, unread, good, configMap)
	l.away = true
	if err := l.reconcile(t); err == nil || !strings.Contains(err.Error(), "loading policy unread: reading ConfigMap countersign-system/rego: connection refused") {
		t.Errorf("got %v", err)
	}
	if len(l.decides("example.com/good")) != 1 || l.decides("example.com/good")[0] == "" {
		t.Error("the good policy is not loaded")
	}
	for _, name := range []string{"function", "unread"} {
		if diff := cmp.Diff([]string{""}, l.decides("example.com/"+name)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if err := l.policies.Ready(); err != nil { // only the requests of these two wait
		t.Errorf("readyz: %v", err)
	}
	l.away = false
	if status, conditions := l.loads(t, "function"); conditions[0] != "Compiled False InvalidRego" || status.Errors[0].Message != "applies is a function: write it as a rule, without arguments" {
		t.Errorf("function: %v %+v", conditions, status.Errors)
	}
	loaded := l.decides("example.com/unread")
	if loaded[0] == "" {
		t.Fatal("the policy must be loaded once its ConfigMap can be read")
	}
	l.away = true // the active revision remains
	if err := l.reconcile(t); err == nil {
		t.Error("want an error")
	}
	if diff := cmp.Diff(loaded, l.decides("example.com/unread")); diff != "" {
		t.Error(diff)
	}
}

// TestPolicyHoldsBeforeItIsLoaded: a policy holds the requests that it matches as soon as it is known, also
// while another source is being tested. The smallest of the sources that wait longest is loaded first, and each policy decides as
// soon as its own source is loaded.
func TestPolicyHoldsBeforeItIsLoaded(t *testing.T) {
	large := policyOf("large", modules(allowing+strings.Repeat("# filler\n", 1000), "mine_test.rego", passing))
	medium := policyOf("medium", modules(allowing+strings.Repeat("# filler\n", 100)))
	large.UID, medium.UID = "large", "medium"
	l := newLoading(t, large, medium)
	var load func()
	l.start = func(f func()) { load = f }
	decides := func(step, want string) {
		t.Helper()
		if _, err := l.Reconcile(t.Context(), reconcile.Request{}); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, name := range []string{"large", "medium", "small"} {
			for _, p := range l.policies.Matching("example.com/" + name) {
				got = append(got, fmt.Sprint(name, "=", p.Active != nil))
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %v, want %s", step, got, want)
		}
	}
	decides("known", "large=false medium=false")
	if err := l.policies.Ready(); err != nil {
		t.Errorf("only the requests of these policies wait: %v", err)
	}
	if c := meta.FindStatusCondition(l.get(t, "large").Status.Conditions, v1alpha1.ConditionReady); c == nil || c.Reason != v1alpha1.ReasonLoading {
		t.Errorf("got %+v", c)
	}
	small := policyOf("small", modules(allowing))
	small.UID = "small"
	if err := l.client.Create(t.Context(), small); err != nil {
		t.Fatal(err)
	}
	decides("a policy is created while another is loaded", "large=false medium=false small=false")
	load()
	decides("the first is loaded", "large=false medium=true small=false")
	load()
	decides("the later one does not overtake", "large=true medium=true small=false")
	load()
	decides("all are loaded", "large=true medium=true small=true")
}

// TestTestedSourceIsNotTestedAgain: after a restart, a source whose tests passed is active at once, with
// the same status. A source that differs in any way is tested.
func TestTestedSourceIsNotTestedAgain(t *testing.T) {
	tested := policyOf("p", modules(allowing, "mine_test.rego", passing))
	tested.Spec.MinCoverage = 20
	tested.Spec.Candidate = &v1alpha1.Candidate{Rego: v1alpha1.RegoSource{Package: "countersign.mine", Modules: modules(allowing+"# next\n", "mine_test.rego", passing)}}
	first := newLoading(t, tested)
	want, _ := first.loads(t, "p")
	if len(want.Tested) != 2 {
		t.Fatalf("got %+v", want.Tested)
	}
	for _, tc := range []struct {
		name   string
		change func(*v1alpha1.ApprovalPolicy)
		tests  bool
	}{
		{"the same source", func(*v1alpha1.ApprovalPolicy) {}, false},
		{"other signers", func(p *v1alpha1.ApprovalPolicy) { p.Spec.Match.SignerNames = []string{"example.com/other"} }, false},
		{"the candidate is promoted", func(p *v1alpha1.ApprovalPolicy) {
			p.Spec.Rego, p.Spec.Candidate = p.Spec.Candidate.Rego, nil
		}, false},
		{"another test", func(p *v1alpha1.ApprovalPolicy) { p.Spec.Rego.Modules["mine_test.rego"] += "# changed\n" }, true},
		{"other coverage", func(p *v1alpha1.ApprovalPolicy) { p.Spec.MinCoverage = 21 }, true},
		{"other parameters", func(p *v1alpha1.ApprovalPolicy) { p.Spec.Parameters = &apiextensionsv1.JSON{Raw: []byte(`{"a": 1}`)} }, true},
		{"without the status", func(p *v1alpha1.ApprovalPolicy) { p.Status.Tested = nil }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			object := tested.DeepCopy()
			object.Status = *want.DeepCopy()
			tc.change(object)
			object.ResourceVersion = ""
			l := newLoading(t, object)
			started := false
			l.start = func(func()) { started = true }
			if _, err := l.Reconcile(t.Context(), reconcile.Request{}); err != nil {
				t.Fatal(err)
			}
			if started != tc.tests {
				t.Errorf("tested: %v, want %v", started, tc.tests)
			}
			if tc.tests {
				return
			}
			if tested.Spec.Rego.Modules["mine.rego"] != object.Spec.Rego.Modules["mine.rego"] {
				return
			}
			if diff := cmp.Diff(want, l.get(t, "p").Status, cmpopts.IgnoreFields(metav1.Condition{}, "LastTransitionTime")); diff != "" {
				t.Errorf("status (-before +after the restart):\n%s", diff)
			}
		})
	}
}

// TestShippedPolicyIsNotTested: the tests of a shipped policy run when Countersign is built.
func TestShippedPolicyIsNotTested(t *testing.T) {
	object := &v1alpha1.ApprovalPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u"}, Spec: v1alpha1.ApprovalPolicySpec{
		Rego: v1alpha1.RegoSource{Builtin: "spiffe"}, MinCoverage: 100,
		Parameters: &apiextensionsv1.JSON{Raw: []byte(`{"trustDomain": "example.org", "maxExpirationSeconds": 3600, "defaultExpirationSeconds": 3600}`)},
	}}
	l := newLoading(t, object)
	l.start = func(func()) { t.Error("the tests ran") }
	if _, conditions := l.loads(t, "p"); !slices.Equal(conditions, []string{"Compiled True Compiled", "TestsPassed True TestsPassed", "Ready True PolicyLoaded"}) {
		t.Errorf("got %v: %+v", conditions, l.get(t, "p").Status)
	}
}

// TestExpensivePolicyIsTakenOut: a policy whose evaluations exceed their limits is not evaluated, its requests
// stay pending, and its status says so, also after a restart. It comes back when its spec changes.
func TestExpensivePolicyIsTakenOut(t *testing.T) {
	endless := strings.Replace(allowing, "subject_is_authorized := true", "subject_is_authorized if {\n\tsome a in numbers.range(1, 10000)\n\tsome b in numbers.range(1, 10000)\n\tsome c in numbers.range(1, 10000)\n\ta + b + c == -1\n}", 1)
	object := policyOf("p", modules(endless))
	object.Generation = 1
	l := newLoading(t, object)
	l.loads(t, "p")
	active := l.policies.Matching("example.com/p")[0].Active
	for deadline := time.Now().Add(time.Minute); !active.TooExpensive() && time.Now().Before(deadline); {
		if _, err := active.Evaluate(t.Context(), evaluator.NewInput(&facts.Facts{})); err == nil {
			t.Fatal("want an error")
		}
	}
	want := []string{"Compiled True Compiled", "TestsPassed Unknown NoTests", "Ready False EvaluationTooExpensive"}
	check := func(step string, l *loading) {
		t.Helper()
		status, conditions := l.loads(t, "p")
		if diff := cmp.Diff(want, conditions); diff != "" || status.Revision != "" || !slices.Equal(l.decides("example.com/p"), []string{""}) {
			t.Errorf("%s: decides by %v, %s%+v", step, l.decides("example.com/p"), diff, status)
		}
	}
	check("taken out", l)
	check("at the next reconciliation", l)
	restarted := l.get(t, "p")
	restarted.ResourceVersion = ""
	l = newLoading(t, restarted)
	check("after a restart", l)
	l.change(t, func(spec *v1alpha1.ApprovalPolicySpec) { spec.Rego.Modules = modules(allowing) })
	changed := l.get(t, "p")
	changed.Generation = 2
	if err := l.client.Update(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	if status, conditions := l.loads(t, "p"); conditions[2] != "Ready True PolicyLoaded" || status.Revision == "" {
		t.Errorf("changed: %v", conditions)
	}
}

// TestTooManySources: the latest policies beyond the limit are not loaded.
func TestTooManySources(t *testing.T) {
	var objects []client.Object
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i := range policy.MaxSources + 1 {
		p := policyOf(fmt.Sprintf("p%02d", i), modules(fmt.Sprintf("# %d\n%s", i, allowing)))
		p.UID, p.CreationTimestamp = types.UID(p.Name), metav1.NewTime(created.Add(-time.Duration(i)*time.Minute))
		objects = append(objects, p)
	}
	l := newLoading(t, objects...)
	l.start = func(func()) {} // none is loaded
	if _, conditions := l.loads(t, "p00"); conditions[0] != "Compiled False TooManySources" || l.decides("example.com/p00")[0] != "" {
		t.Errorf("the latest policy: %v", conditions)
	}
	if _, conditions := l.loads(t, "p01"); !slices.Equal(conditions, []string{"Ready False Loading"}) {
		t.Errorf("an older policy: %v", conditions)
	}
}

// TestPolicyEvents: an Event says once what is missing.
func TestPolicyEvents(t *testing.T) {
	missing := &v1alpha1.ApprovalPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u"}, Spec: v1alpha1.ApprovalPolicySpec{
		Rego: v1alpha1.RegoSource{Package: "x", ConfigMapRef: &v1alpha1.LocalObjectReference{Name: "no-such"}},
	}}
	l := newLoading(t, missing)
	l.loads(t, "p")
	l.loads(t, "p")
	var got []string
	for len(l.emitted.Events) > 0 {
		got = append(got, <-l.emitted.Events)
	}
	want := []string{
		"Warning SourceNotFound ConfigMap countersign-system/no-such does not exist: create it, or name another in spec.rego.configMapRef",
		"Warning NotLoaded requests that the policy matches stay pending",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestLastGoodRevision: while the source in the spec is not usable, the revision before
// decides for the signers and namespaces that it was loaded for, and for no others.
func TestLastGoodRevision(t *testing.T) {
	l := newLoading(t, policyOf("p", modules(allowing)))
	status, _ := l.loads(t, "p")
	good := status.Revision
	broken := modules("package countersign.mine\n\nimport rego.v2\n\nsubject_controls_key if {\n")
	l.change(t, func(spec *v1alpha1.ApprovalPolicySpec) { spec.Rego.Modules = broken })
	status, conditions := l.loads(t, "p")
	if status.Revision != good || conditions[2] != "Ready True LastGoodActive" || !slices.Equal(l.decides("example.com/p"), []string{good}) {
		t.Errorf("%q, %v, decides by %v", status.Revision, conditions, l.decides("example.com/p"))
	}
	l.change(t, func(spec *v1alpha1.ApprovalPolicySpec) {
		spec.Match.SignerNames = []string{"example.com/p", "example.com/prod"}
	})
	if l.loads(t, "p"); !slices.Equal(l.decides("example.com/p"), []string{good}) || !slices.Equal(l.decides("example.com/prod"), []string{""}) {
		t.Errorf("p by %v, prod by %v", l.decides("example.com/p"), l.decides("example.com/prod"))
	}
	l.change(t, func(spec *v1alpha1.ApprovalPolicySpec) {
		spec.Match.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "blue"}}
	})
	if l.loads(t, "p"); !slices.Equal(l.decides("example.com/p"), []string{""}) {
		t.Errorf("for namespaces it was not loaded for: %v", l.decides("example.com/p"))
	}
	l.change(t, func(spec *v1alpha1.ApprovalPolicySpec) { spec.Rego.Modules = modules(allowing + "# fixed\n") })
	status, _ = l.loads(t, "p")
	if status.Revision == good || !slices.Equal(l.decides("example.com/prod"), []string{status.Revision}) {
		t.Errorf("fixed: %q, decides by %v", status.Revision, l.decides("example.com/prod"))
	}
	l.change(t, func(spec *v1alpha1.ApprovalPolicySpec) { spec.Mode = v1alpha1.ModeDisabled })
	if l.loads(t, "p"); len(l.decides("example.com/p")) > 0 {
		t.Errorf("disabled, and decides by %v", l.decides("example.com/p"))
	}
}

func TestCandidateStatus(t *testing.T) {
	policy := policyOf("p", modules(allowing))
	policy.Spec.Candidate = &v1alpha1.Candidate{Rego: v1alpha1.RegoSource{Package: "countersign.mine", Modules: modules(denying)}}
	l := newLoading(t, policy)
	status, _ := l.loads(t, "p")
	candidate := status.Candidate
	if candidate == nil || candidate.Revision == "" || candidate.Revision == status.Revision || candidate.Message != "" || candidate.Evaluations != 0 {
		t.Fatalf("got %+v", candidate)
	}
	l.status.comparison.count(policy.UID, candidate.Revision, &v1alpha1.Disagreement{Request: "web", Active: "allow", Candidate: "deny"})
	l.status.comparison.count(policy.UID, candidate.Revision, nil)
	if status, _ = l.loads(t, "p"); status.Candidate.Evaluations != 2 || status.Candidate.Disagreements != 1 || len(status.Candidate.Samples) != 1 {
		t.Errorf("got %+v", status.Candidate)
	}
	l.status.comparison = newComparison() // another approver leads, and goes on from there
	l.loads(t, "p")
	l.status.comparison.count(policy.UID, candidate.Revision, nil)
	if status, _ = l.loads(t, "p"); status.Candidate.Evaluations != 3 || status.Candidate.Disagreements != 1 {
		t.Errorf("after a change of leader: %+v", status.Candidate)
	}
	l.change(t, func(spec *v1alpha1.ApprovalPolicySpec) { spec.Candidate.Rego.Modules = modules("package x") })
	if status, _ = l.loads(t, "p"); status.Candidate.Revision != "" || !strings.HasPrefix(status.Candidate.Message, "InvalidRego: ") || status.Revision == "" {
		t.Errorf("a broken candidate: %+v", status.Candidate)
	}
	l.change(t, func(spec *v1alpha1.ApprovalPolicySpec) {
		spec.Rego.Modules, spec.Candidate.Rego.Modules = modules(denying), modules(denying)
	})
	if status, _ = l.loads(t, "p"); status.Revision != candidate.Revision || status.Candidate.Message != "the candidate is the active revision; there is nothing to compare" {
		t.Errorf("promoted: %q, %+v", status.Revision, status.Candidate)
	}
}

// TestReplicaStatus: in a cluster, the entries of Pods that do not exist are removed.
func TestReplicaStatus(t *testing.T) {
	policy := policyOf("p", modules(allowing))
	policy.Status.Replicas = []v1alpha1.ReplicaStatus{{Name: "approver-b", Revision: "1"}, {Name: "approver-gone", Revision: "1"}}
	pod := func(name string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "countersign-system", Name: name}}
	}
	l := newLoading(t, policy, pod("approver-a"), pod("approver-b"))
	status, _ := l.loads(t, "p")
	if want := []v1alpha1.ReplicaStatus{{Name: "approver-a", Revision: status.Revision}, {Name: "approver-b", Revision: "1"}}; !slices.Equal(status.Replicas, want) {
		t.Errorf("got %+v, want %+v", status.Replicas, want)
	}
}

// TestRequeueOnlyOnChange: pending requests are requeued only if they can be decided
// differently. A new candidate, for example, requeues nothing.
func TestRequeueOnlyOnChange(t *testing.T) {
	policy := policyOf("p", modules(allowing))
	l := newLoading(t, policy)
	taken := 0
	l.changed = func(context.Context) error { taken++; return nil }
	for i, step := range []struct {
		change func(*v1alpha1.ApprovalPolicySpec)
		taken  int
	}{
		{func(*v1alpha1.ApprovalPolicySpec) {}, 2},
		{func(*v1alpha1.ApprovalPolicySpec) {}, 2},
		{func(s *v1alpha1.ApprovalPolicySpec) {
			s.Candidate = &v1alpha1.Candidate{Rego: v1alpha1.RegoSource{Package: "countersign.mine", Modules: modules(denying)}}
		}, 2},
		{func(s *v1alpha1.ApprovalPolicySpec) { s.Rego.Modules = modules(allowing, "mine_test.rego", passing) }, 2},
		{func(s *v1alpha1.ApprovalPolicySpec) { s.Rego.Modules = modules(denying) }, 3},
		{func(s *v1alpha1.ApprovalPolicySpec) { s.HoldFor = &metav1.Duration{Duration: time.Minute} }, 4},
		{func(s *v1alpha1.ApprovalPolicySpec) { s.Mode = v1alpha1.ModeAudit }, 5},
		{func(s *v1alpha1.ApprovalPolicySpec) {
			s.Match.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
		}, 6},
	} {
		l.change(t, step.change)
		if l.loads(t, "p"); taken != step.taken {
			t.Errorf("after step %d: %d times, want %d", i, taken, step.taken)
		}
	}
}

// TestLoadsInTurn: a policy is loaded although the author of a smaller one changes that again and again.
func TestLoadsInTurn(t *testing.T) {
	honest := policyOf("honest", modules(allowing+strings.Repeat("# filler\n", 100)))
	honest.UID = "honest"
	l := newLoading(t, honest, policyOf("p", modules(allowing)))
	var load func()
	l.start = func(f func()) { load = f }
	for i := range 3 {
		if _, err := l.Reconcile(t.Context(), reconcile.Request{}); err != nil {
			t.Fatal(err)
		}
		l.change(t, func(spec *v1alpha1.ApprovalPolicySpec) {
			spec.Rego.Modules = modules(allowing + fmt.Sprintf("# %d\n", i))
		})
		load()
	}
	if got := l.decides("example.com/honest"); len(got) != 1 || got[0] == "" {
		t.Errorf("the honest policy is not loaded: %q", got)
	}
}
