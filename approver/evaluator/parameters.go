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

// ParametersField is the File of an [Error] that is about the parameters of a source.
const ParametersField = "spec.parameters"

// checkParameters compares the parameters of a source with its schema for them, and returns
// that schema; nil if it has none.
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
		return nil, invalid("it is not a JSON object: %v", err)
	}
	if keyword := reference(schema); keyword != "" {
		return nil, invalid("%s leads to other places, which are not read: write what is meant in its place", keyword)
	}
	if schema["type"] != "object" {
		return nil, invalid("parameters are an object: set \"type\": \"object\"")
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
		return nil, invalid("it is not a JSON Schema: %v", err)
	case len(results) != 1 || results[0].Bindings["valid"] != true:
		return nil, invalid("it is not a JSON Schema")
	}
	raw, err := json.Marshal(results[0].Bindings["problems"])
	if err != nil {
		return nil, fmt.Errorf("checking parameters: %w", err)
	}
	var problems []struct{ Field, Desc string }
	if err := json.Unmarshal(raw, &problems); err != nil {
		return nil, fmt.Errorf("checking parameters: %w", err)
	}
	var faults Errors
	for _, p := range problems {
		text := p.Desc
		if !strings.EqualFold(p.Field, "(root)") {
			text = p.Field + ": " + p.Desc
		}
		faults = append(faults, Error{File: ParametersField, Message: text})
	}
	if faults != nil {
		slices.SortFunc(faults, func(a, b Error) int { return strings.Compare(a.Message, b.Message) })
		return nil, faults
	}
	return schema, nil
}

// parametersTerm is the parameters as policies see them, and how long they are as JSON.
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

// reference is the first keyword in a schema that names another place, or a place that others
// are relative to: OPA would ask a server for it.
func reference(value any) string {
	switch v := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			_, isText := v[key].(string)
			switch {
			case slices.Contains([]string{"$ref", "$id", "id", "$dynamicRef", "$recursiveRef"}, key) && isText:
				return key
			case slices.Contains([]string{"default", "const", "enum", "examples"}, key):
				continue // values, and no schemas
			}
			if keyword := reference(v[key]); keyword != "" {
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
