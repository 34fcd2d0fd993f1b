// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package evaluator

import "time"

// meter measures wall-clock time: this system has no clock of a thread that another thread can read.
type meter struct{ start time.Time }

func newMeter() *meter { return &meter{time.Now()} }

func (m *meter) used() time.Duration { return time.Since(m.start) }
