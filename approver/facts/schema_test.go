// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/invopop/jsonschema"

	"countersign.dev/countersign/approver/facts"
)

var update = flag.Bool("update", false, "rewrite the generated schema")

const schemaFile = "../../policies/schema/input.json"

// Policies are compiled against the schema, so it must describe Facts exactly.
func TestInputSchemaIsCurrent(t *testing.T) {
	want := inputSchema(t)
	if *update {
		if err := os.WriteFile(schemaFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s is not the schema of facts.Facts: run make generate", schemaFile)
	}
}

const referenceFile = "../../docs/input.md"

// docs/input.md is the same reference for policy authors.
func TestInputReferenceIsCurrent(t *testing.T) {
	var schema map[string]any
	if err := json.Unmarshal(inputSchema(t), &schema); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	text.WriteString("# The input of a policy\n\n" +
		"Generated from [policies/schema/input.json](../policies/schema/input.json) by `make generate`: change approver/facts/facts.go instead. " +
		"Every key is always present. An unknown value is null where the table says so, and empty otherwise.\n\n| key | type | description |\n|---|---|---|\n")
	reference(&text, "input", schema)
	want := []byte(text.String())
	if *update {
		if err := os.WriteFile(referenceFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s is not what the schema says: run make generate", referenceFile)
	}
}

// reference writes a row for each key below a schema.
func reference(out *strings.Builder, path string, schema map[string]any) {
	properties, _ := schema["properties"].(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		property, _ := properties[key].(map[string]any)
		at := path + "." + key
		kind, suffix, item := kindOf(property)
		description, _ := property["description"].(string)
		fmt.Fprintf(out, "| `%s` | %s | %s |\n", at, kind, strings.ReplaceAll(strings.Join(strings.Fields(description), " "), "|", "\\|"))
		reference(out, at+suffix, item)
	}
}

// kindOf names the type of a schema. The suffix leads to its items, or is empty if it has none.
func kindOf(schema map[string]any) (kind, suffix string, item map[string]any) {
	kind, null := fmt.Sprint(schema["type"]), ""
	if types, ok := schema["type"].([]any); ok {
		kind, null = fmt.Sprint(types[0]), " or null"
	}
	if items, ok := schema["items"].(map[string]any); ok {
		of, more, inner := kindOf(items)
		return "array of " + of + null, "[]" + more, inner
	}
	if values, ok := schema["additionalProperties"].(map[string]any); ok && schema["properties"] == nil {
		of, more, inner := kindOf(values)
		return "object of " + of + " by name" + null, "[name]" + more, inner
	}
	return kind + null, "", schema
}

func inputSchema(t *testing.T) []byte {
	t.Helper()
	r := &jsonschema.Reflector{
		Anonymous:      true,
		DoNotReference: true,
		Mapper: func(typ reflect.Type) *jsonschema.Schema {
			if typ == reflect.TypeFor[time.Time]() {
				return &jsonschema.Schema{Type: "string"}
			}
			return nil
		},
	}
	if err := r.AddGoComments("countersign.dev/countersign/approver/facts", ".", jsonschema.WithFullComment()); err != nil {
		t.Fatal(err)
	}
	schema := r.Reflect(&facts.Facts{})
	schema.Version = ""
	raw, err := json.Marshal(schema)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	nullable(doc, reflect.TypeFor[facts.Facts]())
	out, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(out, '\n')
}

// nullable marks the fields that may be null, which are the pointers, by a list of
// two types: OPA's type checker then still knows the fields of the object.
func nullable(schema map[string]any, typ reflect.Type) {
	properties, _ := schema["properties"].(map[string]any)
	for field := range typ.Fields() {
		property, _ := properties[field.Tag.Get("json")].(map[string]any)
		if property == nil {
			continue
		}
		elem := field.Type
		switch elem.Kind() {
		case reflect.Pointer:
			elem = elem.Elem()
			property["type"] = []any{property["type"], "null"}
		case reflect.Slice:
			elem = elem.Elem()
			property, _ = property["items"].(map[string]any)
		default:
		}
		if elem.Kind() == reflect.Struct && elem != reflect.TypeFor[time.Time]() {
			nullable(property, elem)
		}
	}
}
