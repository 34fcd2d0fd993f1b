// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package policies_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/format"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/tester"
	"sigs.k8s.io/yaml"

	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/policies"
)

// sources returns all .rego files in this folder, by path.
func sources(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".rego" {
			return err
		}
		text, err := os.ReadFile(path)
		out[filepath.ToSlash(path)] = string(text)
		return err
	})
	if err != nil {
		t.Fatalf("reading the policies: %v", err)
	}
	if len(out) == 0 {
		t.Fatal("there are no policies")
	}
	return out
}

func parse(t *testing.T, sources map[string]string) map[string]*ast.Module {
	t.Helper()
	out := map[string]*ast.Module{}
	for name, text := range sources {
		module, err := ast.ParseModuleWithOpts(name, text, ast.ParserOptions{ProcessAnnotation: true})
		if err != nil {
			t.Fatalf("parsing: %v", err)
		}
		out[name] = module
	}
	return out
}

// strict returns a compiler with the options of the approver: strict mode, and the schema of the input.
func strict(t *testing.T) *ast.Compiler {
	t.Helper()
	var schema any
	if err := json.Unmarshal(policies.InputSchema, &schema); err != nil {
		t.Fatalf("parsing the schema: %v", err)
	}
	set := ast.NewSchemaSet()
	set.Put(ast.MustParseRef("schema.input"), schema)
	capabilities := ast.CapabilitiesForThisVersion()
	capabilities.AllowNet = []string{}
	return ast.NewCompiler().WithCapabilities(capabilities).WithStrict(true).WithSchemas(set).WithUseTypeCheckAnnotations(true)
}

// testTimeout replaces the timeout of OPA for one test, 5 s, which a test can exceed on a loaded machine.
const testTimeout = time.Minute

func TestRego(t *testing.T) {
	modules := parse(t, sources(t))
	coverage := cover.New()
	results, err := tester.NewRunner().
		SetCompiler(strict(t)).
		SetModules(modules).
		RaiseBuiltinErrors(false).
		SetTimeout(testTimeout).
		SetCoverageQueryTracer(coverage).
		RunTests(t.Context(), nil)
	if err != nil {
		t.Fatalf("compiling: %v", err)
	}
	check(t, results, 20)
	report := coverage.Report(modules)
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		for _, gap := range report.Files[name].NotCovered {
			t.Errorf("%s:%d is not covered by any test", name, gap.Start.Row)
		}
	}
}

// TestOwnTestsCover checks that the tests of each policy cover it without the tests of lib, as the
// approver runs them. A copy of the folder is a policy with sufficient tests.
func TestOwnTestsCover(t *testing.T) {
	for _, name := range policies.Builtins() {
		t.Run(name, func(t *testing.T) {
			pkg, files, _ := policies.Builtin(name)
			report, err := evaluator.Test(t.Context(), evaluator.Source{Package: pkg, Modules: files, Parameters: parametersOf(t, name)})
			if err != nil {
				t.Fatal(err)
			}
			if report.Failures != nil || report.Percent != 100 || report.NotCovered != nil || report.Tests < 4 {
				t.Errorf("got %+v", report)
			}
		})
	}
}

// TestStock runs the tests as `opa test policies/` does: with all files, YAML and JSON as data,
// without a schema, and without strict mode.
func TestStock(t *testing.T) {
	modules, store, err := tester.Load([]string{"."}, nil)
	if err != nil {
		t.Fatalf("loading: %v", err)
	}
	results, err := tester.NewRunner().SetStore(store).SetTimeout(testTimeout).Run(context.Background(), modules) //nolint:staticcheck // RunTests takes bundles or a compiler, not bare modules
	if err != nil {
		t.Fatalf("compiling: %v", err)
	}
	check(t, results, 20)
}

func check(t *testing.T, results chan *tester.Result, atLeast int) {
	t.Helper()
	n := 0
	for r := range results {
		n++
		if r.Pass() && !r.Skip {
			continue
		}
		t.Errorf("%s: %s.%s: pass=%v skip=%v err=%v", r.Location, r.Package, r.Name, r.Pass(), r.Skip, r.Error)
		for path, sub := range r.SubResults.Iter {
			if sub.Fail {
				t.Errorf("  case %s", strings.Join(path, "/"))
			}
		}
	}
	if n < atLeast {
		t.Errorf("got %d tests, want at least %d", n, atLeast)
	}
}

