// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	zx509 "github.com/zmap/zcrypto/x509"
	zlint "github.com/zmap/zlint/v3/lint"
	_ "github.com/zmap/zlint/v3/lints/rfc" // registers these lints only; package zlint registers those of the public web too

	"countersign.dev/countersign/internal/text"
)

// skippedLints are not applied: they would refuse valid requests, and Failed is permanent.
var skippedLints = []string{
	// Forbids "key encipherment" with "client auth" alone, which clients with RSA keys request. RFC 5280
	// (section 4.2.1.12) requires only one purpose that is consistent with both extensions, and fitUsages
	// checks that. With several extended usages the result depends on the iteration order of a map.
	"e_key_usage_and_extended_key_usage_inconsistent",
	// Requires two labels in the host of a URI. The host of a SPIFFE ID is a trust domain, which can
	// have one label (SPIFFE-ID, section 2.1).
	"e_ext_san_uri_host_not_fqdn_or_ip",
	// Require at most 64 characters (RFC 5280, appendix A.1, from X.411). Kubernetes reads the user and its
	// groups from these attributes, and "system:serviceaccount:<namespace>:<name>" can have 339. The signers
	// of Kubernetes and TLS libraries set no limit; package pkcs10 limits the request.
	"e_subject_common_name_max_length",
	"e_subject_organization_name_max_length",
}

// rfcLints returns the certificate lints that cite RFCs, sorted by name.
var rfcLints = sync.OnceValue(func() []*zlint.CertificateLint {
	lints := slices.DeleteFunc(zlint.GlobalRegistry().CertificateLints().Lints(), func(l *zlint.CertificateLint) bool {
		return !strings.HasPrefix(string(l.Source), "RFC") || slices.Contains(skippedLints, l.Name)
	})
	slices.SortFunc(lints, func(a, b *zlint.CertificateLint) int { return cmp.Compare(a.Name, b.Name) })
	return lints
})

var lintConfig = sync.OnceValue(zlint.NewEmptyConfig)

// lintRFC applies the lints to a certificate and returns every error. It ignores warnings and notices.
func lintRFC(der []byte) error {
	certificate, err := zx509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("parsing the certificate with zcrypto: %w", err)
	}
	var errs []error
	for _, l := range rfcLints() {
		result := l.Execute(certificate, lintConfig())
		if result.Status < zlint.Error {
			continue
		}
		message := fmt.Sprintf("lint %s: %s (%s)", l.Name, strings.TrimSuffix(l.Description, "."), l.Citation)
		if result.Details != "" {
			message += ": " + result.Details
		}
		errs = append(errs, errors.New(message))
	}
	return text.JoinErrors(errs...)
}
