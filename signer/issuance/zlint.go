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
	_ "github.com/zmap/zlint/v3/lints/rfc" // registers the lints; the package zlint would register those for the public web too
)

// notLinted are lints that are not applied, as they would refuse honest requests, and Failed cannot be
// taken back.
var notLinted = []string{
	// Forbids "key encipherment" with "client auth" alone, which clients with RSA keys ask for. RFC 5280
	// (section 4.2.1.12) only wants one purpose that goes with both extensions, which fitUsages sees
	// to. For several extended usages it depends on the order in which a map is gone through.
	"e_key_usage_and_extended_key_usage_inconsistent",
	// Wants two labels in the host of a URI. The host of a SPIFFE ID is a trust domain, which may
	// have one (SPIFFE-ID, section 2.1).
	"e_ext_san_uri_host_not_fqdn_or_ip",
	// Want 64 characters at most, which RFC 5280 (appendix A.1) has from X.411. Kubernetes reads user
	// and groups from these attributes, and "system:serviceaccount:<namespace>:<name>" may have 339.
	// Its own signers, and all who verify, set no limit; package pkcs10 does, for the request.
	"e_subject_common_name_max_length",
	"e_subject_organization_name_max_length",
}

// rfcLints are the lints of certificates that cite RFCs, by name.
var rfcLints = sync.OnceValue(func() []*zlint.CertificateLint {
	lints := slices.DeleteFunc(zlint.GlobalRegistry().CertificateLints().Lints(), func(l *zlint.CertificateLint) bool {
		return !strings.HasPrefix(string(l.Source), "RFC") || slices.Contains(notLinted, l.Name)
	})
	slices.SortFunc(lints, func(a, b *zlint.CertificateLint) int { return cmp.Compare(a.Name, b.Name) })
	return lints
})

var lintConfig = sync.OnceValue(zlint.NewEmptyConfig)

// lintRFC lints a certificate by the RFCs, and returns every error. Warnings and notices are none.
func lintRFC(der []byte) error {
	certificate, err := zx509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("zcrypto cannot read the certificate: %w", err)
	}
	var errs []error
	for _, l := range rfcLints() {
		result := l.Execute(certificate, lintConfig())
		if result.Status < zlint.Error {
			continue
		}
		text := fmt.Sprintf("lint %s: %s (%s)", l.Name, strings.TrimSuffix(l.Description, "."), l.Citation)
		if result.Details != "" {
			text += ": " + result.Details
		}
		errs = append(errs, errors.New(text))
	}
	return joinLine(errs)
}
