// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package evaluator

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
)

// ParametersField is the File of an [Error] about the parameters of a source.
const ParametersField = "spec.parameters"

// checkParameters validates the parameters of a source with its schema for them, and returns the
// schema. It returns nil if the source has none.
func (s Source) checkParameters(ctx context.Context) (any, error) {
	text, ok := s.Modules[ParametersSchemaFile]
	if !ok {
		return nil, nil
	}
	invalid := func(format string, args ...any) error {
		return Errors{{File: ParametersSchemaFile, Row: 1, Col: 1, Message: fmt.Sprintf(format, args...)}}
	}
	var schema map[string]any
	if err := json.Unmarshal([]byte(text), &schema); err != nil {
		return nil, invalid("the file is not a JSON object: %v", err)
	}
	if keyword := reference(schema); keyword != "" {
		return nil, invalid("%s refers to another schema, which is not loaded: write the schema in its place", keyword)
	}
	if schema["type"] != "object" {
		return nil, invalid("parameters must be an object: set \"type\": \"object\"")
	}
	parameters := s.Parameters
	if parameters == nil {
		parameters = map[string]any{}
	}
	results, err := rego.New(
		rego.Query("valid := json.verify_schema(input.schema)[0]; problems := [p | some p in json.match_schema(input.parameters, input.schema)[1]]"),
		rego.Imports([]string{"rego.v1"}),
		rego.Input(map[string]any{"schema": schema, "parameters": parameters}),
		rego.StrictBuiltinErrors(true),
	).Eval(ctx)
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("checking parameters: %w", ctx.Err())
	case err != nil:
		return nil, invalid("the file is not a JSON Schema: %v", err)
	case len(results) != 1 || results[0].Bindings["valid"] != true:
		return nil, invalid("the file is not a JSON Schema")
	}
	raw, err := json.Marshal(results[0].Bindings["problems"])
	if err != nil {
		return nil, fmt.Errorf("checking parameters: %w", err)
	}
	var problems []struct{ Field, Desc string }
	if err := json.Unmarshal(raw, &problems); err != nil {
		return nil, fmt.Errorf("checking parameters: %w", err)
	}
	var out Errors
	for _, p := range problems {
		text := p.Desc
		if !strings.EqualFold(p.Field, "(root)") {
			text = p.Field + ": " + p.Desc
		}
		out = append(out, Error{File: ParametersField, Message: text})
	}
	if out != nil {
		slices.SortFunc(out, func(a, b Error) int { return strings.Compare(a.Message, b.Message) })
		return nil, out
	}
	return schema, nil
}

// parametersTerm returns the parameters as a term of OPA, and their length as JSON.
func (s Source) parametersTerm() (*ast.Term, int, error) {
	raw := []byte("{}")
	if s.Parameters != nil {
		var err error
		if raw, err = json.Marshal(s.Parameters); err != nil {
			return nil, 0, fmt.Errorf("encoding the parameters: %w", err)
		}
	}
	value, err := ast.ValueFromReader(bytes.NewReader(raw))
	if err != nil {
		return nil, 0, fmt.Errorf("parsing the parameters: %w", err)
	}
	return ast.NewTerm(value), len(raw), nil
}

// reference returns the first keyword in a schema that names another place, or a base for relative
// references. OPA would send a request to a server for it.
func reference(value any) string {
	switch v := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if keyword := referenceIn(key, v[key]); keyword != "" {
				return keyword
			}
		}
	case []any:
		for _, item := range v {
			if keyword := reference(item); keyword != "" {
				return keyword
			}
		}
	}
	return ""
}

// referenceIn returns the first such keyword in one member of a schema.
func referenceIn(key string, value any) string {
	switch key {
	case "$ref", "$id", "id", "$dynamicRef", "$recursiveRef":
		if _, ok := value.(string); ok {
			return key
		}
	case "default", "const", "enum", "examples":
		return "" // values, not schemas
	}
	return reference(value)
}
