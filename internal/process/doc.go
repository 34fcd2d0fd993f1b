// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package process is what Countersign's controllers share as processes: flags, logging,
// the client of the API server, leader election, probes, and the way they stop.
//
// A command is a [Command] value whose Main is called once from main. What a controller
// does is no business of this package, and it reads no state but flags and POD_NAMESPACE.
package process