func TestSourcesAreFormatted(t *testing.T) {
	for name, text := range sources(t) {
		want, err := format.Source(name, []byte(text))
		if err != nil {
			t.Errorf("formatting: %v", err)
		}
		if diff := cmp.Diff(string(want), text); diff != "" {
			t.Errorf("%s is not formatted with opa fmt (-fmt +file):\n%s", name, diff)
		}
	}
}

func TestModulesFollowTheRules(t *testing.T) {
	for name, module := range parse(t, sources(t)) {
		if !slices.ContainsFunc(module.Imports, func(i *ast.Import) bool { return ast.RegoV2CompatibleRef.Equal(i.Path.Value) }) {
			t.Errorf("%s does not import rego.v2", name)
		}
		if strings.HasSuffix(name, "_test.rego") {
			continue
		}
		ast.WalkExprs(module, func(e *ast.Expr) bool {
			if len(e.With) > 0 {
				t.Errorf("%s: `with` outside of a test", e.Location)
			}
			if e.IsCall() && e.Operator().Equal(ast.NotEqual.Ref()) && slices.ContainsFunc(e.Operands(), isInput) {
				t.Errorf("%s: `!=` is undefined for a missing field: write `not … == …`", e.Location)
			}
			return false
		})
		ast.WalkRules(module, func(r *ast.Rule) bool {
			if r.Default {
				t.Errorf("%s: a default value", r.Location)
			}
			if r.Head.Name == "violations" && !isLiteral(r.Head.Key) && !passesOn(r) {
				t.Errorf("%s: a violation must be an object in the head of the rule, or come from other violations", r.Location)
			}
			return false
		})
		if !slices.ContainsFunc(module.Annotations, func(a *ast.Annotations) bool { return a.Scope == "package" && len(a.Schemas) == 1 }) {
			t.Errorf("%s does not name the schema of its input", name)
		}
	}
}

func isInput(term *ast.Term) bool {
	ref, ok := term.Value.(ast.Ref)
	return ok && ref.HasPrefix(ast.InputRootRef)
}

func isLiteral(term *ast.Term) bool {
	_, ok := term.Value.(ast.Object)
	return ok
}

// passesOn reports whether a rule is `violations contains v if some v in <package>.violations`.
func passesOn(r *ast.Rule) bool {
	if len(r.Body) != 1 {
		return false
	}
	some, ok := r.Body[0].Terms.(*ast.SomeDecl)
	if !ok || len(some.Symbols) != 1 {
		return false
	}
	in, ok := some.Symbols[0].Value.(ast.Call)
	if !ok || len(in) != 3 || !in[1].Equal(r.Head.Key) {
		return false
	}
	from, ok := in[2].Value.(ast.Ref)
	return ok && from[len(from)-1].Equal(ast.StringTerm("violations"))
}

// TestMisspeltFieldIsAnError checks that the schema applies to the modules.
func TestMisspeltFieldIsAnError(t *testing.T) {
	for _, tt := range []struct{ file, field, misspelt string }{
		{"lib/names.rego", "input.cluster.subject.pod.hostNetwork", "input.cluster.subject.pod.hostnetwork"},
		{"lib/subject.rego", "input.requester.pod.uid", "input.requester.pod.UID"},
		{"lib/request.rego", "input.request.expirationSeconds", "input.request.expiration"},
		{"pod-serving/pod_serving.rego", "input.pkcs10.emailAddresses", "input.pkcs10.emails"},
	} {
		t.Run(tt.misspelt, func(t *testing.T) {
			s := sources(t)
			changed := strings.ReplaceAll(s[tt.file], tt.field, tt.misspelt)
			if changed == s[tt.file] {
				t.Fatalf("%s does not use %s", tt.file, tt.field)
			}
			s[tt.file] = changed
			compiler := strict(t)
			compiler.Compile(parse(t, s))
			if !compiler.Failed() || compiler.Errors[0].Code != ast.TypeErr {
				t.Errorf("got errors %v, want a %s", compiler.Errors, ast.TypeErr)
			}
		})
	}
}

