// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"countersign.dev/countersign/api/v1alpha1"
)

// Defaults and limits of a profile; the custom resource definition has the same.
const (
	defaultMaxDuration = 24 * time.Hour
	minMaxDuration     = 10 * time.Minute
	defaultBackdate    = 5 * time.Minute
	maxBackdate        = time.Hour
)

var defaultUsages = []certificatesv1.KeyUsage{
	certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageServerAuth,
}

// The usages that can be issued, by where in a certificate they stand.
var (
	keyUsages = map[certificatesv1.KeyUsage]x509.KeyUsage{
		certificatesv1.UsageDigitalSignature: x509.KeyUsageDigitalSignature,
		certificatesv1.UsageKeyEncipherment:  x509.KeyUsageKeyEncipherment,
	}
	extKeyUsages = map[certificatesv1.KeyUsage]x509.ExtKeyUsage{
		certificatesv1.UsageServerAuth: x509.ExtKeyUsageServerAuth,
		certificatesv1.UsageClientAuth: x509.ExtKeyUsageClientAuth,
	}
)

// Profile is the validated spec of a Signer: for whom, and within which limits, it issues.
// The zero Profile issues nothing.
type Profile struct {
	signerName  string
	maxDuration time.Duration
	backdate    time.Duration
	usages      []certificatesv1.KeyUsage
}

// NewProfile validates the spec of a Signer, but for its CA.
func NewProfile(spec v1alpha1.SignerSpec) (Profile, error) {
	p := Profile{
		signerName:  spec.SignerName,
		maxDuration: defaultMaxDuration,
		backdate:    defaultBackdate,
		usages:      defaultUsages,
	}
	if d := spec.Certificate.MaxDuration; d != nil {
		p.maxDuration = d.Duration
	}
	if d := spec.Certificate.Backdate; d != nil {
		p.backdate = d.Duration
	}
	if len(spec.Certificate.Usages) > 0 {
		p.usages = slices.Clone(spec.Certificate.Usages)
	}

	domain, path, found := strings.Cut(p.signerName, "/")
	switch {
	case !found || domain == "" || path == "":
		return Profile{}, fmt.Errorf("signerName is %q: it must be of the form example.com/serving", p.signerName)
	case domain == "kubernetes.io":
		return Profile{}, fmt.Errorf("signerName is %q: signers of kubernetes.io belong to the cluster itself", p.signerName)
	case p.maxDuration < minMaxDuration:
		return Profile{}, fmt.Errorf("maxDuration is %v: it must be at least %v", p.maxDuration, minMaxDuration)
	case p.backdate < 0 || p.backdate > maxBackdate:
		return Profile{}, fmt.Errorf("backdate is %v: it must be between 0s and %v", p.backdate, maxBackdate)
	}
	for _, usage := range p.usages {
		if _, ok := keyUsages[usage]; ok {
			continue
		}
		if _, ok := extKeyUsages[usage]; !ok {
			return Profile{}, fmt.Errorf("usage %q cannot be issued: use only %s", usage,
				quoteAll(append(slices.Clone(defaultUsages), certificatesv1.UsageClientAuth)))
		}
	}
	return p, nil
}
