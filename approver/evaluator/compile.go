// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package evaluator

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"countersign.dev/countersign/policies"
)

// Source is the text of a policy.
type Source struct {
	// Package holds the rules, such as "countersign.pod_serving".
	Package string
	// Modules by file name. Names ending in _test.rego are not part of the policy.
	// The modules of policies/lib are always there beside them.
	Modules map[string]string
	// Parameters become input.parameters; nil means none.
	Parameters map[string]any
}

// Revision is the SHA-256, in lower-case hex, of everything in the source that a
// decision can depend on: package, modules, library and parameters.
func (s Source) Revision() string {
	h := sha256.New()
	// JSON of maps has sorted keys; parameters came from JSON, so encoding them cannot fail.
	_ = json.NewEncoder(h).Encode([]any{s.Package, s.modules(), policies.Lib(), s.Parameters})
	return hex.EncodeToString(h.Sum(nil))
}

func (s Source) modules() map[string]string {
	modules := maps.Clone(s.Modules)
	maps.DeleteFunc(modules, func(name, _ string) bool { return strings.HasSuffix(name, "_test.rego") })
	return modules
}

// Error is one fault of a source. Row and Col count from 1; 0 is unknown.
type Error struct {
	File     string
	Row, Col int
	Message  string
}

func (e Error) Error() string {
	if e.File == "" {
		return e.Message
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Row, e.Col, e.Message)
}

// Errors are all faults of a source, in the order of file, row and column.
type Errors []Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "; ")
}

// Policy is a compiled source.
type Policy struct {
	revision   string
	parameters map[string]any
	query      rego.PreparedEvalQuery
}

// Revision of the source it was compiled from.
func (p *Policy) Revision() string { return p.revision }

// required are the rules every policy has.
var required = []string{"subject_controls_key", "subject_is_authorized", "violations"}

// forbidden are the built-in functions that reach outside of the input or are not deterministic.
var forbidden = []string{
	"http.send", "net.lookup_ip_addr", "opa.runtime", "rand.intn", "uuid.rfc4122",
	"trace", "time.now_ns", "rego.parse_module",
}

var capabilities = sync.OnceValue(func() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(c.Builtins, func(b *ast.Builtin) bool { return slices.Contains(forbidden, b.Name) })
	c.AllowNet = []string{}
	return c
})

var inputSchema = sync.OnceValues(func() (*ast.SchemaSet, error) {
	var schema any
	if err := json.Unmarshal(policies.InputSchema, &schema); err != nil {
		return nil, fmt.Errorf("parsing the input schema: %w", err)
	}
	set := ast.NewSchemaSet()
	set.Put(ast.SchemaRootRef, schema)                // for modules that say nothing
	set.Put(ast.MustParseRef("schema.input"), schema) // for modules that name it in METADATA
	return set, nil
})

// Compile checks and compiles a source. The error is of type [Errors] if the source is at fault.
func Compile(ctx context.Context, s Source) (*Policy, error) {
	modules, err := parse(s)
	if err != nil {
		return nil, err
	}
	schemas, err := inputSchema()
	if err != nil {
		return nil, err
	}
	compiler := ast.NewCompiler().
		WithCapabilities(capabilities()).
		WithStrict(true).
		WithSchemas(schemas).
		WithUseTypeCheckAnnotations(true)
	if compiler.Compile(modules); compiler.Failed() {
		return nil, fromOPA(compiler.Errors)
	}
	pkg, err := packageRef(s.Package)
	if err != nil {
		return nil, Errors{{Message: err.Error()}}
	}
	var missing Errors
	for _, name := range required {
		if len(compiler.GetRulesExact(pkg.Append(ast.StringTerm(name)))) == 0 {
			missing = append(missing, Error{Message: fmt.Sprintf("package %s has no rule %s: every policy needs %s", s.Package, name, strings.Join(required, ", "))})
		}
	}
	if missing != nil {
		return nil, missing
	}
	query, err := rego.New(
		rego.Compiler(compiler),
		rego.Query(query(pkg, len(compiler.GetRulesExact(pkg.Append(ast.StringTerm("applies")))) > 0)),
		rego.StrictBuiltinErrors(true),
	).PrepareForEval(ctx)
	if err != nil {
		return nil, fmt.Errorf("preparing package %s: %w", s.Package, err)
	}
	return &Policy{revision: s.Revision(), parameters: s.Parameters, query: query}, nil
}

