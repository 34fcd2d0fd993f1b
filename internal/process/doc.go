// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package process runs the binaries of Countersign: flags, logging, the client of the API server,
// leader election, probes and shutdown.
//
// A binary passes its flags and its work as a [Command], and calls [Command.Main] once, from main. Its
// work creates a [Component] and passes it to [Run].
//
// The package does not know what a component does. It reads flags and the environment variables
// POD_NAMESPACE, POD_NAME and POD_UID, and no other state.
package process
