// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"go/scanner"
	"go/token"
	"regexp"
	"strings"
	"unicode"
)

// kind is the kind of a passage.
type kind int

const (
	prose kind = iota // sentences: comments and the paragraphs of Markdown
	text              // other text: strings, values, code, headings
	name              // a Go identifier, as words
)

// passage is a piece of a file in which expressions are searched. Its text has one space between
// words and keeps the ends of lines.
type passage struct {
	kind kind
	line int
	text string
}

// readGo returns the comments, string literals and identifiers of a Go file. An identifier is
// returned once, where it is used first.
func readGo(source string) []passage {
	files := token.NewFileSet()
	file := files.AddFile("", files.Base(), len(source))
	var s scanner.Scanner
	s.Init(file, []byte(source), nil, scanner.ScanComments)
	var passages []passage
	var comments block
	names := map[string]bool{}
	for {
		pos, tok, literal := s.Scan()
		line := file.Line(pos)
		switch {
		case tok == token.EOF:
			return append(passages, comments.end(prose)...)
		case tok == token.COMMENT:
			if comments.next() != line {
				passages = append(passages, comments.end(prose)...)
			}
			for i, comment := range strings.Split(literal, "\n") {
				comments.add(line+i, strings.Trim(comment, "/* \t"))
			}
		case tok == token.STRING:
			var value block
			for i, part := range strings.Split(unquote(literal), "\n") {
				value.add(line+i, part)
			}
			passages = append(passages, value.end(text)...)
		case tok == token.IDENT && !names[literal]:
			names[literal] = true
			passages = append(passages, passage{kind: name, line: line, text: words(literal)})
		}
	}
}

// unquote returns a string literal without quotes and escaped white space. The text keeps its lines.
func unquote(literal string) string {
	if literal[0] == '`' {
		return strings.Trim(literal, "`")
	}
	return strings.NewReplacer(`\n`, " ", `\t`, " ", `\"`, `"`).Replace(strings.Trim(literal, `"`))
}

// words splits an identifier in camel case: "holdFor" is "hold For", "RBACError" is "RBAC Error".
func words(identifier string) string {
	var b strings.Builder
	runes := []rune(identifier)
	for i, r := range runes {
		switch {
		case r == '_':
			r = ' '
		case i > 0 && unicode.IsUpper(r) && (!unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])):
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// readLines returns the comments of a file whose comments begin with "#", and the lines between them.
func readLines(source string) []passage {
	var passages []passage
	var comments, values block
	for i, line := range strings.Split(source, "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			passages = append(passages, values.end(text)...)
			comments.add(i+1, strings.TrimLeft(line, "# "))
			continue
		}
		passages = append(passages, comments.end(prose)...)
		value, comment, found := strings.Cut(line, " # ")
		values.add(i+1, value)
		if found {
			passages = append(passages, passage{kind: prose, line: i + 1, text: comment})
		}
	}
	passages = append(passages, comments.end(prose)...)
	return append(passages, values.end(text)...)
}

var listItem = regexp.MustCompile(`^([-*+]|\d+\.) `)

// readMarkdown returns the paragraphs, list items and table cells of a page as prose, and its
// headings, table headers and code blocks as text.
func readMarkdown(source string) []passage {
	var passages []passage
	var paragraph, code block
	inCode, inTable := false, false
	for i, line := range strings.Split(source, "\n") {
		line = strings.TrimLeft(strings.TrimSpace(line), "> ")
		fence := strings.HasPrefix(line, "```")
		cells := strings.HasPrefix(line, "|")
		switch {
		case fence:
			inCode = !inCode
			passages = append(passages, code.end(text)...)
		case inCode:
			code.add(i+1, line)
			continue
		}
		if fence || cells || line == "" || line[0] == '#' || listItem.MatchString(line) {
			passages = append(passages, paragraph.end(prose)...)
		}
		switch {
		case fence:
		case cells:
			passages = append(passages, row(line, i+1, inTable)...)
		case strings.HasPrefix(line, "#"):
			passages = append(passages, passage{kind: text, line: i + 1, text: line})
		default:
			paragraph.add(i+1, listItem.ReplaceAllString(line, ""))
		}
		inTable = cells
	}
	passages = append(passages, paragraph.end(prose)...)
	return append(passages, code.end(text)...)
}

// row returns the cells of a row of a table. The first row is the header.
func row(line string, number int, inTable bool) []passage {
	var cells []passage
	k := text
	if inTable {
		k = prose
	}
	for cell := range strings.SplitSeq(line, "|") {
		cells = append(cells, passage{kind: k, line: number, text: strings.TrimSpace(cell)})
	}
	return cells
}

// block collects lines that follow each other.
type block struct {
	line  int
	lines []string
}

func (b *block) add(line int, text string) {
	if len(b.lines) == 0 {
		b.line = line
	}
	b.lines = append(b.lines, strings.Join(strings.Fields(text), " "))
}

// next returns the number of the line that would continue the block; 0 if it is empty.
func (b *block) next() int {
	if len(b.lines) == 0 {
		return 0
	}
	return b.line + len(b.lines)
}

// end returns the block as a passage, none if it is empty, and empties it.
func (b *block) end(k kind) []passage {
	if len(b.lines) == 0 {
		return nil
	}
	p := passage{kind: k, line: b.line, text: strings.Join(b.lines, "\n")}
	*b = block{}
	return []passage{p}
}

var sentenceStart = regexp.MustCompile(`\n\n+|[.!?]["')` + "`" + `]*[ \n]+`)

// sentences returns the spans of the sentences of a prose that are not questions.
func sentences(prose string) [][2]int {
	starts := []int{0}
	for _, m := range sentenceStart.FindAllStringIndex(prose, -1) {
		starts = append(starts, m[1])
	}
	var spans [][2]int
	for i, start := range starts {
		end := len(prose)
		if i+1 < len(starts) {
			end = starts[i+1]
		}
		if !strings.HasSuffix(strings.TrimRight(prose[start:end], "\n *\"')`"), "?") {
			spans = append(spans, [2]int{start, end})
		}
	}
	return spans
}
