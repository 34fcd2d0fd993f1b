// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Command language checks the words of the repository against words.txt.
//
// It reads the comments, string literals and identifiers of Go files, and the
// lines of YAML, Rego, Markdown and shell files. It prints each finding as
//
//	path:line: "word": write this instead
//
// and exits with status 1 if there are any. allow.txt lists the exceptions.
//
// Usage:
//
//	go run ./hack/language [-C dir] [-count] [path ...]
//
// Without a path it checks the whole tree, and reports the entries of allow.txt
// that match nothing. With -count it prints the number of findings of each
// expression, and exits with status 0.
package main

import (
	_ "embed"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed words.txt
var wordsFile string

//go:embed allow.txt
var allowFile string

func main() {
	dir := flag.String("C", ".", "check the tree in this `directory`")
	count := flag.Bool("count", false, "print the number of findings of each expression")
	flag.Parse()
	clean, err := run(*dir, flag.Args(), *count)
	if err != nil {
		fmt.Fprintln(os.Stderr, "language:", err)
		os.Exit(2)
	}
	if !clean {
		os.Exit(1)
	}
}

// run checks the files below the paths, and reports whether there are no findings.
func run(dir string, paths []string, count bool) (bool, error) {
	rules, err := parseRules(wordsFile)
	if err != nil {
		return false, fmt.Errorf("words.txt: %w", err)
	}
	allowed, err := parseAllowances(allowFile)
	if err != nil {
		return false, fmt.Errorf("allow.txt: %w", err)
	}
	files, err := list(dir, paths)
	if err != nil {
		return false, err
	}
	var findings []finding
	for _, name := range files {
		data, err := fs.ReadFile(os.DirFS(dir), name)
		if err != nil {
			return false, err
		}
		findings = append(findings, check(name, string(data), rules, allowed)...)
	}
	if count {
		printCounts(rules, findings)
		return true, nil
	}
	for _, f := range findings {
		fmt.Println(f)
	}
	stale := false
	for _, a := range allowed {
		if len(paths) == 0 && !a.used {
			stale = true
			fmt.Printf("hack/language/allow.txt:%d: %q matches no finding in %q: remove the line\n", a.line, a.expression, a.path)
		}
	}
	return len(findings) == 0 && !stale, nil
}

// printCounts prints the number of findings of each rule, and their sum.
func printCounts(rules []rule, findings []finding) {
	counts := map[string]int{}
	for _, f := range findings {
		counts[f.rule.source]++
	}
	for _, r := range rules {
		fmt.Printf("%6d  %s\n", counts[r.source], r.source)
	}
	fmt.Printf("%6d  total\n", len(findings))
}

// list returns the files to check below the paths, or in the whole tree without a path, as
// slash-separated names relative to dir.
func list(dir string, paths []string) ([]string, error) {
	if len(paths) == 0 {
		paths = []string{"."}
	}
	var files []string
	for _, p := range paths {
		err := fs.WalkDir(os.DirFS(dir), path.Clean(filepath.ToSlash(p)), func(name string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case entry.IsDir() && slices.Contains(skipped, entry.Name()):
				return fs.SkipDir
			case !entry.IsDir() && reader(name) != nil:
				files = append(files, name)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(files)
	return slices.Compact(files), nil
}

// skipped lists the names of directories that are not checked.
var skipped = []string{".git", "bin", "testdata"}

// reader returns the function that splits a file into passages; nil if the file is not checked.
func reader(name string) func(string) []passage {
	switch path.Ext(name) {
	case ".go":
		return readGo
	case ".md":
		return readMarkdown
	case ".yaml", ".yml", ".rego", ".sh":
		return readLines
	}
	if path.Base(name) == "Makefile" || name == ".ci/run" {
		return readLines
	}
	return nil
}

// check returns the findings in one file that no allowance covers, by line.
func check(name, text string, rules []rule, allowed []*allowance) []finding {
	var findings []finding
	for _, p := range reader(name)(text) {
		for _, r := range rules {
			for _, span := range r.find(p) {
				if !isAllowed(name, p, span, allowed) {
					line := p.line + strings.Count(p.text[:span[0]], "\n")
					findings = append(findings, finding{path: name, line: line, word: p.text[span[0]:span[1]], rule: r})
				}
			}
		}
	}
	slices.SortStableFunc(findings, func(a, b finding) int { return a.line - b.line })
	return findings
}

// isAllowed reports whether an allowance for the file covers the span, and marks each that does as used.
func isAllowed(name string, p passage, span [2]int, allowed []*allowance) bool {
	found := false
	for _, a := range allowed {
		if a.covers(name, p, span) {
			a.used = true
			found = true
		}
	}
	return found
}

// finding is a word that a rule refuses.
type finding struct {
	path string
	line int
	word string
	rule rule
}

func (f finding) String() string {
	return fmt.Sprintf("%s:%d: %q: write %s", f.path, f.line, strings.ReplaceAll(f.word, "\n", " "), f.rule.instead)
}
