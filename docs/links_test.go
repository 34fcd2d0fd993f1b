// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	fenced      = regexp.MustCompile("(?s)```.*?```")
	link        = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading     = regexp.MustCompile(`(?m)^#+ (.*)$`)
	punctuation = regexp.MustCompile(`[^\w\- ]`)
)

// TestLinks checks that relative links in Markdown files lead to files, and to headings, that exist.
func TestLinks(t *testing.T) {
	walk(t, func(name string, entry fs.DirEntry) error {
		if entry.IsDir() || path.Ext(name) != ".md" {
			return nil
		}
		raw, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			return err
		}
		for _, match := range link.FindAllStringSubmatch(fenced.ReplaceAllString(string(raw), ""), -1) {
			if err := follow(name, match[1]); err != nil {
				t.Errorf("%s links to %s: %v", name, match[1], err)
			}
		}
		return nil
	})
}

// follow returns an error if a link of a file has no target. Links to other sites are not followed.
func follow(from, target string) error {
	if strings.Contains(target, "://") {
		return nil
	}
	file, anchor, _ := strings.Cut(target, "#")
	to := from
	if file != "" {
		to = path.Join(path.Dir(from), file)
	}
	if _, err := os.Stat(filepath.Join("..", to)); err != nil || anchor == "" {
		return err
	}
	raw, err := os.ReadFile(filepath.Join("..", to))
	if err != nil {
		return err
	}
	for _, match := range heading.FindAllStringSubmatch(string(raw), -1) {
		if anchorOf(match[1]) == anchor {
			return nil
		}
	}
	return fmt.Errorf("%s has no heading with the anchor %s", to, anchor)
}

// anchorOf is the anchor that GitHub gives to a heading.
func anchorOf(title string) string {
	return strings.ReplaceAll(punctuation.ReplaceAllString(strings.ToLower(title), ""), " ", "-")
}

// packages returns the Go files of each package of the module, by directory. Packages of nested modules are omitted.
func packages(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	walk(t, func(name string, entry fs.DirEntry) error {
		if entry.IsDir() {
			_, err := os.Stat(filepath.Join("..", name, "go.mod"))
			if name != "." && err == nil || entry.Name() == "testdata" {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(name, ".go") {
			out[path.Dir(name)] = append(out[path.Dir(name)], filepath.Join("..", name))
		}
		return nil
	})
	return out
}

// walk calls visit for every file and directory of the repository, with its slash-separated path.
func walk(t *testing.T, visit func(name string, entry fs.DirEntry) error) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(".."), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains([]string{".git", "bin", ".issues"}, name):
			return fs.SkipDir
		}
		return visit(name, entry)
	})
	if err != nil {
		t.Fatal(err)
	}
}
