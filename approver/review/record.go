// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package review

import (
	"encoding/json"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/audit"
)

// Maximum number of violations of a policy in a record, and of bytes of their texts.
const (
	maxViolations     = 256
	maxViolationBytes = 32 << 10
)

// Record returns the audit record of a review, with a new decision ID. [audit.Log] bounds its size.
func Record(csr *certificatesv1.CertificateSigningRequest, review Review) audit.Decision {
	record := audit.Decision{
		ID: string(uuid.NewUUID()), Verdict: review.Outcome.Verdict(), Reason: review.Reason, Message: review.Message,
		Request:   audit.Request{Name: csr.Name, UID: csr.UID, SignerName: csr.Spec.SignerName},
		Requester: audit.RequesterOf(&csr.Spec),
	}
	if !review.Outcome.Matched() {
		record.Verdict = Audited
	}
	if f := review.Facts; f != nil {
		record.Request.KeySHA256 = f.PKCS10.Key.SHA256
		record.Request.DNSNames, record.Request.IPs = f.PKCS10.DNSNames, f.PKCS10.IPAddresses
		if review.Reason == ReasonFactsTooLarge {
			record.Truncated = append(record.Truncated, "facts")
		} else {
			record.AddFacts(review.factsJSON())
		}
	}
	addPolicies(&record, review.Evaluations, false)
	addPolicies(&record, review.Shadow, true)
	return record
}

func addPolicies(record *audit.Decision, evaluations []Evaluation, shadow bool) {
	for _, e := range evaluations {
		violations := firstViolations(e.Result.Violations)
		if len(violations) < len(e.Result.Violations) && !slices.Contains(record.Truncated, "policies.violations") {
			record.Truncated = append(record.Truncated, "policies.violations")
		}
		p := audit.Policy{Name: e.Policy, Revision: e.Revision, Answer: e.Answer(), Audit: shadow, Violations: violations}
		if e.Err != nil {
			p.Error = e.Err.Error()
		}
		record.Policies = append(record.Policies, p)
	}
}

// firstViolations returns the violations that fit a record.
func firstViolations(violations []evaluator.Violation) []evaluator.Violation {
	size := 0
	for i := range violations {
		v := &violations[i]
		if size += len(v.ID) + len(v.Message) + len(v.Value); i == maxViolations || size > maxViolationBytes {
			return violations[:i]
		}
	}
	return violations
}

// factsJSON returns the facts for the record. They are encoded already if policies were evaluated.
func (r *Review) factsJSON() json.RawMessage {
	if r.input == nil {
		r.input = evaluator.NewInput(r.Facts)
	}
	return r.input.JSON()
}
