// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package evaluator

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// lint holds the rules for policies that OPA does not.
func lint(file string, module *ast.Module) Errors {
	var faults Errors
	add := func(at *ast.Location, format string, args ...any) {
		faults = append(faults, Error{File: file, Row: at.Row, Col: at.Col, Message: fmt.Sprintf(format, args...)})
	}
	if !slices.ContainsFunc(module.Imports, func(i *ast.Import) bool { return ast.RegoV2CompatibleRef.Equal(i.Path.Value) }) {
		add(module.Package.Location, "add `import rego.v2` below the package: without it, `not` over an undefined reference does not hold")
	}
	ast.WalkExprs(module, func(e *ast.Expr) bool {
		for _, with := range e.With {
			add(with.Location, "`with` replaces the facts a policy judges: it is allowed in _test.rego files only")
		}
		if e.IsCall() && e.Operator().Equal(ast.NotEqual.Ref()) {
			add(e.Location, "`!=` is undefined, and so no reason, where what it compares is missing, such as a field of input: write `not … == …`")
		}
		return false
	})
	ast.WalkRules(module, func(r *ast.Rule) bool {
		if r.Default && r.Head.Value != nil && r.Head.Value.Equal(ast.BooleanTerm(true)) {
			add(r.Location, "a default of true allows whatever was forgotten: leave the rule undefined unless its conditions hold")
		}
		if r.Head.Key != nil && len(r.Head.Reference) > 0 && strings.TrimPrefix(r.Head.Reference[0].String(), "data.") == "violations" {
			for _, problem := range violationProblems(r) {
				add(r.Head.Key.Location, "%s", problem)
			}
		}
		return false
	})
	return faults
}

// violationProblems looks at the object that a rule adds to violations: the one in its head or
// the one assigned in its body to the variable there. What is made elsewhere is looked at when
// it is evaluated.
func violationProblems(r *ast.Rule) []string {
	key := r.Head.Key
	if _, ok := key.Value.(ast.Var); ok {
		for _, e := range r.Body {
			if e.IsAssignment() && len(e.Operands()) == 2 && e.Operand(0).Equal(key) {
				key = e.Operand(1)
			}
		}
	}
	object, ok := key.Value.(ast.Object)
	if !ok {
		if _, variable := key.Value.(ast.Var); variable {
			return nil
		}
		return []string{"a violation is an object with requirement, id and message, and may have value and retryable"}
	}
	var problems []string
	for _, name := range []string{"requirement", "id", "message"} {
		value := object.Get(ast.StringTerm(name))
		switch {
		case value == nil:
			problems = append(problems, fmt.Sprintf("the violation has no %s: it needs requirement (1 or 2), id and message", name))
		case name == "requirement":
			if number, ok := value.Value.(ast.Number); ok && number.String() != "1" && number.String() != "2" {
				problems = append(problems, "requirement is 1, the subject controls the key, or 2, it is authorized")
			}
		default:
			if text, ok := value.Value.(ast.String); ok && text == "" {
				problems = append(problems, fmt.Sprintf("the violation has an empty %s", name))
			}
		}
	}
	object.Foreach(func(k, _ *ast.Term) {
		if name, ok := k.Value.(ast.String); ok && !slices.Contains([]string{"requirement", "id", "message", "value", "retryable"}, string(name)) {
			problems = append(problems, fmt.Sprintf("a violation has no field %q: it has requirement, id, message, value and retryable", string(name)))
		}
	})
	return problems
}
