// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
)

const policy = `package p

import rego.v2

allowed := {"a", "b"}

ok if {
	input.x in allowed
	every y in input.ys { y > 0 }
}

ok if input.z

violations contains {"id": "bad", "requirement": 2, "retryable": false, "message": msg} if {
	not ok
	msg := sprintf("%s %s", [input.x, input.z])
}
`

const policyTest = `package p_test

import rego.v2

import data.p

test_ok[note] if {
	some note, request in {
		"a": {"x": "a", "ys": [1]},
		"z": {"z": true},
	}
	p.ok with input as request
}

test_bad if {
	not p.ok with input as {"x": "c", "ys": [1]}
	{[v.requirement, v.retryable] | some v in p.violations} == {[2, false]} with input as {"x": "c", "ys": [1], "z": false}
}
`

func TestMutants(t *testing.T) {
	module, err := ast.ParseModule("p.rego", policy)
	if err != nil {
		t.Fatal(err)
	}
	before := module.String()
	var got []string
	for _, m := range mutants("p/p.rego", module) {
		got = append(got, m.id)
		if m.module.String() == before {
			t.Errorf("%s: the module is not changed", m.id)
		}
	}
	if module.String() != before {
		t.Error("the module itself is changed")
	}
	want := []string{
		"p/p.rego allowed: remove element `\"a\"` of `{\"a\", \"b\"}`",
		"p/p.rego allowed: remove element `\"b\"` of `{\"a\", \"b\"}`",
		"p/p.rego allowed: remove the definition `allowed := {\"a\", \"b\"} if { true }`",
		"p/p.rego ok: remove `internal.member_2(input.x, allowed)`",
		"p/p.rego ok: remove `every y in input.ys { gt(y, 0) }`",
		"p/p.rego ok: remove `gt(y, 0)`",
		"p/p.rego ok: remove the definition `ok = true if { internal.member_2(input.x, allowed); every y in input.ys { gt(y, 0) } }`",
		"p/p.rego ok: remove `input.z`",
		"p/p.rego ok: remove the definition `ok = true if { input.z }`",
		"p/p.rego violations bad: retryable is true",
		"p/p.rego violations bad: requirement is 1",
		"p/p.rego violations bad: remove `not ok`",
		"p/p.rego violations bad: remove `assign(msg, sprintf(\"%s %s\", [input.x, input.z]))`",
		"p/p.rego violations bad: remove `ok`", // in the body of not
		"p/p.rego violations bad: remove the definition `violations contains {\"id\": \"bad\", \"message\": msg, \"requirement\": 2, \"retryable\": false} if { not ok;…`",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestTest applies all changes to a policy whose tests miss three of them.
func TestTest(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"p/p.rego": policy, "p/p_test.rego": policyTest,
		"lib/l.rego": "package l\n", "lib/l_test.rego": "package l_test\n\ntest_l if true\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	suites, err := load(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range test(t.Context(), suites, nil) {
		if r.err != nil {
			t.Fatal(r.err)
		}
		if r.outcome == survived {
			got = append(got, r.id)
		}
	}
	want := []string{
		"p/p.rego allowed: remove element `\"b\"` of `{\"a\", \"b\"}`",
		"p/p.rego ok: remove `every y in input.ys { gt(y, 0) }`",
		"p/p.rego violations bad: remove `not ok`",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("surviving (-want +got):\n%s", diff)
	}
}

func TestParseSurvivors(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       map[string]bool
		fails      bool
	}{
		{"reasons", "# one\na b: c\nd\n\n# two\ne\n", map[string]bool{"a b: c": true, "d": true, "e": true}, false},
		{"no reason", "# one\na\n\nb\n", nil, true},
		{"twice", "# one\na\na\n", nil, true},
		{"empty", "", map[string]bool{}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseSurvivors(tc.text)
			if diff := cmp.Diff(tc.want, got); diff != "" || (err != nil) != tc.fails {
				t.Errorf("error %v (-want +got):\n%s", err, diff)
			}
		})
	}
	if _, err := parseSurvivors(survivorsFile); err != nil {
		t.Error(err)
	}
}
