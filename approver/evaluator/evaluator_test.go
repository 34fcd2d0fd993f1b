// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package evaluator_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/policies"
)

const header = "package countersign.mine\n\nimport rego.v2\n\n"

// allow is a policy that allows everything.
const allow = header + `subject_controls_key := true

subject_is_authorized := true

violations contains v if some v in []
`

func source(text string) evaluator.Source {
	return evaluator.Source{Package: "countersign.mine", Modules: map[string]string{"mine.rego": text}}
}

// withParameters is a policy with a schema of its parameters.
func withParameters(schema string, parameters map[string]any, condition ...string) evaluator.Source {
	text := allow
	if condition != nil {
		text = strings.Replace(allow, "subject_is_authorized := true", "subject_is_authorized if "+condition[0], 1)
	}
	s := source(text)
	s.Modules[evaluator.ParametersSchemaFile], s.Parameters = schema, parameters
	return s
}

func compile(t *testing.T, s evaluator.Source) *evaluator.Policy {
	t.Helper()
	p, err := evaluator.Compile(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCompileErrors(t *testing.T) {
	for _, tc := range []struct {
		name   string
		source evaluator.Source
		want   string
	}{
		{"a syntax error", source(header + "subject_controls_key if {\n"), "mine.rego:6:1: rego_parse_error: unexpected eof token"},
		{
			"a misspelt field of input",
			source(strings.Replace(allow, "subject_controls_key := true", `subject_controls_key if input.requester.usrname == "x"`, 1)),
			"mine.rego:5:25: rego_type_error: undefined ref: input.requester.usrname",
		},
		{
			"no import rego.v2",
			source(strings.Replace(allow, "import rego.v2", "import rego.v1", 1)),
			"mine.rego:1:1: add `import rego.v2` below the package",
		},
		{
			"with",
			source(allow + "\nhelper if data.countersign.mine.subject_controls_key with input as {}\n"),
			"mine.rego:11:54: `with` replaces the facts that a policy evaluates: it is allowed in _test.rego files only",
		},
		{
			"!= on input",
			source(strings.Replace(allow, "subject_is_authorized := true", `subject_is_authorized if input.requester.username != "mallory"`, 1)),
			"mine.rego:7:26: `!=` is undefined if an operand is missing, such as a field of input, so the condition does not hold: write `not … == …`",
		},
		{
			"a default of true",
			source(strings.Replace(allow, "subject_is_authorized := true", "default subject_is_authorized := true", 1)),
			"mine.rego:7:1: a default of true allows every case that the policy does not handle",
		},
		{
			"a violation without a message",
			source(strings.Replace(allow, "violations contains v if some v in []", `violations contains {"requirement": 2, "id": "no"} if true`, 1)),
			"mine.rego:9:21: the violation has no message: it needs requirement (1 or 2), id and message",
		},
		{
			"a violation without an id, assigned in the body",
			source(strings.Replace(allow, "violations contains v if some v in []", `violations contains v if v := {"requirement": 2, "message": "no"}`, 1)),
			"mine.rego:9:21: the violation has no id",
		},
		{
			"a third requirement",
			source(strings.Replace(allow, "violations contains v if some v in []", `violations contains {"requirement": 3, "id": "no", "message": "no"} if true`, 1)),
			"mine.rego:9:21: requirement must be 1 (the subject controls the key) or 2 (the subject is authorized)",
		},
		{
			"a field of a violation that is misspelt",
			source(strings.Replace(allow, "violations contains v if some v in []", `violations contains {"requirement": 2, "id": "no", "message": "no", "retriable": true} if true`, 1)),
			`mine.rego:9:21: a violation has no field "retriable": it has requirement, id, message, value and retryable`,
		},
		{
			"a violation that is a text",
			source(strings.Replace(allow, "violations contains v if some v in []", `violations contains "no" if true`, 1)),
			"mine.rego:9:21: a violation is an object with requirement, id and message, and can have value and retryable",
		},
		{
			"a rule that is a function",
			source(strings.Replace(allow, "subject_is_authorized := true", "subject_is_authorized(x) if x == 1", 1)),
			"mine.rego:7:1: subject_is_authorized is a function: write it as a rule, without arguments",
		},
		{
			"applies is a function",
			source(allow + "\napplies(x) if x == 1\n"),
			"mine.rego:11:1: applies is a function: write it as a rule, without arguments",
		},
		{
			"a file of another kind",
			evaluator.Source{Package: "countersign.mine", Modules: map[string]string{"mine.rego": allow, "README.md": "read me"}},
			"README.md:1:1: unexpected file: a policy can contain files that end in .rego, and parameters.schema.json",
		},
		{"an invalid parameters schema", withParameters("{", nil), "parameters.schema.json:1:1: the file is not a JSON object: "},
		{"a schema of parameters of another type", withParameters(`{"type": "array"}`, nil), `parameters.schema.json:1:1: parameters must be an object: set "type": "object"`},
		{"a schema of parameters that is wrong", withParameters(`{"type": "object", "required": 7}`, nil), "parameters.schema.json:1:1: the file is not a JSON Schema"},
		{
			"a schema of parameters on a server",
			withParameters(`{"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1/x"}}}`, nil),
			`parameters.schema.json:1:1: $ref refers to another schema, which is not loaded: write the schema in its place`,
		},
		{
			"a schema of parameters relative to a server",
			withParameters(`{"$id": "http://127.0.0.1/x#z", "type": "object", "properties": {"x": {"$ref": "#foo"}}}`, nil),
			`parameters.schema.json:1:1: $id refers to another schema, which is not loaded: write the schema in its place`,
		},
		{
			"!= on what an import names",
			source(strings.Replace(strings.Replace(allow, "import rego.v2", "import rego.v2\n\nimport input.parameters as p", 1), "subject_is_authorized := true", `subject_is_authorized if p.mode != "x"`, 1)),
			"mine.rego:9:26: `!=` is undefined",
		},
		{
			"a package of the library",
			evaluator.Source{Package: "countersign.mine", Modules: map[string]string{"mine.rego": allow, "key.rego": "package countersign.lib.key\n\nimport rego.v2\n\nis_later(_) if true\n"}},
			"key.rego:1:1: the library uses this package: choose another",
		},
		{
			"a parameter of another type",
			withParameters(`{"type": "object", "properties": {"team": {"type": "string"}}}`, map[string]any{"team": 7}),
			"spec.parameters: team: Invalid type. Expected: string, given: integer",
		},
		{
			"a parameter that is missing",
			withParameters(`{"type": "object", "properties": {"team": {"type": "string"}}, "required": ["team"]}`, nil),
			"spec.parameters: team is required",
		},
		{
			"a parameter that the Rego misspells",
			withParameters(`{"type": "object", "properties": {"team": {"type": "string"}}, "additionalProperties": false}`, map[string]any{"team": "blue"}, `input.parameters.taem == "blue"`),
			"mine.rego:7:26: rego_type_error: undefined ref: input.parameters.taem; there are: team",
		},
		{
			"a rule that is missing",
			source(header + "subject_controls_key := true\n\nviolations contains v if some v in []\n"),
			"package countersign.mine has no rule subject_is_authorized: every policy needs subject_controls_key, subject_is_authorized, violations",
		},
		{
			"the network",
			source(allow + "\nhelper if http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1/\"}).status_code == 200\n"),
			"mine.rego:11:11: rego_type_error: undefined function http.send",
		},
		{
			"another package",
			evaluator.Source{Package: "countersign.other", Modules: map[string]string{"mine.rego": allow}},
			"package countersign.other has no rule subject_controls_key",
		},
		{
			"a file name of the library",
			evaluator.Source{Package: "countersign.mine", Modules: map[string]string{"lib/names.rego": allow}},
			"lib/names.rego:1:1: the library contains a file of this name: choose another name",
		},
		{"no modules", evaluator.Source{Package: "countersign.mine"}, "package countersign.mine has no rule subject_controls_key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := evaluator.Compile(t.Context(), tc.source)
			var problems evaluator.Errors
			if p != nil || !errors.As(err, &problems) {
				t.Fatalf("got %v, %v; want evaluator.Errors", p, err)
			}
			if !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("got  %s\nwant %s…", err, tc.want)
			}
		})
	}
}

