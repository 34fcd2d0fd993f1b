// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

// Reasons of the condition Failed on a CertificateSigningRequest. Failed is permanent, so each of them
// depends on the request and the Profile only, never on the CA.
const (
	// ReasonRequestRefused means that package pkcs10 rejects spec.request, or that the request exceeds 1 MiB
	// with its metadata. The message lists every problem with its reason in that package.
	// Example: "WeakKey: the RSA key has 1024 bits: use 2048 to 8192"
	ReasonRequestRefused = "RequestRefused"
	// ReasonUsageNotAllowed means that the Signer does not allow a usage, that the PKCS#10 request asks for
	// a usage that spec.usages does not list, or that the usages do not limit the certificate.
	// Example: `usage "code signing" is not allowed: the Signer allows "digital signature", "key encipherment", "server auth"`
	ReasonUsageNotAllowed = "UsageNotAllowed"
	// ReasonKeyNotAllowed means that the Signer does not issue for the algorithm of the key.
	// Example: `key algorithm RSA is not allowed: the Signer allows "ECDSA", "Ed25519"`
	ReasonKeyNotAllowed = "KeyNotAllowed"
	// ReasonLifetimeNotAllowed means that spec.expirationSeconds is shorter than the Signer's
	// spec.certificate.minDuration.
	// Example: "expirationSeconds is 600, but the Signer issues for at least 1h0m0s: request 3600 or more"
	ReasonLifetimeNotAllowed = "LifetimeNotAllowed"
	// ReasonSubjectNotAllowed means that the certificate would have no name: the request has none, or
	// only a common name that the Signer leaves out.
	// Example: "the request has neither a common name nor a subject alternative name: add one"
	ReasonSubjectNotAllowed = "SubjectNotAllowed"
	// ReasonLintFailed means that the certificate would violate RFC 5280 or differ from the request. Nothing
	// was signed. The message lists every lint that failed.
	// Example: `DNS name "web.shop.svc." must be a host name of RFC 1123 without a trailing dot`
	ReasonLintFailed = "LintFailed"
)

// ReasonNameNotPermitted is the reason of an Event on a request that stays approved: the name
// constraints of the CA, or of one of its issuers, do not permit a name. The signer issues the request
// once the CA is replaced with one that permits it.
// Example: `the name constraints of the CA "CN=Test CA" or its issuers reject the request: x509: a root or intermediate certificate is not authorized to sign for this name: DNS name "web.example" is not permitted by any constraint. Use a CA that permits the names, or a policy that denies them`
const ReasonNameNotPermitted = "NameNotPermitted"

// ReasonApprovalTooOld is the reason of the condition [v1alpha1.ConditionApprovalTooOld] and of the
// Event that goes with it. The request stays approved, and the signer issues it if the limit is raised.
// Example: "approved at 2026-02-01T00:00:00Z, longer ago than the limit of 1h0m0s: create a new request, or raise spec.maxApprovalAge of the Signer"
const ReasonApprovalTooOld = "ApprovalTooOld"

// ReasonSigningForbidden is the reason of an Event on a Signer: the API server rejects the certificates
// that the signer writes for this signerName.
// Example: `grant the verb "sign" on signers.certificates.k8s.io with resourceNames ["example.com/serving"], and "patch" on certificatesigningrequests/status: certificatesigningrequests.certificates.k8s.io "web" is forbidden: no`
const ReasonSigningForbidden = "SigningForbidden"
