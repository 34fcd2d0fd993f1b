// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package text_test

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"unicode/utf8"

	"countersign.dev/countersign/internal/text"
)

func TestShorten(t *testing.T) {
	for _, tc := range []struct {
		name  string
		s     string
		limit int
		want  string
	}{
		{"fits", "short", 100, "short"},
		{"fits exactly", "short", 5, "short"},
		{"one byte too long", "shorter", 6, "sho..."},
		{"cut between characters", "ääää", 6, "ä..."},
		{"cut inside a character", "ääää", 7, "ää..."},
		{"cut inside an emoji", "a🙂🙂", 7, "a..."},
		{"room for the mark only", "shorter", 3, "..."},
		{"no room for the mark", "shorter", 2, ""},
		{"negative limit", "shorter", -1, ""},
		{"empty", "", 0, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := text.Shorten(tc.s, tc.limit)
			if got != tc.want {
				t.Errorf("Shorten(%q, %d) = %q, want %q", tc.s, tc.limit, got, tc.want)
			}
			if !utf8.ValidString(got) {
				t.Errorf("Shorten(%q, %d) = %q, which is not valid UTF-8", tc.s, tc.limit, got)
			}
		})
	}
}

func TestJoinErrors(t *testing.T) {
	if err := text.JoinErrors(nil, nil); err != nil {
		t.Errorf("JoinErrors(nil, nil) = %v, want nil", err)
	}
	err := text.JoinErrors(
		nil,
		fmt.Errorf("reading: %w", io.EOF),
		errors.Join(errors.New("a"), errors.New("b")),
	)
	if got, want := err.Error(), "reading: EOF; a; b"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(err, io.EOF) {
		t.Error("errors.Is does not find io.EOF")
	}
}
