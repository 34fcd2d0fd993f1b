// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package evaluator

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"

	"countersign.dev/countersign/approver/facts"
)

// Input is the facts as policies see them. All policies that evaluate a request, and its audit record,
// share one, and its budget of CPU time. The facts are immutable. [NewInput] returns one.
type Input struct {
	budget budget
	raw    []byte
	err    error          // of encoding
	fields [][2]*ast.Term // none if the facts are too large
}

// NewInput returns the input for facts. It ignores their Parameters, since each policy has its own.
// [Policy.Evaluate] returns an error if the facts are too large or cannot be encoded.
func NewInput(f *facts.Facts) *Input {
	own := *f
	own.Parameters = nil
	in := &Input{}
	if in.raw, in.err = json.Marshal(&own); in.err == nil && in.size() <= MaxInput {
		in.fields = factsFields(reflect.ValueOf(&own).Elem())
	}
	return in
}

// JSON returns the facts without parameters, for the record. It is nil if they cannot be encoded.
func (in *Input) JSON() json.RawMessage { return in.raw }

// size returns the size of the facts as JSON, without the parameters, which are null there.
func (in *Input) size() int { return len(in.raw) - len("null") }

// with returns the document for a policy with parameters, whose size as JSON is length.
func (in *Input) with(parameters *ast.Term, length int) (ast.Value, error) {
	if in.err != nil {
		return nil, fmt.Errorf("encoding the input: %w", in.err)
	}
	if size := in.size() + length; size > MaxInput {
		return nil, fmt.Errorf("the input has %d bytes, the maximum is %d: remove labels from the objects that the request is about", size, MaxInput)
	}
	return ast.NewObject(append(slices.Clip(in.fields), [2]*ast.Term{parametersKey, parameters})...), nil
}

var (
	parametersKey = ast.StringTerm("parameters")
	factsFields   = fieldsOf(reflect.TypeFor[facts.Facts](), "parameters")
)

// converter converts a Go value to the value that OPA would parse from its JSON. That takes a third of the
// time of encoding and parsing, which is 5 to 10 % of the CPU of an approver: see
// docs/decisions/0010-no-tuning-of-the-runtime.md.
type converter func(reflect.Value) ast.Value

// converterOf returns the converter for a type of a fact.
func converterOf(t reflect.Type) converter {
	if t == reflect.TypeFor[time.Time]() {
		return func(v reflect.Value) ast.Value {
			at, _ := reflect.TypeAssert[time.Time](v)
			return ast.String(at.Format(time.RFC3339Nano))
		}
	}
	switch t.Kind() {
	case reflect.Bool:
		return func(v reflect.Value) ast.Value { return ast.InternedValue(v.Bool()) }
	case reflect.Int, reflect.Int32:
		return func(v reflect.Value) ast.Value { return ast.InternedValue(v.Int()) }
	case reflect.String:
		return func(v reflect.Value) ast.Value { return text(v.String()) }
	case reflect.Pointer:
		of := converterOf(t.Elem())
		return orNull(func(v reflect.Value) ast.Value { return of(v.Elem()) })
	case reflect.Slice:
		return orNull(arrayOf(converterOf(t.Elem())))
	case reflect.Map:
		return orNull(objectOf(converterOf(t.Elem())))
	case reflect.Struct:
		fields := fieldsOf(t, "")
		return func(v reflect.Value) ast.Value { return ast.NewObject(fields(v)...) }
	default:
		panic(fmt.Sprintf("unsupported type %s in facts", t))
	}
}

// text returns a string with invalid UTF-8 replaced, as in JSON.
func text(s string) ast.Value {
	if !utf8.ValidString(s) {
		s = string([]rune(s))
	}
	return ast.InternedValue(s)
}

func orNull(of converter) converter {
	return func(v reflect.Value) ast.Value {
		if v.IsNil() {
			return ast.InternedNullValue
		}
		return of(v)
	}
}

func arrayOf(of converter) converter {
	return func(v reflect.Value) ast.Value {
		terms, pointers := make([]ast.Term, v.Len()), make([]*ast.Term, v.Len())
		for i := range terms {
			terms[i].Value, pointers[i] = of(v.Index(i)), &terms[i]
		}
		return ast.NewArray(pointers...)
	}
}

// objectOf inserts the keys in the order of JSON. If two keys are equal there, the last one counts.
func objectOf(of converter) converter {
	return func(v reflect.Value) ast.Value {
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		object := ast.NewObjectWithCapacity(len(keys))
		for _, key := range keys {
			object.Insert(ast.NewTerm(text(key.String())), ast.NewTerm(of(v.MapIndex(key))))
		}
		return object
	}
}

// fieldsOf returns a function that converts the fields of a struct, except the field without.
func fieldsOf(t reflect.Type, without string) func(reflect.Value) [][2]*ast.Term {
	var keys []*ast.Term
	var converters []func(reflect.Value) ast.Value // of the struct
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("json"); name != without {
			of := converterOf(t.Field(i).Type)
			keys = append(keys, ast.StringTerm(name))
			converters = append(converters, func(v reflect.Value) ast.Value { return of(v.Field(i)) })
		}
	}
	return func(v reflect.Value) [][2]*ast.Term {
		terms, out := make([]ast.Term, len(keys)), make([][2]*ast.Term, len(keys))
		for i := range keys {
			terms[i].Value = converters[i](v)
			out[i] = [2]*ast.Term{keys[i], &terms[i]}
		}
		return out
	}
}
