// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package text fits messages into the fields of the Kubernetes API: conditions, Events, admission
// responses and statuses each limit the length of a message, and are shown on one line.
package text

import (
	"strings"
	"unicode/utf8"
)

// ellipsis marks a text that was shortened.
const ellipsis = "..."

// Shorten returns s if it has at most limit bytes. Otherwise it returns the longest prefix of s that
// ends at a character and, with "..." appended, fits the limit. A limit below three bytes leaves no room
// for the mark: the result is then empty.
func Shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	end := limit - len(ellipsis)
	if end < 0 {
		return ""
	}
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + ellipsis
}

// JoinErrors joins errors like [errors.Join], but on one line: messages are separated by "; ", and line
// breaks within a message are replaced likewise. Nil errors are left out. It returns nil if all are nil.
func JoinErrors(errs ...error) error {
	var joined joinedErrors
	for _, err := range errs {
		if err != nil {
			joined = append(joined, err)
		}
	}
	if len(joined) == 0 {
		return nil
	}
	return joined
}

type joinedErrors []error

// Error returns all messages on one line.
func (e joinedErrors) Error() string {
	messages := make([]string, len(e))
	for i, err := range e {
		messages[i] = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return strings.Join(messages, "; ")
}

// Unwrap returns the errors for [errors.Is] and [errors.As].
func (e joinedErrors) Unwrap() []error { return e }
