// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package review reviews certificate requests by policy.
//
// A [Reviewer] parses a request (package pkcs10), gathers its facts (package facts) and evaluates
// every policy that matches it (package evaluator). [Decide] combines the answers into a
// [Decision]; it is a pure function. The result is a [Review], which says what to do with the
// request in its [Outcome], and which [Record] turns into an audit record. The approver and the
// webhook use the same Reviewer. Constructing one needs no manager.
//
// The package guarantees:
//   - An error never approves and never denies. The zero Decision has the outcome NoOpinion.
//   - A denial is based on facts that were read live from the API server.
//   - Package review writes nothing to the API server.
package review
