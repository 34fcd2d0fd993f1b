// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"testing"
	"time"
)

func TestClockGuard(t *testing.T) {
	const second, year = time.Second, 365 * 24 * time.Hour
	g := newClockGuard()
	if wait := g.wait(time.Now()); wait != 0 {
		t.Errorf("waits %v at the start", wait)
	}
	for _, step := range []struct {
		name            string
		wall, monotonic time.Duration
		want            time.Duration
	}{
		{"right", 10 * second, 10 * second, 0},
		{"slewed", 50 * second, 30 * second, 0},
		{"slewed further", 90 * second, 50 * second, 0},
		{"two years ahead", 2*year + 90*second, 60 * second, clockSettles},
		{"still ahead", 2*year + 100*second, 70 * second, clockSettles - 10*second},
		{"right again", 80 * second, 80 * second, clockSettles},
		{"a minute later", 140 * second, 140 * second, 0},
		{"after a pause of the machine", 3600 * second, 150 * second, clockSettles},
		{"the clock stays", 3650 * second, 200 * second, 10 * second},
		{"and is accepted", 3660 * second, 210 * second, 0},
		{"behind", 100 * second, 220 * second, clockSettles},
	} {
		if got := g.observe(step.wall, step.monotonic); got != step.want {
			t.Errorf("%s: waits %v, want %v", step.name, got, step.want)
		}
	}
}
