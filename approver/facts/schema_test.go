// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/invopop/jsonschema"

	"countersign.dev/countersign/approver/facts"
)

var update = flag.Bool("update", false, "rewrite the generated schema")

const schemaFile = "../../policies/schema/input.json"

// The schema is what policies compile against: it must say exactly what Facts is.
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
