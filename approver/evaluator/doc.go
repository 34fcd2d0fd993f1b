// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package evaluator compiles Rego policies and evaluates them over facts.
//
// No other package of the approver imports OPA. A [Source] is compiled once into a [Policy],
// which is immutable and safe for concurrent use. An evaluation does no I/O, ends at a deadline,
// and reads only its input.
//
// Policies are compiled in strict mode against the JSON Schema of the input, so that a misspelt
// field is an error with file, row and column. Built-in functions that use the network, the
// environment or random numbers are not available. Every module must `import rego.v2`: without it,
// a negated expression over an undefined reference is undefined, and a violation is lost. No module
// may use `with`, which would let a policy replace its facts. lint.go has the complete list.
// [Test] runs the tests of a policy with coverage, before the policy decides requests. Package sandbox
// compiles and tests a source in a process with limits first.
//
// An evaluation that exceeds its time or its memory is canceled, and abandoned if that has no effect at
// once. A policy that does so repeatedly is taken out: guard.go has the limits.
//
// A policy that gives no valid answer is an error, never a verdict: see [Policy.Evaluate].
package evaluator
