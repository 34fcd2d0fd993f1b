// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/audit"
)

// recordOf begins the record of a decision with what is known before anything is parsed.
func recordOf(csr *certificatesv1.CertificateSigningRequest) audit.Decision {
	return audit.Decision{
		Request:   audit.Request{Name: csr.Name, UID: csr.UID, SignerName: csr.Spec.SignerName},
		Requester: audit.RequesterOf(&csr.Spec),
	}
}

// complete adds what the decision rests on.
func complete(record audit.Decision, f facts.Facts, evaluations []Evaluation) audit.Decision {
	record.Request.KeySHA256 = f.PKCS10.Key.SHA256
	record.Request.DNSNames, record.Request.IPs = f.PKCS10.DNSNames, f.PKCS10.IPAddresses
	for _, e := range evaluations {
		violations := e.Result.Violations
		record.Policies = append(record.Policies, audit.Policy{
			Name: e.Policy, Revision: e.Revision, Allowed: e.Result.Allowed, Abstains: e.Result.Abstains, Violations: violations,
		})
	}
	if raw, err := json.Marshal(f); err == nil {
		sum := sha256.Sum256(raw)
		record.FactsSHA256 = hex.EncodeToString(sum[:])
	}
	return record
}
