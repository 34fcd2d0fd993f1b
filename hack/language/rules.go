// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"regexp"
	"strings"
)

// scope is the kind of text a rule applies to.
type scope string

const (
	everywhere scope = ""         // text and identifiers
	inText     scope = "text"     // text only
	inNames    scope = "name"     // Go identifiers only
	inSentence scope = "sentence" // the start of a sentence of prose that is not a question
)

// rule is a line of words.txt.
type rule struct {
	scope   scope
	source  string // as written in words.txt
	pattern *regexp.Regexp
	instead string
}

// parseRules parses words.txt. A line is "[scope:] expression => what to write instead".
func parseRules(text string) ([]rule, error) {
	var rules []rule
	for number, fields := range lines(text) {
		if len(fields) != 2 {
			return nil, fmt.Errorf("line %d: want \"expression => what to write instead\"", number)
		}
		r := rule{source: fields[0], instead: fields[1]}
		expression := fields[0]
		for _, s := range []scope{inText, inNames, inSentence} {
			if rest, ok := strings.CutPrefix(expression, string(s)+": "); ok {
				r.scope, expression = s, rest
			}
		}
		var err error
		if r.pattern, err = compile(expression, r.scope != inSentence); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// find returns the spans of the passage that the rule refuses.
func (r rule) find(p passage) [][2]int {
	switch {
	case p.kind == name && r.scope != everywhere && r.scope != inNames,
		p.kind != name && r.scope == inNames,
		p.kind != prose && r.scope == inSentence:
		return nil
	}
	var spans [][2]int
	if r.scope != inSentence {
		for _, m := range r.pattern.FindAllStringIndex(p.text, -1) {
			spans = append(spans, [2]int(m))
		}
		return spans
	}
	for _, sentence := range sentences(p.text) {
		m := r.pattern.FindStringIndex(p.text[sentence[0]:sentence[1]])
		if m != nil && m[0] == 0 {
			spans = append(spans, [2]int{sentence[0], sentence[0] + m[1]})
		}
	}
	return spans
}

// allowance is a line of allow.txt: an exception from the rules.
type allowance struct {
	line             int
	path, expression string
	paths, pattern   *regexp.Regexp
	used             bool
}

// parseAllowances parses allow.txt. A line is "path => expression => reason".
func parseAllowances(text string) ([]*allowance, error) {
	var all []*allowance
	for number, fields := range lines(text) {
		if len(fields) != 3 {
			return nil, fmt.Errorf("line %d: want \"path => expression => reason\"", number)
		}
		glob := regexp.QuoteMeta(fields[0])
		glob = strings.ReplaceAll(glob, `\*\*`, ".*")
		glob = strings.ReplaceAll(glob, `\*`, "[^/]*")
		pattern, err := compile(fields[1], true)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		all = append(all, &allowance{
			line: number, path: fields[0], expression: fields[1],
			paths: regexp.MustCompile("^" + glob + "$"), pattern: pattern,
		})
	}
	return all, nil
}

// covers reports whether the allowance is for the file, and its expression matches around the span.
func (a *allowance) covers(name string, p passage, span [2]int) bool {
	if !a.paths.MatchString(name) {
		return false
	}
	for _, m := range a.pattern.FindAllStringIndex(p.text, -1) {
		if m[0] <= span[0] && span[1] <= m[1] {
			return true
		}
	}
	return false
}

// compile compiles an expression in which a space matches the end of a line too.
func compile(expression string, ignoreCase bool) (*regexp.Regexp, error) {
	expression = strings.ReplaceAll(expression, " ", `[ \n]`)
	if ignoreCase {
		expression = "(?i)" + expression
	}
	return regexp.Compile(expression)
}

// lines yields the number and the fields of each line that is not empty and not a comment.
func lines(text string) func(func(int, []string) bool) {
	return func(yield func(int, []string) bool) {
		for i, line := range strings.Split(text, "\n") {
			if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			fields := strings.Split(line, "=>")
			for j := range fields {
				fields[j] = strings.TrimSpace(fields[j])
			}
			if !yield(i+1, fields) {
				return
			}
		}
	}
}
