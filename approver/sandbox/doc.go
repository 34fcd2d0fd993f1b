// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package sandbox compiles and tests the sources of policies in a process of their own, whose memory and
// CPU time the kernel limits.
//
// The process is the same binary, started again through /proc/self/exe. An init function of this package
// recognizes it by its name in os.Args, does the work and exits: every binary that imports the package,
// test binaries included, can start it, also from an image without other files. The process sets its
// limits on itself before anything else: see package limits. The source and the result are JSON on its standard input
// and output.
//
// A source that exceeds a limit has a problem, which is the same on a slow node: the limits are CPU time
// and memory, not wall-clock time. On systems other than Linux there are no limits.
package sandbox
