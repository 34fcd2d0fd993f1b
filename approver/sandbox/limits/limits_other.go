// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package limits

import (
	"os"
	"syscall"
)

// ExceedsCPU is not sent on this system.
const ExceedsCPU = syscall.SIGTERM

// Executable returns the path of this binary.
func Executable() (string, error) { return os.Executable() }

func init() {
	if len(os.Args) == 1 && os.Args[0] == Unlimited {
		os.Args[0] = Limited // limits are available on Linux only
	}
}

// EndCompile does nothing.
func EndCompile() error { return nil }
