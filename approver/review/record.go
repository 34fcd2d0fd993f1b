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

// Maximum number of violations of a policy in a record, and of bytes of their texts. All shadow policies
// together have as much.
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
	left := share{maxViolations, maxViolationBytes}
	for _, e := range evaluations {
		if !shadow {
			left = share{maxViolations, maxViolationBytes}
		}
		violations := left.take(e.Result.Violations)
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

// share is the number of violations that a record can still have, and of bytes of their texts.
type share struct{ violations, bytes int }

// take returns the first violations, as many as fit the share.
func (s *share) take(violations []evaluator.Violation) []evaluator.Violation {
	for i := range violations {
		v := &violations[i]
		size := len(v.ID) + len(v.Message) + len(v.Value)
		if s.violations == 0 || size > s.bytes {
			return violations[:i]
		}
		s.violations, s.bytes = s.violations-1, s.bytes-size
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
