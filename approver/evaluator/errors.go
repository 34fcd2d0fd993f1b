// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package evaluator

import (
	"errors"
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Error is one problem of a source. Row and Col count from 1; 0 means unknown.
type Error struct {
	File     string
	Row, Col int
	Message  string
	// Suggestions are the valid names, if the source uses an unknown one.
	Suggestions []string
}

func (e Error) Error() string {
	text := e.Message
	switch {
	case e.Row > 0:
		text = fmt.Sprintf("%s:%d:%d: %s", e.File, e.Row, e.Col, e.Message)
	case e.File != "":
		text = e.File + ": " + e.Message
	}
	if len(e.Suggestions) > 0 {
		text += "; there are: " + strings.Join(e.Suggestions, ", ")
	}
	return text
}

// Errors are all problems of a source, in the order of file, row and column.
type Errors []Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "; ")
}

// fromError converts an error of OPA about a source.
func fromError(file string, err error) Errors {
	if opa, ok := errors.AsType[ast.Errors](err); ok {
		return fromOPA(opa)
	}
	if opa, ok := errors.AsType[*ast.Error](err); ok {
		return fromOPA(ast.Errors{opa})
	}
	if file == "" {
		return Errors{{Message: err.Error()}}
	}
	return Errors{{File: file, Row: 1, Col: 1, Message: err.Error()}}
}

func fromOPA(in ast.Errors) Errors {
	out := make(Errors, 0, len(in))
	for _, e := range in {
		problem := Error{Message: e.Code + ": " + e.Message}
		if e.Location != nil {
			// OPA counts columns from 0 at the end of a module.
			problem.File, problem.Row, problem.Col = e.Location.File, e.Location.Row, max(e.Location.Col, 1)
		}
		if detail, ok := e.Details.(*ast.RefErrInvalidDetail); ok {
			for _, value := range detail.OneOf {
				problem.Suggestions = append(problem.Suggestions, strings.Trim(value.String(), `"`))
			}
		} else {
			problem.Message += detailLines(e.Details)
		}
		out = append(out, problem)
	}
	return out
}

// detailLines returns the lines of the details of an error, each after "; ". It omits the lines that
// mark a column.
func detailLines(details ast.ErrorDetails) string {
	if details == nil {
		return ""
	}
	var text strings.Builder
	for _, line := range details.Lines() {
		if line = strings.TrimSpace(line); strings.Trim(line, "^") != "" {
			text.WriteString("; " + line)
		}
	}
	return text.String()
}
