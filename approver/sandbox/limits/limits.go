// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package limits sets the limits of the process of package sandbox, and starts the process again.
//
// It imports little, so that Go initializes it first and the limits apply to the initialization of other
// packages. It starts the process again because glibc reads the size of thread stacks, which count as
// memory, only at the start.
package limits

// Limits of the process.
const (
	// CompileCPU is the maximum CPU time for starting and compiling, in seconds. A shipped policy needs 0.1.
	CompileCPU = 2
	// TotalCPU is the maximum CPU time for starting, compiling and testing, in seconds. A shipped policy
	// needs 1.
	TotalCPU = 10
	// KillCPU is the CPU time after which the kernel ends the process, in seconds. A process that reaches a limit above
	// receives a signal and reports it. The kernel counts ticks for both, the CPU time in the status of the process can be
	// seconds less.
	KillCPU = TotalCPU + 1
	// Memory is the maximum of heap and stacks, in bytes.
	Memory = 128 << 20
)

// Values of os.Args[0].
const (
	Unlimited = "countersign-sandbox-unlimited" // sets its limits and becomes Limited
	Limited   = "countersign-sandbox"
)