// TestBaseIsAnInput checks that each document in lib/example.rego has exactly the keys of facts.Facts.
func TestBaseIsAnInput(t *testing.T) {
	for name, example := range examples(t) {
		t.Run(name, func(t *testing.T) { checkInput(t, example) })
	}
}

// examples returns the documents in lib/example.rego by the names of their rules.
func examples(t *testing.T) map[string]any {
	t.Helper()
	compiler := strict(t)
	if compiler.Compile(parse(t, policies.Lib())); compiler.Failed() {
		t.Fatal(compiler.Errors)
	}
	results, err := rego.New(rego.Compiler(compiler), rego.Query("data.countersign.lib.example")).Eval(t.Context())
	if err != nil || len(results) != 1 {
		t.Fatalf("evaluating the examples: %d results, error %v", len(results), err)
	}
	all, _ := results[0].Expressions[0].Value.(map[string]any)
	if len(all) == 0 {
		t.Fatal("there are no examples")
	}
	return all
}

// TestExamplesAreAllowed evaluates the examples as the approver does, with the files of the ConfigMap
// and the parameters in policy.yaml.
func TestExamplesAreAllowed(t *testing.T) {
	for _, tc := range []struct {
		policy, example string
		parameters      map[string]any // that policy.yaml leaves to the user
	}{
		{"kubelet-serving", "node_request", map[string]any{"ipPrefixes": []any{"192.0.2.0/24", "2001:db8::/64"}}},
		{"pod-client", "client_request", nil},
		{"pod-serving", "pod_request", nil},
		{"spiffe", "spiffe_request", nil},
	} {
		t.Run(tc.policy, func(t *testing.T) {
			pkg, files, _ := policies.Builtin(tc.policy)
			source := evaluator.Source{Package: pkg, Modules: files, Parameters: parametersOf(t, tc.policy)}
			maps.Copy(source.Parameters, tc.parameters)
			compiled, err := evaluator.Compile(t.Context(), source)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := json.Marshal(examples(t)[tc.example])
			if err != nil {
				t.Fatal(err)
			}
			var f facts.Facts
			if err := json.Unmarshal(raw, &f); err != nil {
				t.Fatal(err)
			}
			if got, err := compiled.Evaluate(t.Context(), evaluator.NewInput(&f)); err != nil || !got.Allowed {
				t.Errorf("got %+v, error %v, want allowed", got, err)
			}
		})
	}
}

func checkInput(t *testing.T, example any) {
	t.Helper()
	got, err := json.Marshal(example)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(got))
	decoder.DisallowUnknownFields()
	var f facts.Facts
	if err := decoder.Decode(&f); err != nil {
		t.Fatalf("decoding the example as facts: %v", err)
	}
	// Marshalled facts have every key, so a key that is missing in the example is a difference.
	want, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	if err := json.Unmarshal(want, &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(got, &b); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("the example differs from the input (-facts +example):\n%s", diff)
	}
}

func TestEmbedded(t *testing.T) {
	want := map[string]string{
		"kubelet-serving": "countersign.kubelet_serving",
		"pod-client":      "countersign.pod_client",
		"pod-serving":     "countersign.pod_serving",
		"spiffe":          "countersign.spiffe",
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), policies.Builtins()); diff != "" {
		t.Errorf("Builtins (-want +got):\n%s", diff)
	}
	for name, wantPkg := range want {
		pkg, source, ok := policies.Builtin(name)
		if !ok || pkg != wantPkg {
			t.Errorf("Builtin(%q): package %q, ok %v", name, pkg, ok)
		}
		file := strings.ReplaceAll(name, "-", "_")
		want := []string{file + ".rego", file + "_test.rego", "parameters.schema.json"}
		slices.Sort(want)
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(source))); diff != "" {
			t.Errorf("modules of %s (-want +got):\n%s", name, diff)
		}
	}
	lib := []string{"lib/delegation.rego", "lib/example.rego", "lib/key.rego", "lib/names.rego", "lib/organization.rego", "lib/request.rego", "lib/subject.rego"}
	if diff := cmp.Diff(lib, slices.Sorted(maps.Keys(policies.Lib()))); diff != "" {
		t.Errorf("modules of the library (-want +got):\n%s", diff)
	}
	for _, name := range []string{"", "lib", "schema", "../policies", "pod_serving"} {
		if _, _, ok := policies.Builtin(name); ok {
			t.Errorf("Builtin(%q) exists", name)
		}
	}
}

