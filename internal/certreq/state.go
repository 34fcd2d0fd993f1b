// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package certreq

import (
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
)

// State is the state of a request in its lifecycle.
type State string

// The states. Conditions Approved, Denied and Failed are permanent, and so is a certificate: a request
// only ever moves from Pending to Due or Denied, and from Due to Issued or Failed.
const (
	// Pending requests are neither approved nor denied.
	Pending State = "Pending"
	// Due requests are approved and wait for their certificate.
	Due State = "Due"
	// Denied requests have the condition Denied, whatever else they have.
	Denied State = "Denied"
	// Failed requests have the condition Failed: their signer never issues them.
	Failed State = "Failed"
	// Issued requests have a certificate. The API server does not require that they are approved.
	Issued State = "Issued"
)

// StateOf returns the state of a request. A condition with status False does not count. The API server
// rejects that status for these types (k8s.io/kubernetes/pkg/apis/certificates/validation).
func StateOf(csr *certificatesv1.CertificateSigningRequest) State {
	isTrue := func(conditionType certificatesv1.RequestConditionType) bool {
		return slices.ContainsFunc(csr.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
			return c.Type == conditionType && c.Status != corev1.ConditionFalse
		})
	}
	switch {
	case isTrue(certificatesv1.CertificateDenied):
		return Denied
	case isTrue(certificatesv1.CertificateFailed):
		return Failed
	case len(csr.Status.Certificate) > 0:
		return Issued
	case isTrue(certificatesv1.CertificateApproved):
		return Due
	default:
		return Pending
	}
}

// IsApproved reports whether a request has the condition Approved, with any status.
func IsApproved(csr *certificatesv1.CertificateSigningRequest) bool {
	return hasCondition(csr, certificatesv1.CertificateApproved)
}

// IsDecided reports whether a request has the condition Approved, Denied or Failed, with any status. None
// of these can be removed.
func IsDecided(csr *certificatesv1.CertificateSigningRequest) bool {
	return hasCondition(csr, certificatesv1.CertificateApproved) ||
		hasCondition(csr, certificatesv1.CertificateDenied) ||
		hasCondition(csr, certificatesv1.CertificateFailed)
}

func hasCondition(csr *certificatesv1.CertificateSigningRequest, conditionType certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(csr.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
		return c.Type == conditionType
	})
}

// ApprovedAt returns the time a request was approved. If the condition carries no time it returns the
// creation time, which is earlier: the approval then counts as older than it is, never as younger.
func ApprovedAt(csr *certificatesv1.CertificateSigningRequest) time.Time {
	for _, c := range csr.Status.Conditions {
		switch {
		case c.Type != certificatesv1.CertificateApproved:
		case !c.LastUpdateTime.IsZero():
			return c.LastUpdateTime.Time
		case !c.LastTransitionTime.IsZero():
			return c.LastTransitionTime.Time
		}
	}
	return csr.CreationTimestamp.Time
}
