// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver"
	"countersign.dev/countersign/approver/policy"
	"countersign.dev/countersign/policies"
)

const (
	regoHeader = "package countersign.mine\n\nimport rego.v2\n\n"
	allowing   = regoHeader + "subject_controls_key := true\n\nsubject_is_authorized := true\n\nviolations contains v if some v in []\n"
	// misspelt has an error in row 5 and in row 7.
	misspelt = regoHeader + "subject_controls_key if input.requester.usrname == \"x\"\n\nsubject_is_authorized if input.nwo == \"x\"\n\nviolations contains v if some v in []\n"
	passing  = testHeader + "test_it if mine.subject_controls_key\n"
	// testHeader begins a module of tests.
	testHeader = "package countersign.mine_test\n\nimport rego.v2\n\nimport data.countersign.mine\n\n"
	// half has a rule that passing does not reach.
	half = allowing + "\nunused if input.now == \"x\"\n"
)

func policyWith(change func(*v1alpha1.ApprovalPolicySpec)) *v1alpha1.ApprovalPolicy {
	p := &v1alpha1.ApprovalPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: "countersign.dev/v1alpha1", Kind: "ApprovalPolicy"},
		ObjectMeta: metav1.ObjectMeta{Name: "mine", Generation: 1},
		Spec: v1alpha1.ApprovalPolicySpec{
			Match: v1alpha1.ApprovalPolicyMatch{SignerNames: []string{"example.com/serving"}},
			Rego:  v1alpha1.RegoSource{Package: "countersign.mine", Modules: map[string]string{"mine.rego": allowing}},
			Mode:  v1alpha1.ModeEnforce,
		},
	}
	if change != nil {
		change(&p.Spec)
	}
	return p
}

func source(modules ...string) v1alpha1.RegoSource {
	rego := v1alpha1.RegoSource{Package: "countersign.mine", Modules: map[string]string{}}
	for i := 0; i < len(modules); i += 2 {
		rego.Modules[modules[i]] = modules[i+1]
	}
	return rego
}

func fromConfigMap(name string) v1alpha1.RegoSource {
	return v1alpha1.RegoSource{Package: "countersign.mine", ConfigMapRef: &v1alpha1.LocalObjectReference{Name: name}}
}

// shop is a cluster with a Signer, a namespace and a ConfigMap, and a policyHandler in it. away are
// the kinds that cannot be read.
func shop(t *testing.T, granted grants, away string) *policyHandler {
	t.Helper()
	scheme := newScheme(t)
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(
		&v1alpha1.Signer{ObjectMeta: metav1.ObjectMeta{Name: "serving"}, Spec: v1alpha1.SignerSpec{SignerName: "example.com/serving"}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "blue", Labels: map[string]string{"team": "blue"}}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "countersign-system", Name: "mine-rego"}, Data: map[string]string{"mine.rego": allowing}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "countersign-system", Name: "misspelt-rego"}, Data: map[string]string{"mine.rego": misspelt}},
	).WithInterceptorFuncs(interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			if _, ok := object.(*corev1.ConfigMap); ok && strings.Contains(away, "ConfigMap") {
				return errors.New("connection refused")
			}
			return c.Get(ctx, key, object, options...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			if _, policies := list.(*v1alpha1.ApprovalPolicyList); away == "all" && !policies {
				return errors.New("connection refused")
			}
			return c.List(ctx, list, options...)
		},
	}).Build()
	return &policyHandler{
		decoder: admission.NewDecoder(scheme), loader: policy.Loader{Reader: c, Namespace: "countersign-system"},
		cached: cachedReader(t, c), live: c, access: granted.access(nil), approver: userOf("system:serviceaccount:countersign-system:countersign-approver"),
	}
}

