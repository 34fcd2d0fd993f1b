// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package review

import (
	"errors"
	"fmt"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/pkcs10"
)

// MaxNames is the maximum number of DNS names and addresses of a request. It bounds how many reads
// one request causes.
const MaxNames = 64

// parse parses the PKCS#10 of a request. The Decision is the zero one, or a refusal. The request
// is never nil: it has at most MaxNames DNS names and as many addresses, and it is empty if the
// PKCS#10 cannot be parsed. The error is not about the request.
func parse(spec *certificatesv1.CertificateSigningRequestSpec) (*pkcs10.Request, Decision, error) {
	request, err := pkcs10.Parse(spec.Request)
	var invalid *pkcs10.Error
	if err != nil && !errors.As(err, &invalid) {
		return nil, Decision{}, fmt.Errorf("parsing request: %w", err)
	}
	refusal := Refusal(spec, request, invalid)
	if request == nil {
		request = &pkcs10.Request{} // enough to find the namespace of the requester's Pod
	}
	request.DNSNames = request.DNSNames[:min(len(request.DNSNames), MaxNames)]
	request.IPAddresses = request.IPAddresses[:min(len(request.IPAddresses), MaxNames)]
	return request, refusal, nil
}

// Refusal returns the decision on a request that no policy can allow: [pkcs10.Parse] rejects its
// PKCS#10 with the error invalid, or the PKCS#10 contradicts the request that contains it. The
// zero Decision means that policies decide.
func Refusal(spec *certificatesv1.CertificateSigningRequestSpec, request *pkcs10.Request, invalid *pkcs10.Error) Decision {
	var refusals []pkcs10.Refusal
	switch {
	case invalid != nil:
		refusals = invalid.Refusals
	case request != nil:
		refusals = contradictions(spec, request)
	}
	if len(refusals) == 0 {
		return Decision{}
	}
	return Decision{Outcome: Refuse, Reason: string(refusals[0].Reason), Message: (&pkcs10.Error{Refusals: refusals}).Error()}
}

func contradictions(spec *certificatesv1.CertificateSigningRequestSpec, request *pkcs10.Request) []pkcs10.Refusal {
	var out []pkcs10.Refusal
	if n := len(request.DNSNames) + len(request.IPAddresses); n > MaxNames {
		out = append(out, pkcs10.Refusal{Reason: ReasonTooManyNames, Message: fmt.Sprintf("the request has %d names and addresses; the maximum is %d", n, MaxNames)})
	}
	for _, usage := range request.Usages {
		if !slices.Contains(spec.Usages, usage) {
			out = append(out, pkcs10.Refusal{Reason: ReasonUsageMismatch, Message: fmt.Sprintf("the PKCS#10 request asks for usage %q, which spec.usages does not contain", usage)})
		}
	}
	return out
}
