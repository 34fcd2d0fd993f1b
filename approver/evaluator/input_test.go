// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package evaluator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"countersign.dev/countersign/approver/facts"
)

// texts are what JSON writes otherwise than it is, among what it does not.
var texts = []string{"", "a", "web.ns.svc.cluster.local", "<&>", "\"\\/\n\t\x00\x7f", "\u2028\u2029", "ü", "\U0001F512", "\xff", "a\xff\xfe", "\xed\xa0\x80", "\ufffd"}

// fill sets a value of any of the types of facts to one of many: null, empty, and of any length and text.
func fill(v reflect.Value, r *rand.Rand) {
	if v.Type() == reflect.TypeFor[time.Time]() {
		at := time.Unix(r.Int64N(4e9), r.Int64N(2)*r.Int64N(1e9)).In(time.FixedZone("", r.IntN(3)*1800))
		v.Set(reflect.ValueOf([]time.Time{{}, at, at.UTC()}[r.IntN(3)]))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int, reflect.Int32:
		v.SetInt([]int64{0, 1, -1, int64(r.Int32()), -int64(r.Int32())}[r.IntN(5)])
	case reflect.String:
		v.SetString(texts[r.IntN(len(texts))] + texts[r.IntN(len(texts))])
	case reflect.Pointer:
		if r.IntN(4) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), r)
		}
	case reflect.Slice:
		if n := r.IntN(5); n > 0 {
			v.Set(reflect.MakeSlice(v.Type(), n-1, n))
			for i := range n - 1 {
				fill(v.Index(i), r)
			}
		}
	case reflect.Map:
		if n := r.IntN(5); n > 0 && v.Type() != reflect.TypeFor[map[string]any]() {
			v.Set(reflect.MakeMap(v.Type()))
			for range n - 1 {
				key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
				fill(key, r)
				fill(value, r)
				v.SetMapIndex(key, value)
			}
		}
	case reflect.Struct:
		for _, field := range v.Fields() {
			fill(field, r)
		}
	default:
		panic(v.Type())
	}
}

// sameAsJSON compares what policies see with what they would if the facts came as JSON.
func sameAsJSON(t *testing.T, f facts.Facts, parameters map[string]any) {
	t.Helper()
	term, length, err := Source{Parameters: parameters}.parametersTerm()
	if err != nil {
		t.Fatal(err)
	}
	in := NewInput(&f)
	got, err := in.with(term, length)
	if err != nil {
		t.Fatal(err)
	}
	if f.Parameters = parameters; parameters == nil {
		f.Parameters = map[string]any{}
	}
	raw, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	want, err := ast.ValueFromReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if got.Compare(want) != 0 || got.Hash() != want.Hash() || !got.IsGround() {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	f.Parameters = nil
	if raw, err = json.Marshal(f); err != nil || !bytes.Equal(raw, in.JSON()) {
		t.Fatalf("%v\ngot  %s\nwant %s", err, in.JSON(), raw)
	}
}

func TestInputEqualsJSON(t *testing.T) {
	sameAsJSON(t, facts.Facts{}, nil)
	parameters := []map[string]any{nil, {}, {"max": 86400.0, "huge": 1e21, "allow": true, "list": []any{"a", nil, -0.5}, "<\xff>": map[string]any{"x": "\u2028"}}}
	for seed := range uint64(2000) {
		var f facts.Facts
		fill(reflect.ValueOf(&f).Elem(), rand.New(rand.NewPCG(seed, 0)))
		sameAsJSON(t, f, parameters[seed%3])
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// The key that stands later in the JSON, whose order is that of the bytes, counts.
func TestInputDuplicateKeys(t *testing.T) {
	f := facts.Facts{Cluster: facts.Cluster{Subject: facts.ClusterSubject{Pod: &facts.Pod{Labels: map[string]string{"\xff": "1", "\xfe": "2", "\ufffd": "3", "\xf0": "4"}}}}}
	for range 20 {
		sameAsJSON(t, f, nil)
	}
}

func FuzzInputEqualsJSON(f *testing.F) {
	for _, text := range texts {
		f.Add(text, text, int32(0))
	}
	f.Fuzz(func(t *testing.T, a, b string, n int32) {
		sameAsJSON(t, facts.Facts{
			Request:   facts.Request{Name: a, ExpirationSeconds: &n},
			Requester: facts.Requester{Groups: []string{b, a}},
			PKCS10:    facts.PKCS10{Key: facts.Key{Bits: int(n)}},
			Cluster:   facts.Cluster{Resolved: map[string][]facts.Resolved{a: {{Detail: b}}, b: nil}},
		}, map[string]any{a: b})
	})
}

// The limit is on the JSON of facts and parameters together.
func TestInputLimit(t *testing.T) {
	empty, err := json.Marshal(facts.Facts{Parameters: map[string]any{}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name       string
		text       string
		parameters map[string]any
		over       int
	}{
		{"facts that just fit", strings.Repeat("x", MaxInput-len(empty)), nil, 0},
		{"one byte more", strings.Repeat("x", MaxInput-len(empty)+1), nil, 1},
		{"many more", strings.Repeat("x", MaxInput), nil, len(empty)},
		{"bytes that JSON writes as more", strings.Repeat("<", (MaxInput-len(empty))/6+1), nil, 6 - (MaxInput-len(empty))%6},
		{"parameters that just fit", "", map[string]any{"x": strings.Repeat("x", MaxInput-len(empty)-len(`"x":""`))}, 0},
		{"parameters that do not", "", map[string]any{"x": strings.Repeat("x", MaxInput-len(empty)-len(`"x":""`)+1)}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			term, length, err := Source{Parameters: tc.parameters}.parametersTerm()
			if err != nil {
				t.Fatal(err)
			}
			_, err = NewInput(&facts.Facts{Request: facts.Request{Name: tc.text}}).with(term, length)
			want := ""
			if tc.over > 0 {
				want = fmt.Sprintf("the input has %d bytes, the maximum is %d: remove labels from the objects that the request is about", MaxInput+tc.over, MaxInput)
			}
			if got := fmt.Sprint(err); got != want && (err != nil || want != "") {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}
