// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package approver approves and denies certificate requests by policy.
//
// A request is read, its facts are gathered (package facts), each policy that matches it
// is evaluated (package evaluator), [Decide] makes of the results a [Decision], and the
// decision is recorded (package audit) and then written. Everything that can fail is
// before Decide or after it; Decide itself is a pure function.
//
// What holds always: a fault is never a verdict. Only a definite result approves or
// denies; the zero Decision is no opinion, and what has none is tried again. A denial
// rests on facts read live from the API server. A request that no policy matches is not
// touched in any way.
package approver
