// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package policy loads ApprovalPolicies and finds the ones that match a request.
//
// A [Loader] finds the source of an ApprovalPolicy, compiles it and runs its tests. The
// [LoadResult] is a usable evaluator or a [Problem]. [New] combines the spec and the evaluator
// into a [Policy]; [Effective] falls back to the last usable revision while the new one has a
// problem. A [Set] indexes the policies by signerName.
//
// The package contains no controller and writes nothing. The caller decides when to load, and
// reports the problems.
package policy