// cachedReader reads objects as the cache has them.
func cachedReader(t *testing.T, c client.WithWatch) client.Reader {
	t.Helper()
	byObject := approver.CacheOptions("countersign-system", &policy.Set{}).ByObject
	return interceptor.NewClient(c, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			o := (&client.ListOptions{}).ApplyOptions(options)
			if o.LabelSelector != nil && !o.LabelSelector.Empty() {
				return nil // no cached object has labels
			}
			if err := c.List(ctx, list, options...); err != nil {
				return err
			}
			return meta.EachListItem(list, func(object runtime.Object) error {
				for kind, by := range byObject {
					if reflect.TypeOf(kind) == reflect.TypeOf(object) && by.Transform != nil {
						if _, err := by.Transform(object); err != nil {
							return err
						}
					}
				}
				return nil
			})
		},
	})
}

// TestApprovalPolicyTooLargeTogether: the policies that the caches hold are bounded together.
func TestApprovalPolicyTooLargeTogether(t *testing.T) {
	h := shop(t, grants{}, "")
	c, ok := h.live.(client.Client)
	if !ok {
		t.Fatal("not a client")
	}
	filler := func(name string, size int) *v1alpha1.ApprovalPolicy {
		p := &v1alpha1.ApprovalPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
		p.Spec.Match.SignerNames = []string{"example.com/serving"}
		p.Spec.Mode = v1alpha1.ModeDisabled
		p.Spec.Rego = source("mine.rego", allowing, "mine_test.rego", strings.Repeat("#", size))
		return p
	}
	const size = 250 << 10
	total := policy.CachedSize(filler("last", 0))
	for i := 0; ; i++ {
		p := filler(fmt.Sprint("filler-", i), size)
		if left := policy.MaxCached - total; left < policy.CachedSize(p) { // fill up to the byte
			p = filler(p.Name, left-policy.CachedSize(filler("", 0)))
			if err := c.Create(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			break
		}
		total += policy.CachedSize(p)
		if err := c.Create(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name        string
		old, object *v1alpha1.ApprovalPolicy
		want        bool
	}{
		{"at the limit", &v1alpha1.ApprovalPolicy{}, filler("last", 0), true},
		{"a byte more", &v1alpha1.ApprovalPolicy{}, filler("last", 1), false},
		{"a policy that shrinks beyond the limit", filler("last", 100), filler("last", 99), true},
		{"a policy that grows beyond the limit", filler("last", 99), filler("last", 100), false},
	} {
		cause, err := h.tooLarge(t.Context(), tc.old, tc.object)
		if err != nil || (cause == nil) != tc.want {
			t.Errorf("%s: %+v %v", tc.name, cause, err)
		}
	}
}

func TestApprovalPolicy(t *testing.T) {
	granted := grants{"approve example.com/serving": yes}
	const (
		fixRego = "spec.rego: fix: correct these lines and apply again; docs/input.md lists the fields of input"
		line5   = "mine.rego:5:25: rego_type_error: undefined ref: input.requester.usrname; there are: credentialID, groups, node, pod, serviceAccount, uid, username"
		line7   = "mine.rego:7:26: rego_type_error: undefined ref: input.nwo; there are: cluster, now, parameters, pkcs10, request, requester"
	)
	refused := func(lines ...string) answer {
		return answer{Code: 422, Reason: metav1.StatusReasonInvalid, Message: strings.Join(lines, "\n")}
	}
	for _, tc := range []struct {
		name   string
		change func(*v1alpha1.ApprovalPolicySpec)
		grants grants
		away   string
		want   answer
	}{
		{name: "a valid policy", grants: granted, want: answer{Allowed: true}},
		{name: "from a ConfigMap", change: func(s *v1alpha1.ApprovalPolicySpec) { s.Rego = fromConfigMap("mine-rego") }, grants: granted, want: answer{Allowed: true}},
		{name: "with a candidate", change: func(s *v1alpha1.ApprovalPolicySpec) {
			s.Candidate = &v1alpha1.Candidate{Rego: fromConfigMap("mine-rego")}
		}, grants: granted, want: answer{Allowed: true}},
		{name: "with a namespace", change: selecting("team", "blue"), grants: granted, want: answer{Allowed: true}},
		{name: "granted on the wildcard of the domain", grants: grants{"approve example.com/*": yes}, want: answer{Allowed: true}},
		{
			name: "of kubernetes.io",
			change: func(s *v1alpha1.ApprovalPolicySpec) {
				s.Match.SignerNames = []string{"kubernetes.io/kubelet-serving"}
			}, grants: grants{"approve kubernetes.io/kubelet-serving": yes}, want: answer{Allowed: true},
		},
		{
			name:   "for a domain",
			change: func(s *v1alpha1.ApprovalPolicySpec) { s.Match.SignerNames = []string{"example.com/*"} },
			grants: grants{"approve example.com/*": yes}, want: answer{Allowed: true},
		},

		{
			name:   "two errors",
			change: func(s *v1alpha1.ApprovalPolicySpec) { s.Rego = source("mine.rego", misspelt) }, grants: granted,
			want: refused("spec.rego: "+line5, "spec.rego: "+line7, fixRego),
		},
		{
			name:   "two errors in a ConfigMap",
			change: func(s *v1alpha1.ApprovalPolicySpec) { s.Rego = fromConfigMap("misspelt-rego") }, grants: granted,
			want: refused("spec.rego: "+line5, "spec.rego: "+line7, fixRego),
		},
		{
			name: "a lint error",
			change: func(s *v1alpha1.ApprovalPolicySpec) {
				s.Rego = source("mine.rego", strings.Replace(allowing, "import rego.v2", "import rego.v1", 1))
			}, grants: granted,
			want: refused("spec.rego: mine.rego:1:1: add `import rego.v2` below the package: without it, `not` over an undefined reference does not hold", fixRego),
		},
		{
			name: "a candidate with errors",
			change: func(s *v1alpha1.ApprovalPolicySpec) {
				s.Candidate = &v1alpha1.Candidate{Rego: fromConfigMap("misspelt-rego")}
			}, grants: granted,
			want: refused("spec.candidate.rego: "+line5, "spec.candidate.rego: "+line7, strings.Replace(fixRego, "spec.rego", "spec.candidate.rego", 1)),
		},
		{
			name: "a failing test",
			change: func(s *v1alpha1.ApprovalPolicySpec) {
				s.Rego = source("mine.rego", allowing, "mine_test.rego", testHeader+"test_it if not mine.subject_controls_key\n")
			}, grants: granted,
			want: refused("spec.rego: mine_test.rego:7:1: test_it fails", "spec.rego: fix: correct the policy, or the tests that expect otherwise"),
		},
		{
			name: "coverage too low",
			change: func(s *v1alpha1.ApprovalPolicySpec) {
				s.Rego, s.MinCoverage = source("mine.rego", half, "mine_test.rego", passing), 90
			}, grants: granted,
			want: refused("spec.minCoverage: the tests cover 25% of the policy, spec.minCoverage is 90: add tests for mine.rego:7, mine.rego:9, mine.rego:11"),
		},
		{
			name:   "no tests, and minCoverage requires some",
			change: func(s *v1alpha1.ApprovalPolicySpec) { s.MinCoverage = 1 }, grants: granted,
			want: refused("spec.minCoverage: the tests cover 0% of the policy, spec.minCoverage is 1: add _test.rego files"),
		},
		{
			name:   "parameters that are not an object",
			change: func(s *v1alpha1.ApprovalPolicySpec) { s.Parameters = &apiextensionsv1.JSON{Raw: []byte("[1]")} }, grants: granted,
			want: refused("spec.rego: spec.parameters must be an object: json: cannot unmarshal array into Go value of type map[string]interface {}"),
		},
		{
			name: "parameters that do not match their schema",
			change: func(s *v1alpha1.ApprovalPolicySpec) {
				s.Rego = source("mine.rego", allowing, "parameters.schema.json", `{"type": "object", "properties": {"max": {"type": "integer"}}, "additionalProperties": false}`)
				s.Parameters = &apiextensionsv1.JSON{Raw: []byte(`{"max": "1"}`)}
			}, grants: granted,
			want: refused("spec.parameters: max: Invalid type. Expected: integer, given: string", "spec.parameters: fix: set spec.parameters as the policy's parameters.schema.json requires"),
		},
		{
			name:   "an unknown builtin",
			change: func(s *v1alpha1.ApprovalPolicySpec) { s.Rego = v1alpha1.RegoSource{Builtin: "no-such"} }, grants: granted,
			want: refused("spec.rego: spec.rego.builtin: unknown policy \"no-such\". Use one of: " + strings.Join(policies.Builtins(), ", ")),
		},
		{
			name: "an invalid selector",
			change: func(s *v1alpha1.ApprovalPolicySpec) {
				s.Match.NamespaceSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "team", Operator: "Near"}}}
			}, grants: granted,
			want: refused("spec.rego: spec.match.namespaceSelector is invalid: \"Near\" is not a valid label selector operator"),
		},

		{
			name:   "a ConfigMap that does not exist yet",
			change: func(s *v1alpha1.ApprovalPolicySpec) { s.Rego = fromConfigMap("later") }, grants: granted,
			want: answer{Allowed: true, Warnings: []string{"ConfigMap countersign-system/later does not exist: create it, or name another in spec.rego.configMapRef; the policy cannot be used until then"}},
		},
		{
			name:   "a candidate's ConfigMap that does not exist yet",
			change: func(s *v1alpha1.ApprovalPolicySpec) { s.Candidate = &v1alpha1.Candidate{Rego: fromConfigMap("later")} }, grants: granted,
			want: answer{Allowed: true, Warnings: []string{"ConfigMap countersign-system/later does not exist: create it, or name another in spec.candidate.rego.configMapRef; the policy cannot be used until then"}},
		},
		{
			name: "a ConfigMap that does not exist yet, and a candidate with errors",
			change: func(s *v1alpha1.ApprovalPolicySpec) {
				s.Rego, s.Candidate = fromConfigMap("later"), &v1alpha1.Candidate{Rego: source("mine.rego", "package countersign.mine\n\nimport rego.v2\n\nx := y\n")}
			}, grants: granted,
			want: answer{
				Code: 422, Reason: metav1.StatusReasonInvalid, Message: "spec.candidate.rego: mine.rego:5:6: rego_unsafe_var_error: var y is unsafe\n" + strings.Replace(fixRego, "spec.rego", "spec.candidate.rego", 1),
				Warnings: []string{"ConfigMap countersign-system/later does not exist: create it, or name another in spec.rego.configMapRef; the policy cannot be used until then"},
			},
		},
		{
			name:   "disabled",
			change: func(s *v1alpha1.ApprovalPolicySpec) { s.Mode = v1alpha1.ModeDisabled }, grants: grants{},
			want: answer{Allowed: true, Warnings: []string{"spec.mode is Disabled: the policy is not evaluated"}},
		},
		{
			name:   "no namespace is selected",
			change: selecting("team", "red"), grants: granted,
			want: answer{Allowed: true, Warnings: []string{"spec.match.namespaceSelector selects no existing namespace: the policy decides nothing until one matches"}},
		},
		{
			name: "no Signer, and no grant",
			change: func(s *v1alpha1.ApprovalPolicySpec) {
				s.Match.SignerNames = []string{"example.org/*", "example.com/serving"}
			}, grants: granted,
			want: answer{Allowed: true, Warnings: []string{
				"no Signer has signerName example.org/*: Countersign issues no certificates for approved requests until one does",
				"system:serviceaccount:countersign-system:countersign-approver is not allowed to approve on signer example.org/*: grant it in grants.yaml",
			}},
		},
		{
			name:   "a shadow policy without a grant",
			change: func(s *v1alpha1.ApprovalPolicySpec) { s.Mode = v1alpha1.ModeAudit }, grants: grants{}, want: answer{Allowed: true},
		},

		{name: "authorizer not reachable", away: "", grants: nil, want: answer{Allowed: true}},
		{
			name:   "Signers and Namespaces cannot be listed",
			change: selecting("team", "red"), grants: granted, away: "all", want: answer{Allowed: true},
		},
		{
			name:   "the ConfigMap cannot be read",
			change: func(s *v1alpha1.ApprovalPolicySpec) { s.Rego = fromConfigMap("mine-rego") }, grants: granted, away: "ConfigMap",
			want: answer{Code: 500, Message: "reading ConfigMap countersign-system/mine-rego: connection refused"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := shop(t, tc.grants, tc.away)
			got := h.Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
				Operation: admissionv1.Create, Object: raw(t, policyWith(tc.change)),
			}})
			check(t, tc.want, got)
			if got.Result.Code == 422 {
				want := metav1.StatusDetails{Group: "countersign.dev", Kind: "ApprovalPolicy", Name: "mine"}
				for line := range strings.SplitSeq(got.Result.Message, "\n") {
					field, message, _ := strings.Cut(line, ": ")
					want.Causes = append(want.Causes, metav1.StatusCause{Type: metav1.CauseTypeFieldValueInvalid, Field: field, Message: message})
				}
				if diff := cmp.Diff(&want, got.Result.Details); diff != "" {
					t.Errorf("details, which kubectl shows (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func selecting(key, value string) func(*v1alpha1.ApprovalPolicySpec) {
	return func(s *v1alpha1.ApprovalPolicySpec) {
		s.Match.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
	}
}

// TestApprovalPolicyUnchangedSpec: labels and finalizers of a policy with errors can be changed.
func TestApprovalPolicyUnchangedSpec(t *testing.T) {
	broken := func(s *v1alpha1.ApprovalPolicySpec) { s.Rego = source("mine.rego", misspelt) }
	labelled, deleting := policyWith(broken), policyWith(broken)
	labelled.Labels = map[string]string{"team": "blue"}
	deleting.DeletionTimestamp = new(metav1.Now())
	for _, tc := range []struct {
		name     string
		old, now *v1alpha1.ApprovalPolicy
		code     int32
	}{
		{"another label", policyWith(broken), labelled, 200},
		{"it is being deleted", policyWith(nil), deleting, 200},
		{"another spec", policyWith(nil), policyWith(broken), 422},
		{"a fix", policyWith(broken), policyWith(nil), 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := shop(t, grants{"approve example.com/serving": yes}, "").Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
				Operation: admissionv1.Update, Object: raw(t, tc.now), OldObject: raw(t, tc.old),
			}})
			if got.Result.Code != tc.code {
				t.Errorf("code %d, want %d: %s", got.Result.Code, tc.code, got.Result.Message)
			}
		})
	}
}

func TestApprovalPolicyInvalidObject(t *testing.T) {
	got := shop(t, nil, "").Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: []byte("{")},
	}})
	if got.Allowed || got.Result.Code != 500 {
		t.Errorf("%+v", got)
	}
}

// TestApprovalPolicyApprover: not who makes the policy.
func TestApprovalPolicyApprover(t *testing.T) {
	h := shop(t, nil, "")
	var asked []authorizationv1.SubjectAccessReviewSpec
	h.access = grants{"approve example.com/serving": yes}.access(&asked)
	h.Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{Operation: admissionv1.Create, Object: raw(t, policyWith(nil))}})
	if len(asked) != 1 || asked[0].User != "system:serviceaccount:countersign-system:countersign-approver" {
		t.Errorf("asked about %+v", asked)
	}
}
