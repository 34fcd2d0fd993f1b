// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package evaluator

import (
	"errors"
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Error is one fault of a source. Row and Col count from 1; 0 is unknown.
type Error struct {
	File     string
	Row, Col int
	Message  string
	// Suggestions are the names that there are, if one was used that is not.
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

// Errors are all faults of a source, in the order of file, row and column.
type Errors []Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "; ")
}

// fromError makes Errors of what OPA says of a source.
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
		fault := Error{Message: e.Code + ": " + e.Message}
		if e.Location != nil {
			// OPA counts columns from 0 where it finds nothing more to read.
			fault.File, fault.Row, fault.Col = e.Location.File, e.Location.Row, max(e.Location.Col, 1)
		}
		if detail, ok := e.Details.(*ast.RefErrInvalidDetail); ok {
			for _, value := range detail.OneOf {
				fault.Suggestions = append(fault.Suggestions, strings.Trim(value.String(), `"`))
			}
		} else if e.Details != nil {
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
