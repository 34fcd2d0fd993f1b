// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package evaluator

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"countersign.dev/countersign/approver/facts"
)

// TestBuiltinsAreDecided: every built-in function of OPA is in exactly one list.
func TestBuiltinsAreDecided(t *testing.T) {
	known := map[string]bool{}
	for _, b := range ast.CapabilitiesForThisVersion().Builtins {
		known[b.Name] = true
		lists := 0
		if _, ok := limited[b.Name]; ok {
			lists++
		}
		for _, list := range [][]string{plain, forbidden} {
			if slices.Contains(list, b.Name) {
				lists++
			}
		}
		if lists != 1 {
			t.Errorf("%s is in %d lists: decide whether policies can call it", b.Name, lists)
		}
	}
	for _, name := range append(slices.Clone(plain), forbidden...) {
		if !known[name] {
			t.Errorf("OPA has no function %s", name)
		}
	}
	for name := range limited {
		if !known[name] {
			t.Errorf("OPA has no function %s", name)
		}
	}
}

// policyWith returns a policy that allows a request if a condition holds.
func policyWith(condition string) Source {
	return Source{Package: "countersign.mine", Modules: map[string]string{"mine.rego": `package countersign.mine

import rego.v2

subject_controls_key := true

subject_is_authorized if {
` + condition + `
}

violations contains {"requirement": 2, "id": "no", "message": "no"} if not subject_is_authorized
`}}
}

// doubling returns statements that apply a pattern to x0 repeatedly, and count the result.
func doubling(n int, first, pattern string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "x0 := %s\n", first)
	for i := range n {
		fmt.Fprintf(&b, "x%d := %s\n", i+1, strings.ReplaceAll(pattern, "X", fmt.Sprintf("x%d", i)))
	}
	return b.String() + fmt.Sprintf("is_null(x%d)", n)
}

// TestBuiltinsAreBounded: no built-in function makes a value much larger than its limit, or runs long.
func TestBuiltinsAreBounded(t *testing.T) {
	const name = `input.request.name`
	for _, tc := range []struct {
		name, condition, want string
	}{
		{"concat doubles", doubling(25, name, `concat("", [X, X])`), "concat: the "},
		{"a separator", fmt.Sprintf(`count(concat(concat("", [%[1]s | some _ in numbers.range(1, 9000)]), [%[1]s | some _ in numbers.range(1, 9000)])) == 0`, name), "concat: the result can have more than"},
		{"sprintf doubles", doubling(25, name, `sprintf("%s%s", [X, X])`), "sprintf: the arguments are too large"},
		{"a wide verb", `sprintf("%01000000d", [count(` + name + `)]) == ""`, "sprintf: %01000000: the maximum width is 1000"},
		{"a width in an argument", `sprintf("%*d", [1000000, count(` + name + `)]) == ""`, "sprintf: %*d: write the width in place of *"},
		{"one argument often", fmt.Sprintf(`sprintf(concat("", ["%%[1]s" | some _ in numbers.range(1, 9000)]), [concat("", [%s | some _ in numbers.range(1, 9000)])]) == ""`, name), "sprintf: the result can have more than"},
		{"a template doubles", doubling(25, name, `$"{X}{X}"`), "internal.template_string: the arguments are too large"},
		{"replace", fmt.Sprintf(`s := concat("", [%s | some _ in numbers.range(1, 9000)]); replace(s, "a", s) == ""`, name), "replace: the result can have more than"},
		{"strings.replace_n", fmt.Sprintf(`s := concat("", [%s | some _ in numbers.range(1, 9000)]); strings.replace_n({"a": s}, s) == ""`, name), "strings.replace_n: the result can have more than"},
		{"regex.replace", fmt.Sprintf(`s := concat("", [%s | some _ in numbers.range(1, 9000)]); regex.replace(s, "a", s) == ""`, name), "regex.replace: the result can have more than"},
		{"a long regular expression", `regex.match("(a{100}){10}b{1000}c{1000}", ` + name + `)`, "regex.match: the regular expression has a size of"},
		{"an array doubles", doubling(25, "["+name+"]", `array.concat(X, X)`), "array.concat: the "},
		{"numbers.range", `count(numbers.range(1, 10001 + count(` + name + `))) == 0`, "numbers.range: the range from 1 to"},
		{"a range of long numbers", `count(numbers.range(-9223372036854775807, 9223372036854775807)) == count(` + name + `)`, "numbers.range: the range from"},
		{"a product", doubling(25, "count("+name+") * 10", `X * X`), "mul: the result is too large: a number has"},
		{"a long exponent", `x := json.unmarshal("1e1000000000"); floor(x + count(` + name + `)) == 0`, "json.unmarshal: invalid number: number too big"},
		{"an exponent in the source", `floor(1e200 + count(` + name + `)) == 0`, "plus: the arguments are too large: the number 1e200 has an exponent beyond 128"},
		{"json.marshal of nested arrays", doubling(16, name, `object.get({"x": [X, X]}, "x", null)`) + "\njson.marshal(x16) == \"\"", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := Compile(t.Context(), policyWith(tc.condition))
			if err != nil {
				t.Fatal(err)
			}
			f := facts.Facts{Request: facts.Request{Name: "aaaaaaaa"}}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err = p.Evaluate(t.Context(), NewInput(&f))
			runtime.ReadMemStats(&after)
			if allocated := (after.TotalAlloc - before.TotalAlloc) >> 20; allocated > 32 || time.Since(start) > Timeout {
				t.Errorf("%d MiB in %s", allocated, time.Since(start))
			}
			if tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
		})
	}
}

// TestBuiltinsAtTheLimit: a value of exactly MaxValue is accepted.
func TestBuiltinsAtTheLimit(t *testing.T) {
	for _, tc := range []struct {
		size int
		want string
	}{{MaxValue, ""}, {MaxValue + 1, "the arguments are too large: the maximum is 262144 bytes"}} {
		p, err := Compile(t.Context(), policyWith(`lower(input.request.name) == "x"`))
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Evaluate(t.Context(), NewInput(&facts.Facts{Request: facts.Request{Name: strings.Repeat("a", tc.size)}}))
		if got := fmt.Sprint(err); (tc.want == "") != (err == nil) || !strings.Contains(got, tc.want) {
			t.Errorf("%d bytes: %v", tc.size, err)
		}
	}
}

func TestForbiddenBuiltins(t *testing.T) {
	for _, name := range []string{"bits.lsh(1, 20000000)", `net.cidr_expand("10.0.0.0/8")`, `strings.render_template("{{.}}", {})`, `yaml.unmarshal("a")`, `graph.reachable_paths({}, [])`} {
		_, err := Compile(t.Context(), policyWith(name+" == input.request.name"))
		if want := "undefined function " + name[:strings.Index(name, "(")]; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
