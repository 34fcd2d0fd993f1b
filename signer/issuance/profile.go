// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
)

// Defaults and limits of a Profile. The custom resource definition has the same ones.
const (
	defaultMaxDuration = 24 * time.Hour
	minMaxDuration     = 10 * time.Second
	maxMaxDuration     = 100 * 365 * 24 * time.Hour // 876000h
	defaultMinDuration = 10 * time.Minute           // the minimum of spec.expirationSeconds of a CertificateSigningRequest
	minMinDuration     = time.Second
	defaultBackdate    = 5 * time.Minute
	maxBackdate        = time.Hour
	defaultApprovalAge = time.Hour
	minApprovalAge     = time.Minute
	maxURL             = 2048 // bytes
)

var (
	defaultUsages = []certificatesv1.KeyUsage{
		certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageServerAuth,
	}
	// allKeyAlgorithms are those of package pkcs10.
	allKeyAlgorithms = []string{"RSA", "ECDSA", "Ed25519"}
	allSubject       = []v1alpha1.SubjectAttribute{
		v1alpha1.SubjectCommonName, v1alpha1.SubjectOrganization, v1alpha1.SubjectOrganizationalUnit,
	}
)

// Profile is the validated spec of a Signer: the signerName it issues for and the limits of its
// certificates. The zero Profile issues nothing.
type Profile struct {
	signerName     string
	minDuration    time.Duration
	maxDuration    time.Duration
	backdate       time.Duration
	maxApprovalAge time.Duration
	usages         []certificatesv1.KeyUsage
	keyAlgorithms  []string
	subject        []v1alpha1.SubjectAttribute // attributes of the request that certificates keep

	crlDistributionPoints  []string
	ocspServers            []string
	issuingCertificateURLs []string
}

// NewProfile validates the spec of a Signer, except spec.ca and spec.trust, and applies the defaults.
func NewProfile(spec v1alpha1.SignerSpec) (Profile, error) {
	c := spec.Certificate
	p := Profile{
		signerName:             spec.SignerName,
		maxDuration:            durationOr(c.MaxDuration, defaultMaxDuration),
		backdate:               durationOr(c.Backdate, defaultBackdate),
		maxApprovalAge:         durationOr(spec.MaxApprovalAge, defaultApprovalAge),
		usages:                 listOr(c.Usages, defaultUsages),
		keyAlgorithms:          listOr(c.KeyAlgorithms, allKeyAlgorithms),
		subject:                slices.Clone(c.Subject),
		crlDistributionPoints:  slices.Clone(c.CRLDistributionPoints),
		ocspServers:            slices.Clone(c.OCSPServers),
		issuingCertificateURLs: slices.Clone(c.IssuingCertificateURLs),
	}
	p.minDuration = durationOr(c.MinDuration, min(defaultMinDuration, p.maxDuration))
	if c.Subject == nil { // an empty list keeps nothing
		p.subject = slices.Clone(allSubject)
	}
	for _, check := range []func() error{p.checkSignerName, p.checkDurations, p.checkLists, p.checkUsages, p.checkURLs} {
		if err := check(); err != nil {
			return Profile{}, err
		}
	}
	return p, nil
}

// MinDuration is the shortest lifetime that the Signer issues.
func (p Profile) MinDuration() time.Duration { return p.minDuration }

// MaxDuration is the longest lifetime that the Signer issues.
func (p Profile) MaxDuration() time.Duration { return p.maxDuration }

func durationOr(d *metav1.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.Duration
}

func listOr[T any](list, otherwise []T) []T {
	if len(list) == 0 {
		list = otherwise
	}
	return slices.Clone(list)
}

func (p *Profile) checkSignerName() error {
	domain, path, found := strings.Cut(p.signerName, "/")
	switch {
	case !found || domain == "" || path == "":
		return fmt.Errorf("signerName %q is invalid: must be a domain and a path, such as example.com/serving", p.signerName)
	case strings.Contains(p.signerName, "*"):
		return fmt.Errorf("signerName %q is invalid: wildcards are not supported, create a Signer for each signerName", p.signerName)
	case domain == "kubernetes.io":
		return fmt.Errorf("signerName %q is invalid: the domain kubernetes.io is reserved for the signers of the cluster", p.signerName)
	}
	return nil
}

func (p *Profile) checkDurations() error {
	switch {
	case p.maxDuration < minMaxDuration:
		return fmt.Errorf("maxDuration %v is invalid: must be at least %v", p.maxDuration, minMaxDuration)
	case p.maxDuration > maxMaxDuration:
		return fmt.Errorf("maxDuration %v is invalid: must be at most %v", p.maxDuration, maxMaxDuration)
	case p.minDuration < minMinDuration:
		return fmt.Errorf("minDuration %v is invalid: must be at least %v", p.minDuration, minMinDuration)
	case p.minDuration > p.maxDuration:
		return fmt.Errorf("minDuration %v is invalid: must be at most maxDuration, %v", p.minDuration, p.maxDuration)
	case p.backdate < 0 || p.backdate > maxBackdate:
		return fmt.Errorf("backdate %v is invalid: must be between 0s and %v", p.backdate, maxBackdate)
	case p.maxApprovalAge < minApprovalAge:
		return fmt.Errorf("maxApprovalAge %v is invalid: must be at least %v", p.maxApprovalAge, minApprovalAge)
	}
	return nil
}

func (p *Profile) checkLists() error {
	for _, algorithm := range p.keyAlgorithms {
		if !slices.Contains(allKeyAlgorithms, algorithm) {
			return fmt.Errorf("keyAlgorithms: unsupported value %q: supported values are %s", algorithm, quoteAll(allKeyAlgorithms))
		}
	}
	for _, attribute := range p.subject {
		if !slices.Contains(allSubject, attribute) {
			return fmt.Errorf("subject: unsupported value %q: supported values are %s", attribute, quoteAll(allSubject))
		}
	}
	return nil
}

// checkUsages also rejects usages that fit no key algorithm of the Profile.
func (p *Profile) checkUsages() error {
	for _, usage := range p.usages {
		if !slices.Contains(allUsages, usage) {
			return fmt.Errorf("usages: unsupported value %q: supported values are %s", usage, quoteAll(allUsages))
		}
	}
	var problem *ca.Problem
	for _, algorithm := range p.keyAlgorithms {
		if _, problem = fitUsages(p.usages, algorithm); problem == nil {
			return nil
		}
	}
	return fmt.Errorf("usages and keyAlgorithms allow no certificate: %s", problem.Message)
}

func (p *Profile) checkURLs() error {
	for _, list := range []struct {
		name string
		urls []string
	}{
		{"crlDistributionPoints", p.crlDistributionPoints},
		{"ocspServers", p.ocspServers},
		{"issuingCertificateURLs", p.issuingCertificateURLs},
	} {
		for i, text := range list.urls {
			if !isWebURL(text) {
				return fmt.Errorf("%s: invalid value %q: must be an absolute http or https URL in normal form, without user, password and fragment", list.name, text)
			}
			if slices.Contains(list.urls[:i], text) {
				return fmt.Errorf("%s: duplicate value %q", list.name, text)
			}
		}
	}
	return nil
}

// isWebURL reports whether a certificate can hold the URL and package net/url formats it the same way.
func isWebURL(text string) bool {
	if len(text) > maxURL || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return false
	}
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" &&
		u.User == nil && u.Fragment == "" && u.String() == text
}

// keeps reports whether certificates keep an attribute of the subject of the request.
func (p *Profile) keeps(attribute v1alpha1.SubjectAttribute) bool {
	return slices.Contains(p.subject, attribute)
}
