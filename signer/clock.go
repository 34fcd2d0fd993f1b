// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"sync"
	"time"
)

const (
	// maxClockStep is the change of the wall clock, against the monotonic clock, that counts as a jump.
	maxClockStep = 30 * time.Second
	// clockSettles is the time after a jump in which no Signer is reconciled. Steps of a rotation cannot be undone: a
	// clock that is ahead destroys the key of a valid CA, or lets the next one sign early.
	clockSettles = time.Minute
)

// clockGuard detects jumps of the wall clock, such as those of a virtual machine that resumes.
type clockGuard struct {
	mu     sync.Mutex
	begun  time.Time     // with a monotonic reading
	offset time.Duration // of the wall clock against the monotonic clock, last observed
	until  time.Duration // after begun, by the monotonic clock
}

func newClockGuard() *clockGuard { return &clockGuard{begun: time.Now()} }

// wait returns how long to wait until the clock counts as right.
func (g *clockGuard) wait(now time.Time) time.Duration {
	// Round removes the monotonic reading.
	return g.observe(now.Round(0).Sub(g.begun.Round(0)), now.Sub(g.begun))
}

// observe is wait at times after begun by the wall clock and by the monotonic clock.
func (g *clockGuard) observe(wall, monotonic time.Duration) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	offset := wall - monotonic
	if step := offset - g.offset; step > maxClockStep || step < -maxClockStep {
		g.until = monotonic + clockSettles
	}
	g.offset = offset
	return max(g.until-monotonic, 0)
}