// TestFolders checks that kustomize renders the embedded files of each policy, and that the parameters
// in policy.yaml match their schema.
func TestFolders(t *testing.T) {
	var root struct{ Resources []string }
	unmarshal(t, "kustomization.yaml", &root)
	// deploy/signers/kubelet-serving owns the policy kubelet-serving.
	want := slices.DeleteFunc(policies.Builtins(), func(name string) bool { return name == "kubelet-serving" })
	if diff := cmp.Diff(want, root.Resources); diff != "" {
		t.Errorf("resources of kustomization.yaml (-want +got):\n%s", diff)
	}
	for _, name := range policies.Builtins() {
		t.Run(name, func(t *testing.T) {
			pkg, _, _ := policies.Builtin(name)
			module := strings.ReplaceAll(name, "-", "_")

			var kustomization struct {
				ConfigMapGenerator []struct {
					Name    string
					Files   []string
					Options struct{ Immutable bool }
				}
			}
			unmarshal(t, name+"/kustomization.yaml", &kustomization)
			if g := kustomization.ConfigMapGenerator; len(g) != 1 || g[0].Name != name+"-rego" || !g[0].Options.Immutable {
				t.Errorf("configMapGenerator: got %+v, want one immutable ConfigMap %s-rego", g, name)
			} else if diff := cmp.Diff([]string{"parameters.schema.json", module + ".rego", module + "_test.rego"}, g[0].Files); diff != "" {
				t.Errorf("files of the ConfigMap (-want +got):\n%s", diff)
			}

			var policy struct {
				Metadata struct{ Name string }
				Spec     struct {
					Rego struct {
						Package      string
						ConfigMapRef struct{ Name string }
					}
				}
			}
			unmarshal(t, name+"/policy.yaml", &policy)
			if rego := policy.Spec.Rego; policy.Metadata.Name != name || rego.Package != pkg || rego.ConfigMapRef.Name != name+"-rego" {
				t.Errorf("policy.yaml: got %+v", policy)
			}

			var schema struct {
				AdditionalProperties *bool
				Properties           map[string]struct{ Description string }
			}
			unmarshal(t, name+"/parameters.schema.json", &schema)
			if schema.AdditionalProperties == nil || *schema.AdditionalProperties {
				t.Error("parameters.schema.json allows further properties")
			}
			for parameter, property := range schema.Properties {
				if property.Description == "" {
					t.Errorf("parameter %s has no description", parameter)
				}
			}
			_, files, _ := policies.Builtin(name)
			source := evaluator.Source{Package: pkg, Modules: files, Parameters: parametersOf(t, name)}
			if _, err := evaluator.Compile(t.Context(), source); err != nil {
				t.Errorf("the parameters of policy.yaml: %v", err)
			}
			source.Parameters["maxExpirationSecond"] = 600
			if _, err := evaluator.Compile(t.Context(), source); err == nil || !strings.Contains(err.Error(), "maxExpirationSecond is not allowed") {
				t.Errorf("a misspelt parameter: got %v", err)
			}
		})
	}
}

// parametersOf returns the parameters in the policy.yaml of a policy.
func parametersOf(t *testing.T, name string) map[string]any {
	t.Helper()
	var policy struct {
		Spec struct{ Parameters map[string]any }
	}
	unmarshal(t, name+"/policy.yaml", &policy)
	return policy.Spec.Parameters
}

func unmarshal(t *testing.T, file string, out any) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(raw, out); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}
