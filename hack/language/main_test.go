// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestCheck checks one small file in each case, with the rules and the exceptions of the repository.
func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name, path, text string
		want             []string // "line: word"
	}{
		{"comment", "a.go", "package a\n\n// Mend it: nobody did.\nvar A = 1\n", []string{"3: Mend", "3: nobody"}},
		{"expression across lines", "a.go", "package a\n\n// A is what became\n// of B.\nvar A = 1\n", []string{"3: became of"}},
		{"block comment", "a.go", "package a\n\n/*\nA mends.\n*/\n", []string{"4: mends"}},
		{"string", "a.go", "package a\n\nconst a = \"no fault\"\n", []string{"3: fault"}},
		{"string with several lines", "a.go", "package a\n\nconst a = `a\nwhoever\n`\n", []string{"4: whoever"}},
		{"string with escapes", "a.go", "package a\n\nconst a = \"ok\\nwhoever\"\n", []string{"3: whoever"}},
		{"identifier", "a.go", "package a\n\nvar lastFault, judgeAll = 1, 2\n", []string{"3: Fault", "3: judge"}},
		{"identifier is reported once", "a.go", "package a\n\nvar fault = 1\n\nvar b = fault\n", []string{"3: fault"}},
		{"whole identifier", "a.go", "package a\n\nvar seen, unseen, lastSeen int\n", []string{"3: seen"}},
		{"longer words", "a.go", "package a\n\n// The default recommends amendments.\nvar defaultValue int\n", nil},
		{"negated noun", "a.go", "package a\n\n// A is no Pod.\nvar A int\n", []string{"3: is no Pod"}},
		{"no longer", "a.go", "package a\n\n// A is no longer valid, and there is no other.\nvar A int\n", nil},
		{"sentence", "a.go", "package a\n\n// A is 1. What is left stays.\n//\n// Of these one is read.\nvar A int\n", []string{"3: What ", "5: Of "}},
		{"question", "a.go", "package a\n\n// What is left?\nvar A int\n", nil},
		{"string is not a sentence", "a.go", "package a\n\nconst a = \"What is left\"\n", nil},
		{"word inside a sentence", "a.go", "package a\n\n// A keeps what it read of B.\nvar A int\n", nil},
		{"markdown", "a.md", "# What is read\n\n| What | Who |\n|---|---|\n| Who asks | a fault |\n\n- Of all\n  one.\n\nSomebody\n", []string{"5: Who ", "5: fault", "7: Of ", "10: Somebody"}},
		{"markdown code", "a.md", "```\nWhat is read: a fault\n```\n", []string{"2: fault"}},
		{"yaml", "a.yaml", "# What is read.\na: fault # Who asks.\n\nb: default\n", []string{"1: What ", "2: Who ", "2: fault"}},
		{"rego", "a.rego", "# METADATA\n# title: judge\ndefault a := false\n", []string{"2: judge"}},
		{"shell", "a.sh", "echo 'mend it'\n", []string{"1: mend"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := findingsIn(t, tc.path, tc.text)
			if !slices.Equal(got, tc.want) {
				t.Errorf("findings: got %q, want %q", got, tc.want)
			}
		})
	}
}

// TestWords checks that each rule refuses an example, and only with the given word.
func TestWords(t *testing.T) {
	for _, tc := range []struct {
		text, want string
	}{
		{"mending", "mending"},
		{"put it right", "put it right"},
		{"what became of it", "became of"},
		{"it was told", "told"},
		{"it tells of it", "tells of"},
		{"it is looked at again", "looked at"},
		{"somebody", "somebody"},
		{"whoever", "whoever"},
		{"a faulty one", "faulty"},
		{"is known to it", "is known to"},
		{"no longer known", "no longer known"},
		{"not any more", "any more"},
		{"it stands by", "stands by"},
		{"the eldest", "eldest"},
		{"the newest comes first", "newest comes first"},
		{"to have it done", "have it done"},
		{"as it is now", "as it is now"},
		{"judgement", "judgement"},
		{"an attempt", "attempt"},
		{"the waiters", "waiters"},
		{"tally", "tally"},
		{"none of its business", "none of its business"},
		{"stands in the way", "stands in the way"},
		{"this is no list", "is no list"},
	} {
		got := findingsIn(t, "a.yaml", "a: "+tc.text+"\n")
		if want := []string{"1: " + tc.want}; !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", tc.text, got, want)
		}
	}
}

func findingsIn(t *testing.T, path, text string) []string {
	t.Helper()
	rules, err := parseRules(wordsFile)
	if err != nil {
		t.Fatal(err)
	}
	allowed, err := parseAllowances(allowFile)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range check(path, text, rules, allowed) {
		// "path:line: "word": write instead" without the path and the advice
		line, _, _ := strings.Cut(strings.TrimPrefix(f.String(), path+":"), ":")
		got = append(got, line+": "+strings.ReplaceAll(f.word, "\n", " "))
	}
	return got
}

// TestAllowance checks that an allowance covers the findings that its expression surrounds, in its files.
func TestAllowance(t *testing.T) {
	rules, err := parseRules(`\bfault\b => error`)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, allowance, path, text string
		want                        int
	}{
		{"covered", `a/*.sh => page fault => a term of Unix`, "a/b.sh", "page fault", 0},
		{"another word", `a/*.sh => page fault => a term of Unix`, "a/b.sh", "page fault, fault", 1},
		{"another folder", `a/*.sh => page fault => a term of Unix`, "a/b/c.sh", "page fault", 1},
		{"any folder", `a/** => page fault => a term of Unix`, "a/b/c.sh", "page fault", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			allowed, err := parseAllowances(tc.allowance)
			if err != nil {
				t.Fatal(err)
			}
			if got := check(tc.path, tc.text, rules, allowed); len(got) != tc.want {
				t.Errorf("findings: got %v, want %d", got, tc.want)
			}
			if got := allowed[0].used; got != (tc.want == 0 || tc.name == "another word") {
				t.Errorf("used: got %v", got)
			}
		})
	}
}

func TestParse_invalid(t *testing.T) {
	for _, text := range []string{"fault", "fault => error => reason", "( => error"} {
		if _, err := parseRules(text); err == nil {
			t.Errorf("parseRules(%q): got no error", text)
		}
	}
	for _, text := range []string{"a.go => fault", "a.go => ( => reason"} {
		if _, err := parseAllowances(text); err == nil {
			t.Errorf("parseAllowances(%q): got no error", text)
		}
	}
}

// TestList checks which files of a tree are read.
func TestList(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"Makefile", "a/a.go", "a/a.json", "a/testdata/b.go", "b/c.md", ".git/d.md", ".github/e.yml"} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name        string
		paths, want []string
	}{
		{"tree", nil, []string{".github/e.yml", "Makefile", "a/a.go", "b/c.md"}},
		{"folders", []string{"a/", "./b"}, []string{"a/a.go", "b/c.md"}},
		{"file", []string{"a/a.go"}, []string{"a/a.go"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := list(dir, tc.paths)
			if err != nil || !slices.Equal(got, tc.want) {
				t.Errorf("got %q, %v, want %q", got, err, tc.want)
			}
		})
	}
	if _, err := list(dir, []string{"missing"}); err == nil {
		t.Error("a missing path: got no error")
	}
}
