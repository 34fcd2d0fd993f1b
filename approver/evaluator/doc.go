// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package evaluator compiles Rego policies and evaluates them over facts.
//
// It is the only package of the approver that knows OPA. A [Source] is compiled
// once into a [Policy], which is immutable and safe for concurrent use; evaluating it
// does no I/O, ends at a deadline, and never reads anything but its input.
//
// Policies are compiled in strict mode against the JSON Schema of the input, so that a
// misspelt field is an error with file, row and column. Built-in functions that reach
// outside (the network, the environment, chance) do not exist for them. Every module
// must `import rego.v2`, because before it a negated expression over an undefined
// reference is undefined too, and a refusal that was meant silently is not made; no module
// may use `with`, by which a policy could replace the facts it judges; and more such, see
// lint.go. A policy's own tests are run with coverage by [Test], before it may decide.
//
// A policy that gives no clear answer is an error, never a verdict: see [Policy.Evaluate].
package evaluator
