// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package evaluator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// Timeout bounds one evaluation. A policy usually takes less than a millisecond. A request whose
// evaluation times out is retried.
const Timeout = time.Second

// MaxInput is the maximum size of the facts, in bytes of JSON. Most requests have a few thousand. The
// objects of a cluster can have megabytes.
const MaxInput = 1 << 20

// Result is the answer of one policy to one request.
type Result struct {
	// Abstains is true if the rule `applies` of the policy is not true.
	Abstains bool
	// Allowed is true only if the policy states that both requirements hold, and there is no violation.
	Allowed bool
	// Violations are in the order of requirement, id and value. They are not empty if the policy neither
	// allows nor abstains.
	Violations []Violation
}

// Violation is one reason not to approve a request.
type Violation struct {
	// Requirement is 1 (the subject controls the key) or 2 (the subject is authorized).
	Requirement int `json:"requirement"`
	// ID names the rule that is violated, such as "dns-name-not-owned".
	ID string `json:"id"`
	// Message says what is wrong, for the requester.
	Message string `json:"message"`
	// Value is the name, address or usage that is wrong. It can be empty.
	Value string `json:"value,omitempty"`
	// Retryable is true if the violation can be resolved without a new request.
	Retryable bool `json:"retryable,omitempty"`
}

// Evaluate evaluates the policy over facts and its own parameters.
//
// An error means that the policy gave no valid answer: it failed or timed out, its result is undefined
// or malformed, or it neither allowed the request nor had a violation. An error is not a verdict: retry.
// A policy that exceeds its limits repeatedly is taken out: see [ErrTooExpensive].
func (p *Policy) Evaluate(ctx context.Context, in *Input) (Result, error) {
	document, err := in.with(p.parameters, p.parametersLength)
	if err != nil {
		return Result{}, err
	}
	results, err := p.guard.run(ctx, &in.budget, func(ended topdown.Cancel) (rego.ResultSet, error) {
		return p.query.Eval(context.WithoutCancel(ctx), rego.EvalParsedInput(document), rego.EvalExternalCancel(ended))
	})
	if err != nil {
		return Result{}, fmt.Errorf("evaluating: %w", err)
	}
	if len(results) != 1 {
		return Result{}, fmt.Errorf("the result is undefined: %d results", len(results))
	}
	return read(results[0].Bindings)
}

func read(b rego.Vars) (Result, error) {
	violations, err := violationsOf(b["violations"])
	switch {
	case err != nil:
		return Result{}, err
	case !isTrue(b["applies"]):
		return Result{Abstains: true}, nil
	case b["violations"] == nil:
		return Result{}, errors.New("violations is null: it must be a set, and empty if there is no violation")
	}
	for _, v := range violations {
		if (v.Requirement != 1 && v.Requirement != 2) || v.ID == "" || v.Message == "" {
			return Result{}, fmt.Errorf("violation %+v: requirement must be 1 or 2, id and message must not be empty", v)
		}
	}
	allowed := isTrue(b["controls"]) && isTrue(b["authorized"])
	switch {
	case len(violations) == 0 && !allowed:
		return Result{}, errors.New("the policy neither allows the request nor has a violation: add a violation that says why")
	case len(violations) == 0:
		return Result{Allowed: true}, nil
	}
	slices.SortFunc(violations, func(a, b Violation) int {
		return strings.Compare(fmt.Sprint(a.Requirement, a.ID, "\x00", a.Value, "\x00", a.Message), fmt.Sprint(b.Requirement, b.ID, "\x00", b.Value, "\x00", b.Message))
	})
	return Result{Violations: violations}, nil
}

func violationsOf(value any) ([]Violation, error) {
	if list, ok := value.([]any); ok && len(list) == 0 {
		return nil, nil
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encoding the result: %w", err)
	}
	var violations []Violation
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&violations); err != nil {
		return nil, fmt.Errorf("a violation must be an object with requirement, id, message, value and retryable: %w", err)
	}
	return violations, nil
}

// isTrue reports whether a value is the array [true].
func isTrue(value any) bool {
	values, ok := value.([]any)
	return ok && len(values) == 1 && values[0] == true
}
