// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"errors"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/internal/certreq"
	"countersign.dev/countersign/pkcs10"
	"countersign.dev/countersign/signer/ca"
)

// Outcome is the verdict on a request.
type Outcome string

// The outcomes.
const (
	// NotDue requests need no action: they are for another signerName, not approved, denied, failed or
	// already issued.
	NotDue Outcome = "NotDue"
	// Ready requests have an [Issuance].
	Ready Outcome = "Ready"
	// ApprovalTooOld requests were approved longer ago than spec.maxApprovalAge of the Signer.
	ApprovalTooOld Outcome = "ApprovalTooOld"
	// Refused requests can never be issued.
	Refused Outcome = "Refused"
	// CAProblem requests can be issued once the CA is fixed or replaced, or the Signer is changed.
	CAProblem Outcome = "CAProblem"
)

// Result is the result of [Prepare].
type Result struct {
	Outcome Outcome
	// Issuance is set if the outcome is Ready.
	Issuance *Issuance
	// Problem is set if the outcome is ApprovalTooOld, Refused or CAProblem.
	Problem *ca.Problem
}

// Prepare validates a request and makes an [Issuance] for it. It does not change the request. An error
// means that the result is not known and the caller should retry.
func Prepare(now time.Time, csr *certificatesv1.CertificateSigningRequest, profile Profile, authority *ca.CA) (Result, error) {
	if profile.signerName == "" || csr.Spec.SignerName != profile.signerName || certreq.StateOf(csr) != certreq.Due {
		return Result{Outcome: NotDue}, nil
	}
	if problem := checkApprovalAge(now, csr, profile.maxApprovalAge); problem != nil {
		return Result{Outcome: ApprovalTooOld, Problem: problem}, nil
	}
	request, err := pkcs10.Parse(csr.Spec.Request)
	if err != nil {
		if rejected, ok := errors.AsType[*pkcs10.Error](err); ok {
			return Result{Outcome: Refused, Problem: ca.Problemf(ReasonRequestRefused, "%v", rejected)}, nil
		}
		return Result{}, fmt.Errorf("parsing the request: %w", err)
	}
	// Requests are refused even while the CA cannot issue.
	t, problem := newTerms(request, csr.Spec.Usages, csr.Spec.ExpirationSeconds, &profile)
	if problem != nil {
		return Result{Outcome: Refused, Problem: problem}, nil
	}
	if problem := checkCA(now, authority, t.usages, profile.minDuration); problem != nil {
		return Result{Outcome: CAProblem, Problem: problem}, nil
	}
	return prepare(now, t, authority)
}

// prepare makes an Issuance on terms that the Profile and the CA allow.
func prepare(now time.Time, t *terms, authority *ca.CA) (Result, error) {
	d, err := newDraft(now, t, authority)
	if err != nil {
		return Result{}, err
	}
	tbs, problem := lint(d)
	if problem != nil {
		// Every other request may fail the same lint because of the CA.
		if fromCA := t.profile.Probe(now, authority); fromCA != nil {
			return Result{Outcome: CAProblem, Problem: fromCA}, nil
		}
		return Result{Outcome: Refused, Problem: problem}, nil
	}
	// The Signer was probed before. Only the result of name constraints differs between requests.
	if authority.ConstrainsNames() {
		problem, err := verify(now, d)
		if err != nil {
			return Result{}, err
		}
		if problem != nil {
			return Result{Outcome: CAProblem, Problem: problem}, nil
		}
	}
	return Result{Outcome: Ready, Issuance: &Issuance{draft: d, tbs: tbs}}, nil
}

// checkApprovalAge returns a problem if a request was approved longer ago than the limit. An approval in
// the future, by a clock that is ahead, counts as an approval now. The message is the same on
// every call.
func checkApprovalAge(now time.Time, csr *certificatesv1.CertificateSigningRequest, limit time.Duration) *ca.Problem {
	approved := certreq.ApprovedAt(csr)
	if now.Sub(approved) <= limit {
		return nil
	}
	return ca.Problemf(ReasonApprovalTooOld,
		"approved at %s, longer ago than the limit of %v: create a new request, or raise spec.maxApprovalAge of the Signer",
		approved.UTC().Format(time.RFC3339), limit)
}
