// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"fmt"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/internal/certreq"
)

// Reasons of the condition Failed on a CertificateSigningRequest. Failed cannot be taken back,
// so each is about the request and the profile alone; a fault of the CA is never among them.
const (
	// ReasonRequestRefused: spec.request is not a request that may be issued by anyone; every fault
	// is named with the reason package pkcs10 has for it.
	// Example: "WeakKey: the RSA key has 1024 bits: use 2048 to 8192".
	ReasonRequestRefused = "RequestRefused"
	// ReasonUsageNotAllowed: the usages are beyond the Signer's, or beyond spec.usages, or not
	// enough to make a certificate that is limited to anything.
	// Example: `usage "code signing" is not among those of Signer serving: "digital signature", "server auth"`.
	ReasonUsageNotAllowed = "UsageNotAllowed"
	// ReasonKeyNotAllowed: the key of the request is of a kind that the Signer does not issue for.
	// Example: `the key is of type RSA, and the Signer issues only for keys of type "ECDSA", "Ed25519": make a request with such a key`.
	ReasonKeyNotAllowed = "KeyNotAllowed"
	// ReasonLifetimeNotAllowed: the request asks for a shorter lifetime than the Signer's spec.certificate.minDuration.
	// Example: "expirationSeconds is 600, and the Signer issues for 1h0m0s at least: ask for 3600 or more".
	ReasonLifetimeNotAllowed = "LifetimeNotAllowed"
	// ReasonSubjectNotAllowed: the request names nobody, at least by what the Signer keeps of its subject.
	// Example: "the request has neither a common name nor a subject alternative name: a certificate must name somebody".
	ReasonSubjectNotAllowed = "SubjectNotAllowed"
	// ReasonLintFailed: a certificate made from the request would not be one by RFC 5280, or not what was
	// asked for. Nothing was signed. Every lint that failed is named, with what it wants.
	// Example: "lint e_rfc_dnsname_label_too_long: DNSName labels MUST be less than or equal to 63 characters (RFC 5280: 4.2.1.6)".
	ReasonLintFailed = "LintFailed"
)

// ReasonNameNotPermitted is the reason of an Event on a request that waits: the name constraints of
// the CA, or of one above it, do not let it issue for a name. It is issued once the CA is replaced by
// one that does.
// Example: `the CA "CN=Example" may not issue for these names: ...`.
const ReasonNameNotPermitted = "NameNotPermitted"

// ReasonApprovalTooOld is the reason of the condition [v1alpha1.ConditionApprovalTooOld], and of an
// Event with it: the request waits, and is issued if the Signer is changed to allow it.
// Example: "approved at 2026-02-01T00:00:00Z, and the Signer signs only within 1h0m0s of the approval: make
// a new request, or raise spec.maxApprovalAge of the Signer".
const ReasonApprovalTooOld = "ApprovalTooOld"

// ReasonSigningForbidden is the reason of an Event on a Signer: the API server does not let this
// process write certificates of its signerName.
// Example: `grant the verb "sign" on signers.certificates.k8s.io with resourceNames ["example.com/serving"]: ...`.
const ReasonSigningForbidden = "SigningForbidden"

// Refusal is why a request can never be issued.
type Refusal struct {
	// Reason is one of the reasons of the condition Failed.
	Reason string
	// Message says what was seen and what to do about it.
	Message string
}

// Error joins reason and message.
func (r *Refusal) Error() string { return r.Reason + ": " + r.Message }

func refusef(reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// NotDue is why there is nothing to do for a request: it is not ours, or not approved, or done.
// It is no fault.
type NotDue string

// Error is the reason why.
func (n NotDue) Error() string { return string(n) }

// The values of NotDue.
const (
	NotOurs       NotDue = "the request is for another signerName"
	NotApproved   NotDue = "the request is not approved"
	Denied        NotDue = "the request is denied"
	Failed        NotDue = "the request failed"
	AlreadyIssued NotDue = "the request has a certificate"
)

// IsDue reports whether a request is to be signed: it is approved, and neither denied, failed nor issued.
func IsDue(csr *certificatesv1.CertificateSigningRequest) bool { return due(csr) == nil }

// due returns a NotDue if a request is not, or no longer, to be signed.
func due(csr *certificatesv1.CertificateSigningRequest) error {
	switch certreq.StateOf(csr) {
	case certreq.Denied:
		return Denied
	case certreq.Failed:
		return Failed
	case certreq.Issued:
		return AlreadyIssued
	case certreq.Pending:
		return NotApproved
	default:
		return nil
	}
}

// TooOld is why an approved request is not signed as long as the limit is what it is.
type TooOld struct {
	// Approved is when the request was approved.
	Approved time.Time
	// Limit is the Signer's spec.maxApprovalAge.
	Limit time.Duration
}

// Error tells both, and what to do. It is the same whenever it is asked for.
func (t *TooOld) Error() string {
	return fmt.Sprintf("approved at %s, and the Signer signs only within %v of the approval: make a new request, or raise spec.maxApprovalAge of the Signer",
		t.Approved.UTC().Format(time.RFC3339), t.Limit)
}

// checkApprovalAge returns a [*TooOld] if a request was approved longer ago than the limit. An
// approval in the future, by a clock that is ahead of ours, counts as one of now.
func checkApprovalAge(now time.Time, csr *certificatesv1.CertificateSigningRequest, limit time.Duration) error {
	if approved := certreq.ApprovedAt(csr); now.Sub(approved) > limit {
		return &TooOld{Approved: approved, Limit: limit}
	}
	return nil
}

// quoteAll joins usages for a message.
func quoteAll[S ~string](list []S) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = fmt.Sprintf("%q", string(s))
	}
	return strings.Join(quoted, ", ")
}
