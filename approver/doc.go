// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package approver contains the controllers that approve and deny certificate requests by policy.
//
//   - request_controller.go: a request is reviewed (package review). The decision is recorded
//     (package audit), then written, then announced by metrics and Events.
//   - policy_controller.go, policy_status.go: every replica loads the policies (package policy).
//     The leader writes their status; a standby writes its entry in status.replicas.
//   - holds.go: the requests that stay pending, and the objects that they await.
//   - comparison.go: how often candidates disagree with active revisions.
//
// The package guarantees:
//   - An error never approves and never denies. The request stays pending and is retried.
//   - A request that no policy in mode Enforce matches gets no write and no Event.
//   - A verdict is recorded before it is written.
package approver
