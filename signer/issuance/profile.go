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
)

// Defaults and limits of a profile; the custom resource definition has the same.
const (
	defaultMaxDuration = 24 * time.Hour
	minMaxDuration     = 10 * time.Second
	defaultMinDuration = 10 * time.Minute // the shortest that a CertificateSigningRequest can ask for
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

// Profile is the validated spec of a Signer: for whom, and within which limits, it issues.
// The zero Profile issues nothing.
type Profile struct {
	signerName     string
	minDuration    time.Duration
	maxDuration    time.Duration
	backdate       time.Duration
	maxApprovalAge time.Duration
	usages         []certificatesv1.KeyUsage
	keyAlgorithms  []string
	subject        []v1alpha1.SubjectAttribute // those that are kept

	crlDistributionPoints  []string
	ocspServers            []string
	issuingCertificateURLs []string
}

// NewProfile validates the spec of a Signer, but for its CA. What is left out has its default.
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
		return fmt.Errorf("signerName is %q: it must be of the form example.com/serving", p.signerName)
	case strings.Contains(p.signerName, "*"):
		return fmt.Errorf("signerName is %q: a Signer issues for one signerName, not for all of a domain; make a Signer for each", p.signerName)
	case domain == "kubernetes.io":
		return fmt.Errorf("signerName is %q: signers of kubernetes.io belong to the cluster itself", p.signerName)
	}
	return nil
}

func (p *Profile) checkDurations() error {
	switch {
	case p.maxDuration < minMaxDuration:
		return fmt.Errorf("maxDuration is %v: it must be at least %v", p.maxDuration, minMaxDuration)
	case p.minDuration < minMinDuration:
		return fmt.Errorf("minDuration is %v: it must be at least %v", p.minDuration, minMinDuration)
	case p.minDuration > p.maxDuration:
		return fmt.Errorf("minDuration is %v: it must not be longer than maxDuration, %v", p.minDuration, p.maxDuration)
	case p.backdate < 0 || p.backdate > maxBackdate:
		return fmt.Errorf("backdate is %v: it must be between 0s and %v", p.backdate, maxBackdate)
	case p.maxApprovalAge < minApprovalAge:
		return fmt.Errorf("maxApprovalAge is %v: it must be at least %v", p.maxApprovalAge, minApprovalAge)
	}
	return nil
}

func (p *Profile) checkLists() error {
	for _, algorithm := range p.keyAlgorithms {
		if !slices.Contains(allKeyAlgorithms, algorithm) {
			return fmt.Errorf("key algorithm %q is not known: use only %s", algorithm, quoteAll(allKeyAlgorithms))
		}
	}
	for _, attribute := range p.subject {
		if !slices.Contains(allSubject, attribute) {
			return fmt.Errorf("subject attribute %q cannot be issued: use only %s", attribute, quoteAll(allSubject))
		}
	}
	return nil
}

// checkUsages also refuses usages of which no certificate can be made.
func (p *Profile) checkUsages() error {
	for _, usage := range p.usages {
		if !slices.Contains(allUsages, usage) {
			return fmt.Errorf("usage %q cannot be issued: use only %s", usage, quoteAll(allUsages))
		}
	}
	var why error
	for _, algorithm := range p.keyAlgorithms {
		_, err := fitUsages(p.usages, algorithm)
		if err == nil {
			return nil
		}
		why = err
	}
	return fmt.Errorf("no certificate can be made by usages and keyAlgorithms: %w", why)
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
				return fmt.Errorf("%s has %q: it must be an absolute URL that begins with http:// or https://, in its normal form and without user, password or fragment", list.name, text)
			}
			if slices.Contains(list.urls[:i], text) {
				return fmt.Errorf("%s has %q more than once: keep one", list.name, text)
			}
		}
	}
	return nil
}

// isWebURL says whether text can stand in a certificate, and is what net/url would write.
func isWebURL(text string) bool {
	if len(text) > maxURL || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return false
	}
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" &&
		u.User == nil && u.Fragment == "" && u.String() == text
}

// keeps says whether certificates have an attribute of the request's subject.
func (p *Profile) keeps(attribute v1alpha1.SubjectAttribute) bool {
	return slices.Contains(p.subject, attribute)
}
