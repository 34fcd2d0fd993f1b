// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// A mutant is a module with one change.
type mutant struct {
	// id is stable: the file, the rule, the change, and a number if the rule has several such changes.
	id     string
	module *ast.Module
}

// mutants returns the mutants of a module:
//
//   - one condition is removed, in the body of a rule, a comprehension or an every
//   - one element of a set or an array is removed, except in the arguments of sprintf and concat
//   - retryable or requirement of a violation is inverted
//   - one of several definitions of a rule is removed, or the rule
func mutants(file string, module *ast.Module) []mutant {
	var out []mutant
	ids := map[string]int{}
	for n := 0; ; n++ {
		m := &mutator{target: n}
		changed := module.Copy()
		m.module(changed)
		if m.change == "" {
			return out
		}
		id := fmt.Sprintf("%s %s: %s", file, m.rule, m.change)
		if ids[id]++; ids[id] > 1 {
			id = fmt.Sprintf("%s (%d)", id, ids[id])
		}
		out = append(out, mutant{id, changed})
	}
}

// mutator applies the change with the number target to a module.
type mutator struct {
	target, visited int
	current         string // the rule that is visited
	rule, change    string // the change that was applied
}

// next reports whether the next change is the one to apply, and describes it.
func (m *mutator) next(change string) bool {
	m.visited++
	if m.visited-1 != m.target {
		return false
	}
	m.rule, m.change = m.current, change
	return true
}

func (m *mutator) module(module *ast.Module) {
	for i, rule := range module.Rules {
		m.current = rule.Head.Ref().String()
		if id := violationID(rule); id != "" {
			m.current += " " + id
		}
		for rule := rule; rule != nil; rule = rule.Else {
			m.head(rule.Head)
			ast.WalkBodies(rule.Body, func(body ast.Body) bool { m.body(body); return false })
			if rule.Head.Value != nil {
				ast.WalkBodies(rule.Head.Value, func(body ast.Body) bool { m.body(body); return false })
				m.elements(rule.Head.Value)
			}
			m.elements(rule.Body)
			if rule.Else != nil && m.next("remove the else branch") {
				rule.Else = nil
			}
		}
		if m.next("remove the definition `" + short(rule.Head.String()+" if { "+rule.Body.String()+" }") + "`") {
			module.Rules = append(module.Rules[:i:i], module.Rules[i+1:]...)
			return
		}
	}
}

// body removes conditions. The condition `true` takes their place.
func (m *mutator) body(body ast.Body) {
	for i, expr := range body {
		always := ast.NewExpr(ast.BooleanTerm(true))
		if expr.Equal(always) {
			continue // a rule without a body has this one
		}
		if m.next("remove `" + short(expr.String()) + "`") {
			body[i] = always
		}
	}
}

// elements removes elements of sets and arrays.
func (m *mutator) elements(x any) {
	ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.Expr:
			return x.IsCall() && isText(x.Operator())
		case ast.Call:
			ref, ok := x[0].Value.(ast.Ref)
			return ok && isText(ref)
		case *ast.Term:
			m.term(x)
		}
		return false
	}).Walk(x)
}

func isText(operator ast.Ref) bool {
	return operator.Equal(ast.Sprintf.Ref()) || operator.Equal(ast.Concat.Ref())
}

func (m *mutator) term(term *ast.Term) {
	var elements []*ast.Term
	switch value := term.Value.(type) {
	case ast.Set:
		elements = value.Slice()
	case *ast.Array:
		for i := range value.Len() {
			elements = append(elements, value.Elem(i))
		}
	default:
		return
	}
	for i := range elements {
		if !m.next("remove element `" + short(elements[i].String()) + "` of `" + short(term.String()) + "`") {
			continue
		}
		rest := append(elements[:i:i], elements[i+1:]...)
		if _, ok := term.Value.(ast.Set); ok {
			term.Value = ast.NewSet(rest...)
		} else {
			term.Value = ast.NewArray(rest...)
		}
		return
	}
}

// head changes retryable and requirement of a violation.
func (m *mutator) head(head *ast.Head) {
	if head.Key == nil {
		return
	}
	object, ok := head.Key.Value.(ast.Object)
	if !ok {
		return
	}
	for _, change := range []struct {
		key    string
		values []*ast.Term
	}{
		{"retryable", []*ast.Term{ast.BooleanTerm(true), ast.BooleanTerm(false)}},
		{"requirement", []*ast.Term{ast.IntNumberTerm(1), ast.IntNumberTerm(2)}},
	} {
		for _, value := range change.values {
			old := object.Get(ast.StringTerm(change.key))
			if old == nil || old.Equal(value) || !m.next(fmt.Sprintf("%s is %s", change.key, value)) {
				continue
			}
			pairs := [][2]*ast.Term{}
			object.Foreach(func(k, v *ast.Term) {
				if k.Equal(ast.StringTerm(change.key)) {
					v = value
				}
				pairs = append(pairs, ast.Item(k, v))
			})
			head.Key = &ast.Term{Value: ast.NewObject(pairs...), Location: head.Key.Location}
			return
		}
	}
}

// violationID returns the id in the head of a violation.
func violationID(rule *ast.Rule) string {
	if rule.Head.Key == nil {
		return ""
	}
	object, ok := rule.Head.Key.Value.(ast.Object)
	if !ok {
		return ""
	}
	id := object.Get(ast.StringTerm("id"))
	if id == nil {
		return ""
	}
	text, _ := id.Value.(ast.String)
	return string(text)
}

// short returns text on one line, of at most 100 bytes.
func short(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 100 {
		text = text[:100] + "…"
	}
	return text
}
