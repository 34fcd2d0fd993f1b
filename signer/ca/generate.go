// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"countersign.dev/countersign/api/v1alpha1"
)

// caBackdate is the period by which notBefore of a CA certificate precedes its creation, for clients whose clock is slow.
const caBackdate = 5 * time.Minute

// Generate issues the certificate of a managed CA for a key: self-signed if root is nil, or else issued by root.
// It returns a Problem if the spec allows no valid certificate. ctx cancels the signature of a remote key. On an error
// of the key, the caller retries.
func Generate(ctx context.Context, now time.Time, spec *v1alpha1.ManagedCA, root *CA, key crypto.Signer) (*CA, *Problem, error) {
	template, problem, err := newTemplate(now, spec, key.Public())
	if problem != nil || err != nil {
		return nil, problem, err
	}
	var issuers []*x509.Certificate
	parent, parentKey := template, withContext{ctx, key}
	if root != nil {
		parent, parentKey = root.certificate, withContext{ctx, root.key}
		issuers = root.all()
		if root.NotAfter().Before(template.NotAfter) {
			template.NotAfter = root.NotAfter()
		}
		if root.NotBefore().After(template.NotBefore) {
			template.NotBefore = root.NotBefore()
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if _, ok := errors.AsType[*remoteError](err); ok {
		return nil, nil, fmt.Errorf("signing a CA certificate: %w", err)
	}
	if err != nil {
		return nil, Problemf(v1alpha1.ReasonInvalidCA, "issuing a CA certificate by spec.ca.managed: %v", err), nil
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("parsing the new CA certificate: %w", err)
	}
	certificates := append([]*x509.Certificate{certificate}, issuers...)
	if problem := checkChain(certificates); problem != nil { // such as the path length of the root
		return nil, problem, nil
	}
	c, problem := New(certificates, key)
	return c, problem, nil
}

// CheckSpec returns the Problem for which Generate would reject the name constraints of a spec.
func CheckSpec(spec *v1alpha1.ManagedCA) *Problem {
	return constrain(&x509.Certificate{}, spec.NameConstraints)
}

// EncodeCertificates returns the certificates of a CA in PEM, its own first.
func (c *CA) EncodeCertificates() []byte {
	var encoded []byte
	for _, certificate := range c.all() {
		encoded = append(encoded, pemOf(certificate)...)
	}
	return encoded
}

// newTemplate returns the template of a CA that issues end-entity certificates only (RFC 5280, sections
// 4.2.1.2, 4.2.1.3, 4.2.1.9 and 4.2.1.10).
func newTemplate(now time.Time, spec *v1alpha1.ManagedCA, public crypto.PublicKey) (*x509.Certificate, *Problem, error) {
	info, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding the public key of a CA: %w", err)
	}
	id, err := SubjectKeyID(info)
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          NewSerial(),
		Subject:               pkix.Name{CommonName: spec.CommonName},
		NotBefore:             now.Add(-caBackdate).UTC().Truncate(time.Second),
		NotAfter:              now.Add(durationOf(spec)).UTC().Truncate(time.Second),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SubjectKeyId:          id,
	}
	return t, constrain(t, spec.NameConstraints), nil
}

// constrain sets the name constraints of a template.
func constrain(t *x509.Certificate, limits *v1alpha1.NameConstraints) *Problem {
	if limits == nil {
		return nil
	}
	if problem := checkDomains(limits); problem != nil {
		return problem
	}
	t.PermittedDNSDomains, t.ExcludedDNSDomains = limits.PermittedDNSDomains, limits.ExcludedDNSDomains
	t.PermittedURIDomains, t.ExcludedURIDomains = limits.PermittedURIDomains, limits.ExcludedURIDomains
	t.PermittedDNSDomainsCritical = true // all constraints, in spite of the name
	var problem *Problem
	if t.PermittedIPRanges, problem = parseRanges("permittedIPRanges", limits.PermittedIPRanges); problem != nil {
		return problem
	}
	t.ExcludedIPRanges, problem = parseRanges("excludedIPRanges", limits.ExcludedIPRanges)
	return problem
}

// checkDomains rejects domains that relying parties would ignore, or read as another constraint.
func checkDomains(limits *v1alpha1.NameConstraints) *Problem {
	for _, list := range []struct {
		field   string
		domains []string
	}{
		{"permittedDNSDomains", limits.PermittedDNSDomains},
		{"excludedDNSDomains", limits.ExcludedDNSDomains},
		{"permittedURIDomains", limits.PermittedURIDomains},
		{"excludedURIDomains", limits.ExcludedURIDomains},
	} {
		for _, domain := range list.domains {
			name := domain
			if strings.HasSuffix(list.field, "URIDomains") {
				name = strings.TrimPrefix(domain, ".")
			}
			if wrong := validation.IsDNS1123Subdomain(name); len(wrong) > 0 || net.ParseIP(name) != nil {
				return invalid("spec.ca.managed.nameConstraints.%s contains %q: use a lower-case DNS name without wildcard, such as svc.cluster.local; it includes all names below it", list.field, domain)
			}
		}
	}
	return nil
}

func parseRanges(field string, texts []string) ([]*net.IPNet, *Problem) {
	var parsed []*net.IPNet
	for _, text := range texts {
		_, network, err := net.ParseCIDR(text)
		if err != nil {
			return nil, invalid("spec.ca.managed.nameConstraints.%s contains %q: use a range such as 10.0.0.0/8 or fd00::/8", field, text)
		}
		parsed = append(parsed, network)
	}
	return parsed, nil
}

// Changed returns the fields of the spec that have changed since the newest CA was created, or "". It returns a
// Problem if no CA can be created by the spec.
func (m Managed) Changed(now time.Time, spec *v1alpha1.ManagedCA) (string, *Problem) {
	c := m.Newest.certificate
	want, problem, err := newTemplate(now, spec, c.PublicKey)
	if problem != nil || err != nil {
		return "", problem // a key that was encoded before can be encoded
	}
	var changed []string
	if want.Subject.CommonName != c.Subject.CommonName {
		changed = append(changed, "commonName")
	}
	if algorithm := spec.KeyAlgorithm; algorithm != algorithmOf(c.PublicKey) && (algorithm != "" || algorithmOf(c.PublicKey) != v1alpha1.KeyECDSAP256) {
		changed = append(changed, "keyAlgorithm")
	}
	limits := func(c *x509.Certificate) string {
		return fmt.Sprint(c.PermittedDNSDomains, c.ExcludedDNSDomains, c.PermittedURIDomains, c.ExcludedURIDomains, c.PermittedIPRanges, c.ExcludedIPRanges)
	}
	if limits(want) != limits(c) {
		changed = append(changed, "nameConstraints")
	}
	return strings.Join(changed, ", "), nil
}

func algorithmOf(public crypto.PublicKey) v1alpha1.KeyAlgorithm {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		return v1alpha1.KeyAlgorithm(fmt.Sprintf("ECDSA-P%d", key.Params().BitSize))
	case *rsa.PublicKey:
		return v1alpha1.KeyAlgorithm(fmt.Sprintf("RSA-%d", key.N.BitLen()))
	default:
		return v1alpha1.KeyEd25519
	}
}
