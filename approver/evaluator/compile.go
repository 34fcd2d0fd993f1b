// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package evaluator

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"countersign.dev/countersign/policies"
)

// Policy is a compiled source. It is immutable, except that it can be taken out: see [Policy.TooExpensive].
type Policy struct {
	revision         string
	parameters       *ast.Term
	parametersLength int // as JSON
	query            rego.PreparedEvalQuery
	guard            *guard
}

// Revision returns the revision of the source.
func (p *Policy) Revision() string { return p.revision }

// required are the rules that every policy must have.
var required = []string{"subject_controls_key", "subject_is_authorized", "violations"}

// schemas returns the schema of the input, which policies are compiled against. It includes the schema
// of the policy's parameters if there is one.
func schemas(parameters any) (*ast.SchemaSet, error) {
	var schema map[string]any
	if err := json.Unmarshal(policies.InputSchema, &schema); err != nil {
		return nil, fmt.Errorf("parsing the input schema: %w", err)
	}
	if properties, ok := schema["properties"].(map[string]any); ok && parameters != nil {
		properties["parameters"] = parameters
	}
	set := ast.NewSchemaSet()
	set.Put(ast.SchemaRootRef, schema)                // for modules without METADATA
	set.Put(ast.MustParseRef("schema.input"), schema) // for modules that name it in METADATA
	return set, nil
}

// compiler compiles modules in the strictest mode of OPA.
func compiler(modules map[string]*ast.Module, parametersSchema any) (*ast.Compiler, error) {
	schemas, err := schemas(parametersSchema)
	if err != nil {
		return nil, err
	}
	c := ast.NewCompiler().
		WithCapabilities(capabilities()).
		WithStrict(true).
		WithSchemas(schemas).
		WithUseTypeCheckAnnotations(true)
	if c.Compile(modules); c.Failed() {
		return nil, fromOPA(c.Errors)
	}
	return c, nil
}

// Compile validates and compiles a source. The error is of type [Errors] if it is about the source.
func Compile(ctx context.Context, s Source) (*Policy, error) {
	modules, err := s.parse(false)
	if err != nil {
		return nil, err
	}
	schema, err := s.checkParameters(ctx)
	if err != nil {
		return nil, err
	}
	c, err := compiler(modules, schema)
	if err != nil {
		return nil, err
	}
	pkg, err := packageRef(s.Package)
	if err != nil {
		return nil, Errors{{Message: err.Error()}}
	}
	if problems := ruleProblems(c, s.Package, pkg); problems != nil {
		return nil, problems
	}
	if problems := stackProblems(c); problems != nil {
		return nil, problems
	}
	prepared, err := rego.New(
		rego.Compiler(c),
		rego.Query(query(pkg, len(c.GetRulesExact(pkg.Append(ast.StringTerm("applies")))) > 0)),
		rego.StrictBuiltinErrors(true),
	).PrepareForEval(ctx)
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("preparing package %s: %w", s.Package, ctx.Err())
	case err != nil:
		return nil, fromError("", err)
	}
	parameters, length, err := s.parametersTerm()
	if err != nil {
		return nil, err
	}
	return &Policy{revision: s.Revision(), parameters: parameters, parametersLength: length, query: prepared, guard: &guard{}}, nil
}

// ruleProblems checks that the required rules exist, and that no rule is a function.
func ruleProblems(c *ast.Compiler, name string, pkg ast.Ref) Errors {
	var problems Errors
	for _, rule := range required {
		if len(c.GetRulesExact(pkg.Append(ast.StringTerm(rule)))) == 0 {
			problems = append(problems, Error{Message: fmt.Sprintf("package %s has no rule %s: every policy needs %s", name, rule, strings.Join(required, ", "))})
		}
	}
	for _, rule := range append(slices.Clone(required), "applies") {
		for _, r := range c.GetRulesExact(pkg.Append(ast.StringTerm(rule))) {
			if len(r.Head.Args) > 0 {
				problems = append(problems, Error{
					File: r.Location.File, Row: r.Location.Row, Col: r.Location.Col,
					Message: fmt.Sprintf("%s is a function: write it as a rule, without arguments", rule),
				})
			}
		}
	}
	return problems
}

// query returns a query for the rules that is defined even if one of them is not: a rule with a single
// value becomes an array of at most one. A policy without a rule `applies` applies to every request.
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
		return nil, fmt.Errorf("%q is not a valid package name: use the name in the module, such as countersign.pod_serving", name)
	}
	return ref, nil
}