// query asks for the rules in a way that is defined even where one of them is not: a rule
// with a single value becomes an array of at most one. A policy without a rule `applies`
// applies to everything.
func query(pkg ast.Ref, hasApplies bool) string {
	applies := "[true]"
	if hasApplies {
		applies = fmt.Sprintf("[x | x := %s.applies]", pkg)
	}
	return fmt.Sprintf(`violations := %[1]s.violations
		controls := [x | x := %[1]s.subject_controls_key]
		authorized := [x | x := %[1]s.subject_is_authorized]
		applies := %[2]s`, pkg, applies)
}

func packageRef(name string) (ast.Ref, error) {
	ref, err := ast.ParseRef("data." + name)
	if err != nil || name == "" {
		return nil, fmt.Errorf("%q is not a package name: write it as in the module, such as countersign.pod_serving", name)
	}
	return ref, nil
}

func parse(s Source) (map[string]*ast.Module, error) {
	sources := s.modules()
	for name, text := range policies.Lib() {
		if _, taken := sources[name]; taken {
			return nil, Errors{{File: name, Row: 1, Col: 1, Message: "this file name belongs to the library: choose another"}}
		}
		if sources == nil {
			sources = map[string]string{}
		}
		sources[name] = text
	}
	parsed := make(map[string]*ast.Module, len(sources))
	var faults Errors
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		module, err := ast.ParseModuleWithOpts(name, sources[name], ast.ParserOptions{
			ProcessAnnotation: true,
			Capabilities:      capabilities(),
		})
		if err != nil {
			faults = append(faults, fromError(name, err)...)
			continue
		}
		if module == nil {
			faults = append(faults, Error{File: name, Row: 1, Col: 1, Message: "the module is empty"})
			continue
		}
		faults = append(faults, lint(name, module)...)
		parsed[name] = module
	}
	if faults != nil {
		return nil, faults
	}
	return parsed, nil
}

// lint holds the rules for policies that OPA does not.
func lint(file string, module *ast.Module) Errors {
	var faults Errors
	if !slices.ContainsFunc(module.Imports, func(i *ast.Import) bool { return ast.RegoV2CompatibleRef.Equal(i.Path.Value) }) {
		at := module.Package.Location
		faults = append(faults, Error{File: file, Row: at.Row, Col: at.Col, Message: "add `import rego.v2` below the package: without it, `not` over an undefined reference does not hold"})
	}
	ast.WalkExprs(module, func(e *ast.Expr) bool {
		for _, with := range e.With {
			faults = append(faults, Error{File: file, Row: with.Location.Row, Col: with.Location.Col, Message: "`with` replaces the facts a policy judges: it is allowed in _test.rego files only"})
		}
		return false
	})
	return faults
}

func fromError(file string, err error) Errors {
	if opa, ok := errors.AsType[ast.Errors](err); ok {
		return fromOPA(opa)
	}
	return Errors{{File: file, Row: 1, Col: 1, Message: err.Error()}}
}

func fromOPA(in ast.Errors) Errors {
	out := make(Errors, 0, len(in))
	for _, e := range in {
		fault := Error{Message: e.Code + ": " + e.Message}
		if e.Location != nil {
			fault.File, fault.Row, fault.Col = e.Location.File, e.Location.Row, e.Location.Col
		}
		if e.Details != nil {
			for _, line := range e.Details.Lines() {
				if line = strings.TrimSpace(line); line != "" && strings.Trim(line, "^") != "" {
					fault.Message += "; " + line
				}
			}
		}
		out = append(out, fault)
	}
	return out
}
