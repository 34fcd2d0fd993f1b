// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package tutorial walks the Kubernetes page "Manage TLS Certificates in a Cluster" with
// Countersign in place of the people: the same names, honest requests and hostile ones.
//
// [Install] puts deploy/ and policies/ into a real cluster and runs the shipped binaries
// under the credentials of their own ServiceAccounts. [Rows] are the requests, each with
// the one outcome that is right. The demo shows them; the integration tests assert them.
package tutorial
