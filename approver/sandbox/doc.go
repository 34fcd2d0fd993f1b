// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package sandbox compiles and tests the sources of policies in a separate process. The kernel limits the
// memory and the CPU time of that process.
//
// The process is the same binary, started again through /proc/self/exe. An init function of this package
// recognizes it by its name in os.Args, does the work and exits. So every binary that imports the package,
// test binaries included, can start it, and the image needs no other file. The process first sets its own
// limits: see package limits. It reads the source from standard input and writes the result to standard
// output, both as JSON.
//
// A source that exceeds a limit is invalid. The limits are CPU time and memory, not wall-clock time, so the
// result is the same on a slow node. On systems other than Linux there are no limits.
package sandbox
