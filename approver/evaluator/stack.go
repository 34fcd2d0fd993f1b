// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package evaluator

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// maxStack is the maximum number of expressions that are on the stack of an evaluation at a time. OPA needs
// up to 4 KiB of stack for each.
const maxStack = 1024

// stacks counts the expressions that the evaluation of a rule can have on its stack: its own, those of
// each call of a function, and those of the largest other rule that it reads. OPA evaluates the rest
// of a rule inside of each call.
type stacks struct {
	compiler *ast.Compiler
	counted  map[*ast.Rule]int
	problems Errors
}

// stackProblems returns the rules that need too much stack, other than through a rule that does itself.
func stackProblems(c *ast.Compiler) Errors {
	s := stacks{compiler: c, counted: map[*ast.Rule]int{}}
	for _, module := range c.Modules {
		for _, rule := range module.Rules {
			s.count(rule)
		}
	}
	slices.SortFunc(s.problems, func(a, b Error) int { return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Row, b.Row)) })
	return s.problems
}

// count returns at most maxStack+1. Rego has no recursion.
func (s *stacks) count(rule *ast.Rule) int {
	if n, ok := s.counted[rule]; ok {
		return n
	}
	called, largest, reported := 0, 0, false
	ast.WalkRefs(rule, func(ref ast.Ref) bool {
		if ref.HasPrefix(ast.DefaultRootRef) {
			n, function := s.countAll(ref, rule)
			reported = reported || n > maxStack
			if function {
				called += n
			} else {
				largest = max(largest, n)
			}
		}
		return false
	})
	n := expressions(rule) + called + largest
	if n > maxStack && !reported {
		s.problems = append(s.problems, Error{
			File: rule.Location.File, Row: rule.Location.Row, Col: rule.Location.Col,
			Message: fmt.Sprintf("the rule evaluates %d expressions together with the functions that it calls and the rules that it reads, the maximum is %d: split it", n, maxStack),
		})
	}
	s.counted[rule] = min(n, maxStack+1)
	return s.counted[rule]
}

// countAll returns the maximum of the rules that ref reads, and whether one is a function.
func (s *stacks) countAll(ref ast.Ref, reader *ast.Rule) (most int, function bool) {
	for _, rule := range s.compiler.GetRulesDynamicWithOpts(ref, ast.RulesOptions{IncludeHiddenModules: true}) {
		if rule != reader {
			most, function = max(most, s.count(rule)), function || len(rule.Head.Args) > 0
		}
	}
	return most, function
}
