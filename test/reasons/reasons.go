// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package reasons reads the examples in the doc comments of reason constants, so that tests can
// compare them with the messages that the code emits.
//
// The last line of such a comment is
//
//	// Example: "the whole message, as a Go string"
package reasons

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
)

// Examples returns the examples of the constants in a Go file whose names begin with "Reason", by
// the name of the constant. Every such constant must have an example.
func Examples(file string) (map[string]string, error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	examples := map[string]string{}
	var errs []error
	ast.Inspect(parsed, func(n ast.Node) bool {
		declaration, ok := n.(*ast.GenDecl)
		if !ok {
			return true
		}
		for _, spec := range declaration.Specs {
			value, ok := spec.(*ast.ValueSpec)
			if !ok || declaration.Tok != token.CONST || !strings.HasPrefix(value.Names[0].Name, "Reason") {
				continue
			}
			doc := value.Doc
			if doc == nil {
				doc = declaration.Doc // of a constant without parentheses
			}
			name := value.Names[0].Name
			if examples[name], err = example(doc.Text()); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
		}
		return false
	})
	return examples, errors.Join(errs...)
}

// example returns the message in the line "Example:" of a comment.
func example(comment string) (string, error) {
	_, rest, found := strings.Cut(comment, "Example: ")
	if !found {
		return "", errors.New("the comment has no line that begins with \"Example: \"")
	}
	message, err := strconv.Unquote(strings.TrimSpace(rest))
	if err != nil {
		return "", fmt.Errorf("the example must be one Go string at the end of the comment: %w", err)
	}
	return message, nil
}