func TestCompileSuggestsFields(t *testing.T) {
	_, err := evaluator.Compile(t.Context(), source(strings.Replace(allow, "subject_controls_key := true", `subject_controls_key if input.requester.usrname == "x"`, 1)))
	if err == nil || !strings.Contains(err.Error(), `; there are: credentialID, groups, node, pod, serviceAccount, uid, username`) {
		t.Errorf("got %v", err)
	}
}

func TestEvaluate(t *testing.T) {
	violation := `violations contains {"requirement": 2, "id": "no", "message": "not today", "value": "x", "retryable": true} if true`
	for _, tc := range []struct {
		name    string
		text    string
		want    evaluator.Result
		wantErr string
	}{
		{"both requirements and no violation allow", allow, evaluator.Result{Allowed: true}, ""},
		{
			"a violation forbids, whatever else holds",
			strings.Replace(allow, "violations contains v if some v in []", violation, 1),
			evaluator.Result{Violations: []evaluator.Violation{{Requirement: 2, ID: "no", Message: "not today", Value: "x", Retryable: true}}},
			"",
		},
		{
			"no violation is not enough",
			strings.Replace(allow, "subject_is_authorized := true", `subject_is_authorized if input.request.name == "other"`, 1),
			evaluator.Result{},
			"the policy neither allows the request nor has a violation: add a violation that says why",
		},
		{
			"a requirement that is not exactly true does not hold",
			strings.Replace(allow, "subject_is_authorized := true", `subject_is_authorized := "true"`, 1),
			evaluator.Result{},
			"the policy neither allows the request nor has a violation: add a violation that says why",
		},
		{
			"applies that is not true abstains",
			allow + "\napplies if input.request.name == \"other\"\n\napplies := false if input.request.name == \"\"\n",
			evaluator.Result{Abstains: true},
			"",
		},
		{
			"applies that is undefined abstains",
			allow + "\napplies if input.request.name == \"other\"\n",
			evaluator.Result{Abstains: true},
			"",
		},
		{
			"a violation without a message",
			strings.Replace(allow, "violations contains v if some v in []", `violations contains v if some v in [{"requirement": 2, "id": "no"}]`, 1),
			evaluator.Result{},
			"violation {Requirement:2 ID:no Message: Value: Retryable:false}: requirement must be 1 or 2, id and message must not be empty",
		},
		{
			"a violation of another shape",
			strings.Replace(allow, "violations contains v if some v in []", `violations contains v if some v in ["no"]`, 1),
			evaluator.Result{},
			"a violation must be an object with requirement, id, message, value and retryable: ",
		},
		{
			"no violations at all, not even the empty set",
			strings.Replace(allow, "violations contains v if some v in []", "violations := null", 1),
			evaluator.Result{},
			"violations is null: it must be a set",
		},
		{
			"a conflict",
			strings.Replace(allow, "subject_is_authorized := true", "subject_is_authorized := x if some x in [true, false]", 1),
			evaluator.Result{},
			"evaluating: mine.rego:7: eval_conflict_error: rule data.countersign.mine.subject_is_authorized produced conflicting values",
		},
		{
			"a failing built-in",
			strings.Replace(allow, "subject_is_authorized := true", `subject_is_authorized if time.parse_rfc3339_ns(input.request.name) > 0`, 1),
			evaluator.Result{},
			"evaluating: mine.rego:7: eval_builtin_error: time.parse_rfc3339_ns: ",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := compile(t, source(tc.text)).Evaluate(t.Context(), evaluator.NewInput(&facts.Facts{}))
			if tc.wantErr != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tc.wantErr) {
					t.Errorf("got %v\nwant %s", err, tc.wantErr)
				}
			} else if err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEvaluateTimeout(t *testing.T) {
	endless := strings.Replace(allow, "subject_is_authorized := true", "subject_is_authorized if {\n\tsome a in numbers.range(1, 10000)\n\tsome b in numbers.range(1, 10000)\n\ta * b == -1\n}", 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	got, err := compile(t, source(endless)).Evaluate(ctx, evaluator.NewInput(&facts.Facts{}))
	if err == nil || !strings.Contains(err.Error(), "context deadline exceeded") {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestEvaluateParameters(t *testing.T) {
	s := source(strings.Replace(allow, "subject_is_authorized := true", "subject_is_authorized if input.parameters.open == true", 1))
	s.Parameters = map[string]any{"open": true}
	got, err := compile(t, s).Evaluate(t.Context(), evaluator.NewInput(&facts.Facts{Parameters: map[string]any{"open": false}}))
	if err != nil || !got.Allowed {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestRevision(t *testing.T) {
	base := source(allow)
	changed := source(allow + "# another\n")
	parameters := source(allow)
	parameters.Parameters = map[string]any{"x": 1}
	tests := source(allow)
	tests.Modules["mine_test.rego"] = "package countersign.mine_test"
	if base.Revision() == changed.Revision() || base.Revision() == parameters.Revision() {
		t.Error("a change of modules or parameters must change the revision")
	}
	if base.Revision() != tests.Revision() {
		t.Error("tests decide nothing and must not change the revision")
	}
	if base.Digest() == tests.Digest() {
		t.Error("tests are part of the source and must change its digest")
	}
	if len(base.Revision()) != 64 {
		t.Errorf("got %q", base.Revision())
	}
}

func TestCompileBuiltins(t *testing.T) {
	pkg, modules, ok := policies.Builtin("pod-serving")
	if !ok {
		t.Fatal("no builtin pod-serving")
	}
	compile(t, evaluator.Source{Package: pkg, Modules: modules})
}

func TestCompileParameters(t *testing.T) {
	s := withParameters(`{"type": "object", "properties": {"team": {"type": "string"}}, "additionalProperties": false}`,
		map[string]any{"team": "blue"}, `input.parameters.team == "blue"`)
	got, err := compile(t, s).Evaluate(t.Context(), evaluator.NewInput(&facts.Facts{}))
	if err != nil || !got.Allowed {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestTest(t *testing.T) {
	policy := strings.Replace(allow, "subject_is_authorized := true", "subject_is_authorized if {\n\tinput.requester.username == \"jane\"\n}", 1)
	const testHeader = "package countersign.mine_test\n\nimport rego.v2\n\nimport data.countersign.mine\n\n"
	for _, tc := range []struct {
		name  string
		tests string
		want  evaluator.TestReport
	}{
		{"none", "", evaluator.TestReport{}},
		{
			"all pass",
			testHeader + "test_jane if mine.subject_is_authorized with input as {\"requester\": {\"username\": \"jane\"}}\n\ntest_control if mine.subject_controls_key\n\ntest_none if count(mine.violations) == 0\n",
			evaluator.TestReport{Tests: 3, Percent: 80, NotCovered: []string{"mine.rego:11"}},
		},
		{
			"one fails",
			testHeader + "test_jane if mine.subject_is_authorized with input as {\"requester\": {\"username\": \"joe\"}}\n",
			evaluator.TestReport{
				Tests: 1, NotCovered: []string{"mine.rego:5", "mine.rego:7", "mine.rego:8", "mine.rego:11"},
				Failures: evaluator.Errors{{File: "mine_test.rego", Row: 7, Col: 1, Message: "test_jane fails"}},
			},
		},
		{
			"a case fails",
			testHeader + "test_names[name] if {\n\tsome name in [\"jane\", \"joe\"]\n\tmine.subject_is_authorized with input as {\"requester\": {\"username\": name}}\n}\n",
			evaluator.TestReport{
				Tests: 1, Percent: 50, NotCovered: []string{"mine.rego:5", "mine.rego:11"},
				Failures: evaluator.Errors{{File: "mine_test.rego", Row: 7, Col: 1, Message: "test_names fails for joe"}},
			},
		},
		{
			"a rule that only tests would see",
			strings.Replace(testHeader, "countersign.mine_test", "countersign.mine", 1) + "violations contains v if v := {\"requirement\": 2, \"id\": \"x\", \"message\": \"x\"}\n",
			evaluator.TestReport{Failures: evaluator.Errors{{
				File: "mine_test.rego", Row: 1, Col: 1,
				Message: "tests need a package of their own, such as countersign.mine_test: rules here would exist for the tests, but not for requests",
			}}},
		},
		{
			"a syntax error",
			testHeader + "test_jane if {\n",
			evaluator.TestReport{Failures: evaluator.Errors{{File: "mine_test.rego", Row: 8, Col: 1, Message: "rego_parse_error: unexpected eof token; test_jane if {"}}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := source(policy)
			if tc.tests != "" {
				s.Modules["mine_test.rego"] = tc.tests
			}
			got, err := evaluator.Test(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTestTimeout(t *testing.T) {
	s := source(allow)
	s.Modules["mine_test.rego"] = "package countersign.mine_test\n\nimport rego.v2\n\ntest_endless if {\n\tsome a in numbers.range(1, 10000)\n\tsome b in numbers.range(1, 10000)\n\ta * b == -1\n}\n"
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if got, err := evaluator.Test(ctx, s); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestEvaluateTooLargeInput(t *testing.T) {
	f := facts.Facts{}
	f.Request.Name = strings.Repeat("x", evaluator.MaxInput)
	if got, err := compile(t, source(allow)).Evaluate(t.Context(), evaluator.NewInput(&f)); err == nil || !strings.Contains(err.Error(), "the maximum is 1048576") {
		t.Errorf("got %+v, %v", got, err)
	}
}

// filler returns a part of a body with n expressions.
func filler(n int) string { return strings.Repeat("\tinput.now\n", n) }

// TestStack: the rules and functions that an evaluation is in at a time are bounded together.
func TestStack(t *testing.T) {
	chain := func(rules, last int) evaluator.Source {
		text := allow + "\nr0 if {\n" + filler(last) + "}\n"
		for i := range rules - 1 {
			text += fmt.Sprintf("\nr%d if {\n%s\tr%d\n}\n", i+1, filler(255), i)
		}
		return source(text)
	}
	calls := func(n int) evaluator.Source {
		text := allow + "\nr if {\n" + filler(1)
		for i := range n {
			text += fmt.Sprintf("\tf(%d)\n", i)
		}
		return source(text + "}\n\nf(x) if {\n\tx > 0\n" + filler(99) + "}\n")
	}
	for _, tc := range []struct {
		name   string
		source evaluator.Source
		want   bool
	}{
		{"a chain of rules at the limit", chain(4, 256), true},
		{"a chain of rules, one more", chain(5, 1), false},
		{"calls at the limit", calls(10), true}, // 11 + 10*100
		{"calls, one more", calls(11), false},
	} {
		if _, err := evaluator.Compile(t.Context(), tc.source); (err == nil) != tc.want {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// TestExpressionsOfRule: each expression deepens the stack of an evaluation, so their number is bounded.
func TestExpressionsOfRule(t *testing.T) {
	rule := func(lines int, line string) evaluator.Source {
		return source(allow + "\nviolations contains v if {\n\tinput.request.name == \"bomb\"\n" + strings.Repeat("\t"+line+"\n", lines) +
			"\tv := {\"requirement\": 2, \"id\": \"x\", \"message\": \"x\"}\n}\n")
	}
	for _, tc := range []struct {
		name   string
		source evaluator.Source
		want   string
	}{
		{"at the limit", rule(254, "input.now"), ""},
		{"one more", rule(255, "input.now"), "mine.rego:11:1: the rule has 257 expressions, the maximum is 256: split it into several rules"},
		{"nested", rule(128, "[1 | input.now; input.now][0] == 1"), "mine.rego:11:1: the rule has 386 expressions, the maximum is 256: split it into several rules"},
		{"several in a line", rule(100, "every x in [1] { x == 1; input.now }"), "mine.rego:11:1: the rule has 302 expressions, the maximum is 256: split it into several rules"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := ""
			if _, err := evaluator.Compile(t.Context(), tc.source); err != nil {
				got = err.Error()
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
