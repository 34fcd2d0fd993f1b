// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package tutorial holds the Kubernetes page "Manage TLS Certificates in a Cluster" as data, with Countersign in place
// of the people who approve and sign.
//
// [Rows] are the requests, honest and hostile, each with its expected outcome. [World] has the Pods, Services and users
// of the page and runs a row. The demo prints the rows and the integration tests assert them.
package tutorial
