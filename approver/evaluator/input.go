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

// Input is facts as policies see them, made once for all policies that look at a request and for
// the record. It is immutable. Make one with [NewInput].
type Input struct {
	raw    []byte
	err    error          // of encoding
	fields [][2]*ast.Term // none if there are too many bytes of them
}

// NewInput makes the input of policies of facts, whose Parameters do not count: each policy has
// its own. Whether it can be evaluated is said by [Policy.Evaluate].
func NewInput(f *facts.Facts) *Input {
	own := *f
	own.Parameters = nil
	in := &Input{}
	if in.raw, in.err = json.Marshal(&own); in.err == nil && in.size() <= MaxInput {
		in.fields = factsFields(reflect.ValueOf(&own).Elem())
	}
	return in
}

// JSON is the facts without parameters, for the record; nil if they cannot be encoded.
func (in *Input) JSON() json.RawMessage { return in.raw }

// size is that of the facts as JSON, but for the parameters: these are null there.
func (in *Input) size() int { return len(in.raw) - len("null") }

// with is the document that a policy sees whose parameters have some length as JSON.
func (in *Input) with(parameters *ast.Term, length int) (ast.Value, error) {
	if in.err != nil {
		return nil, fmt.Errorf("encoding the input: %w", in.err)
	}
	if size := in.size() + length; size > MaxInput {
		return nil, fmt.Errorf("the input has %d bytes, and at most %d are evaluated: give the objects that the request is about fewer labels", size, MaxInput)
	}
	return ast.NewObject(append(slices.Clip(in.fields), [2]*ast.Term{parametersKey, parameters})...), nil
}

var (
	parametersKey = ast.StringTerm("parameters")
	factsFields   = fieldsOf(reflect.TypeFor[facts.Facts](), "parameters")
)

// A maker makes of a Go value what OPA would make of its JSON, in a third of the time.
type maker func(reflect.Value) ast.Value

// makerOf makes a maker for one of the types that facts consist of.
func makerOf(t reflect.Type) maker {
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
		of := makerOf(t.Elem())
		return orNull(func(v reflect.Value) ast.Value { return of(v.Elem()) })
	case reflect.Slice:
		return orNull(arrayOf(makerOf(t.Elem())))
	case reflect.Map:
		return orNull(objectOf(makerOf(t.Elem())))
	case reflect.Struct:
		fields := fieldsOf(t, "")
		return func(v reflect.Value) ast.Value { return ast.NewObject(fields(v)...) }
	default:
		panic(fmt.Sprintf("facts cannot have a %s", t))
	}
}

// text is a string as JSON can hold it.
func text(s string) ast.Value {
	if !utf8.ValidString(s) {
		s = string([]rune(s))
	}
	return ast.InternedValue(s)
}

func orNull(of maker) maker {
	return func(v reflect.Value) ast.Value {
		if v.IsNil() {
			return ast.InternedNullValue
		}
		return of(v)
	}
}

func arrayOf(of maker) maker {
	return func(v reflect.Value) ast.Value {
		terms, pointers := make([]ast.Term, v.Len()), make([]*ast.Term, v.Len())
		for i := range terms {
			terms[i].Value, pointers[i] = of(v.Index(i)), &terms[i]
		}
		return ast.NewArray(pointers...)
	}
}

// objectOf takes keys in the order that JSON has them in: of two that are one text there, the last counts.
func objectOf(of maker) maker {
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

// fieldsOf makes the fields of an object of those of a struct, but for one.
func fieldsOf(t reflect.Type, without string) func(reflect.Value) [][2]*ast.Term {
	var keys []*ast.Term
	var makers []func(reflect.Value) ast.Value // of the struct
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("json"); name != without {
			of := makerOf(t.Field(i).Type)
			keys = append(keys, ast.StringTerm(name))
			makers = append(makers, func(v reflect.Value) ast.Value { return of(v.Field(i)) })
		}
	}
	return func(v reflect.Value) [][2]*ast.Term {
		terms, out := make([]ast.Term, len(keys)), make([][2]*ast.Term, len(keys))
		for i := range keys {
			terms[i].Value = makers[i](v)
			out[i] = [2]*ast.Term{keys[i], &terms[i]}
		}
		return out
	}
}
