// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package harness installs and runs Countersign in a control plane of package cluster.
//
// [Install] builds the binaries, applies deploy/ and policies/, and starts the approver and the signer.
// Each process runs under the credentials of its own ServiceAccount. [Main] is the TestMain of packages
// whose tests share one installation.
package harness
