// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package evaluator

import (
	"time"

	"golang.org/x/sys/unix"
)

// meter measures the CPU time of a thread. Another thread can read it.
type meter struct {
	clock int32
	start time.Duration
}

// newMeter returns a meter of the current thread, to which the caller must be locked.
func newMeter() *meter {
	// The clock of a thread by its ID: MAKE_THREAD_CPUCLOCK in include/linux/posix-timers_types.h.
	const perThread, sched = 4, 2
	m := &meter{clock: int32(^unix.Gettid())<<3 | perThread | sched} //nolint:gosec // IDs have at most 22 bits
	m.start = m.now()
	return m
}

// used returns the CPU time since the meter was created.
func (m *meter) used() time.Duration { return max(0, m.now()-m.start) }

// now returns 0 if the thread has ended.
func (m *meter) now() time.Duration {
	var at unix.Timespec
	if unix.ClockGettime(m.clock, &at) != nil {
		return 0
	}
	return time.Duration(at.Nano())
}
