// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package evaluator

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// violationFields are the fields of a violation. The first three are required.
var violationFields = []string{"requirement", "id", "message", "value", "retryable"}

// maxExpressions is the maximum number of expressions of a rule with all its comprehensions, conditions of
// `every` and `else` branches. OPA needs up to 4 KiB of stack for each, and the runtime keeps the stack.
const maxExpressions = 256

// expressions returns the number of expressions of a rule, at all depths.
func expressions(r *ast.Rule) int {
	n := 0
	ast.WalkExprs(r, func(*ast.Expr) bool {
		n++
		return false
	})
	return n
}

// linter collects the problems of a module.
type linter struct {
	file     string
	problems Errors
}

func (l *linter) add(at *ast.Location, format string, args ...any) {
	l.problems = append(l.problems, Error{File: l.file, Row: at.Row, Col: at.Col, Message: fmt.Sprintf(format, args...)})
}

// lint checks the rules for policies that OPA does not check.
func lint(file string, module *ast.Module) Errors {
	l := &linter{file: file}
	if !slices.ContainsFunc(module.Imports, func(i *ast.Import) bool { return ast.RegoV2CompatibleRef.Equal(i.Path.Value) }) {
		l.add(module.Package.Location, "add `import rego.v2` below the package: without it, `not` over an undefined reference does not hold")
	}
	ast.WalkExprs(module, func(e *ast.Expr) bool {
		l.expression(e)
		return false
	})
	ast.WalkRules(module, func(r *ast.Rule) bool {
		l.rule(r)
		return false
	})
	return l.problems
}

func (l *linter) expression(e *ast.Expr) {
	for _, with := range e.With {
		l.add(with.Location, "`with` replaces the facts that a policy evaluates: it is allowed in _test.rego files only")
	}
	if e.IsCall() && e.Operator().Equal(ast.NotEqual.Ref()) {
		l.add(e.Location, "`!=` is undefined if an operand is missing, such as a field of input, so the condition does not hold: write `not … == …`")
	}
}

func (l *linter) rule(r *ast.Rule) {
	if n := expressions(r); n > maxExpressions {
		l.add(r.Location, "the rule has %d expressions, the maximum is %d: split it into several rules", n, maxExpressions)
	}
	if r.Default && r.Head.Value != nil && r.Head.Value.Equal(ast.BooleanTerm(true)) {
		l.add(r.Location, "a default of true allows every case that the policy does not handle: leave the rule undefined unless its conditions hold")
	}
	if r.Head.Key != nil && len(r.Head.Reference) > 0 && strings.TrimPrefix(r.Head.Reference[0].String(), "data.") == "violations" {
		for _, problem := range violationProblems(r) {
			l.add(r.Head.Key.Location, "%s", problem)
		}
	}
}

// violationProblems checks the object that a rule adds to violations: the one in its head, or the
// one that its body assigns to the variable in its head. An object that is created elsewhere is
// checked when it is evaluated.
func violationProblems(r *ast.Rule) []string {
	switch key := assignedKey(r).Value.(type) {
	case ast.Var:
		return nil
	case ast.Object:
		return append(requiredFieldProblems(key), unknownFieldProblems(key)...)
	default:
		return []string{"a violation is an object with requirement, id and message, and can have value and retryable"}
	}
}

// assignedKey returns the key in the head of a rule or, if that is a variable, its value in the body.
func assignedKey(r *ast.Rule) *ast.Term {
	key := r.Head.Key
	if _, ok := key.Value.(ast.Var); !ok {
		return key
	}
	for _, e := range r.Body {
		if e.IsAssignment() && len(e.Operands()) == 2 && e.Operand(0).Equal(key) {
			key = e.Operand(1)
		}
	}
	return key
}

func requiredFieldProblems(violation ast.Object) []string {
	var problems []string
	for _, name := range violationFields[:3] {
		value := violation.Get(ast.StringTerm(name))
		if value == nil {
			problems = append(problems, fmt.Sprintf("the violation has no %s: it needs requirement (1 or 2), id and message", name))
			continue
		}
		switch v := value.Value.(type) {
		case ast.Number:
			if name == "requirement" && v.String() != "1" && v.String() != "2" {
				problems = append(problems, "requirement must be 1 (the subject controls the key) or 2 (the subject is authorized)")
			}
		case ast.String:
			if name != "requirement" && v == "" {
				problems = append(problems, fmt.Sprintf("the violation has an empty %s", name))
			}
		}
	}
	return problems
}

func unknownFieldProblems(violation ast.Object) []string {
	var problems []string
	violation.Foreach(func(k, _ *ast.Term) {
		if name, ok := k.Value.(ast.String); ok && !slices.Contains(violationFields, string(name)) {
			problems = append(problems, fmt.Sprintf("a violation has no field %q: it has requirement, id, message, value and retryable", string(name)))
		}
	})
	return problems
}
