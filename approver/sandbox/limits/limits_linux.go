// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package limits

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const executable = "/proc/self/exe"

// ExceedsCPU is the signal for a process that used the CPU time for compiling, or for compiling and testing.
const ExceedsCPU = syscall.SIGXCPU

// Executable returns the path of this binary.
func Executable() (string, error) { return executable, nil }

func init() {
	if len(os.Args) != 1 || os.Args[0] != Unlimited {
		return
	}
	err := errors.Join(
		// Private writable mappings: the heap and the stacks, not the address space that Go reserves.
		set(syscall.RLIMIT_DATA, Memory, Memory),
		set(syscall.RLIMIT_STACK, 1<<20, 1<<20),
		set(syscall.RLIMIT_CPU, CompileCPU, KillCPU),
		set(syscall.RLIMIT_CORE, 0, 0),
		set(syscall.RLIMIT_FSIZE, 0, 0),
		syscall.Setpriority(syscall.PRIO_PROCESS, 0, lowest),                 // reviews come first
		unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0), // the process ends with the one that started it
	)
	if err == nil {
		err = syscall.Exec(executable, []string{Limited}, os.Environ()) //nolint:gosec // this binary
	}
	_, _ = os.Stderr.WriteString("setting limits: " + err.Error() + "\n")
	os.Exit(1)
}

const lowest = 19 // the lowest priority

func set(resource int, soft, hard uint64) error {
	return syscall.Setrlimit(resource, &syscall.Rlimit{Cur: soft, Max: hard})
}

// EndCompile raises the limit of CPU time to the one for compiling and testing.
func EndCompile() error { return set(syscall.RLIMIT_CPU, TotalCPU, KillCPU) }
