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

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/format"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/tester"

	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/policies"
)

// sources are all .rego files of this folder, by path.
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

// strict makes a compiler like the approver's: strict, and with the schema of the input.
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

func TestRego(t *testing.T) {
	modules := parse(t, sources(t))
	coverage := cover.New()
	results, err := tester.NewRunner().
		SetCompiler(strict(t)).
		SetModules(modules).
		RaiseBuiltinErrors(false).
		SetCoverageQueryTracer(coverage).
		RunTests(t.Context(), nil)
	if err != nil {
		t.Fatalf("compiling: %v", err)
	}
	check(t, results)
	report := coverage.Report(modules)
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		for _, gap := range report.Files[name].NotCovered {
			t.Errorf("%s:%d is not covered by any test", name, gap.Start.Row)
		}
	}
}

// TestStock runs the tests as `opa test policies/` does: all files, YAML and JSON as data
// among them, no schema, and no strict mode.
func TestStock(t *testing.T) {
	modules, store, err := tester.Load([]string{"."}, nil)
	if err != nil {
		t.Fatalf("loading: %v", err)
	}
	results, err := tester.NewRunner().SetStore(store).Run(context.Background(), modules) //nolint:staticcheck // RunTests takes bundles or a compiler, not bare modules
	if err != nil {
		t.Fatalf("compiling: %v", err)
	}
	check(t, results)
}

func check(t *testing.T, results chan *tester.Result) {
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
	if n < 20 {
		t.Errorf("%d tests ran, which cannot be all", n)
	}
}

func TestSourcesAreFormatted(t *testing.T) {
	for name, text := range sources(t) {
		want, err := format.Source(name, []byte(text))
		if err != nil {
			t.Errorf("formatting: %v", err)
		}
		if diff := cmp.Diff(string(want), text); diff != "" {
			t.Errorf("%s is not as opa fmt writes it (-fmt +file):\n%s", name, diff)
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
			return false
		})
		ast.WalkRules(module, func(r *ast.Rule) bool {
			if r.Default {
				t.Errorf("%s: a default value", r.Location)
			}
			return false
		})
		if !slices.ContainsFunc(module.Annotations, func(a *ast.Annotations) bool { return a.Scope == "package" && len(a.Schemas) == 1 }) {
			t.Errorf("%s does not name the schema of its input", name)
		}
	}
}

// TestMisspeltFieldIsAnError shows that the schema is bound to the modules at all.
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

// TestBaseIsAnInput shows that the tests of policies speak of the input as it is: each
// document of lib/example.rego has every key of facts.Facts and no other.
func TestBaseIsAnInput(t *testing.T) {
	compiler := strict(t)
	if compiler.Compile(parse(t, sources(t))); compiler.Failed() {
		t.Fatal(compiler.Errors)
	}
	results, err := rego.New(rego.Compiler(compiler), rego.Query("data.countersign.lib.example")).Eval(t.Context())
	if err != nil || len(results) != 1 {
		t.Fatalf("evaluating the examples: %d results, error %v", len(results), err)
	}
	examples, _ := results[0].Expressions[0].Value.(map[string]any)
	if len(examples) == 0 {
		t.Fatal("there are no examples")
	}
	for name, example := range examples {
		t.Run(name, func(t *testing.T) { isInput(t, example) })
	}
}

func isInput(t *testing.T, example any) {
	t.Helper()
	got, err := json.Marshal(example)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(got))
	decoder.DisallowUnknownFields()
	var f facts.Facts
	if err := decoder.Decode(&f); err != nil {
		t.Fatalf("it has a key or type that facts do not: %v", err)
	}
	// Written again it has every key, so that one missing from the example shows as a difference.
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
		t.Errorf("it differs from an input (-facts +example):\n%s", diff)
	}
}

func TestEmbedded(t *testing.T) {
	pkg, source, ok := policies.Builtin("pod-serving")
	if !ok || pkg != "countersign.pod_serving" {
		t.Errorf("Builtin: package %q, ok %v", pkg, ok)
	}
	if diff := cmp.Diff([]string{"pod-serving/pod_serving.rego"}, slices.Sorted(maps.Keys(source))); diff != "" {
		t.Errorf("modules of pod-serving (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"lib/delegation.rego", "lib/example.rego", "lib/key.rego", "lib/names.rego", "lib/organization.rego", "lib/request.rego", "lib/subject.rego"}, slices.Sorted(maps.Keys(policies.Lib()))); diff != "" {
		t.Errorf("modules of the library (-want +got):\n%s", diff)
	}
	for _, name := range []string{"", "lib", "schema", "../policies", "pod_serving"} {
		if _, _, ok := policies.Builtin(name); ok {
			t.Errorf("Builtin(%q) exists", name)
		}
	}
}
