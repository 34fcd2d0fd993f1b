// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package review

import (
	"encoding/json"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/audit"
)

// Record returns the audit record of a review, with a new decision ID.
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
		record.AddFacts(review.factsJSON())
	}
	for _, e := range review.Evaluations {
		record.Policies = append(record.Policies, recordOf(&e))
	}
	for _, e := range review.Shadow {
		shadow := recordOf(&e)
		shadow.Audit = true
		record.Policies = append(record.Policies, shadow)
	}
	return record
}

func recordOf(e *Evaluation) audit.Policy {
	p := audit.Policy{Name: e.Policy, Revision: e.Revision, Answer: e.Answer(), Violations: e.Result.Violations}
	if e.Err != nil {
		p.Error = e.Err.Error()
	}
	return p
}

// factsJSON returns the facts for the record. They are encoded already if policies were evaluated.
func (r *Review) factsJSON() json.RawMessage {
	if r.input == nil {
		r.input = evaluator.NewInput(r.Facts)
	}
	return r.input.JSON()
}
