// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"countersign.dev/countersign/api/v1alpha1"
)

// Keys of the Secret of a managed CA, beside tls.crt and tls.key, which are those of the newest CA.
const (
	previousCert = "previous.crt"
	previousKey  = "previous.key"
)

const (
	defaultDuration = 365 * 24 * time.Hour
	// caBackdate is how long before now a CA certificate's validity begins, for clocks that are late.
	caBackdate = 5 * time.Minute
	// minGain is the part of its lifetime by which a next CA must outlive the present one to be
	// worth making: an intermediate ends with its root.
	minGain = 10
)

// Managed is a CA that Countersign makes, as its Secret has it.
type Managed struct {
	// Newest is the one made last.
	Newest *CA
	// Previous is the one before it, kept until the newest may sign; nil otherwise.
	Previous *CA
}

// LoadManaged reads the Secret of a managed CA. It is the zero Managed if none was made yet. The
// error is a [*Problem].
//
// An expired CA is no problem: a next one can be made.
func LoadManaged(data map[string][]byte) (Managed, error) {
	var m Managed
	if len(data[corev1.TLSCertKey]) == 0 && len(data[corev1.TLSPrivateKeyKey]) == 0 {
		return m, nil
	}
	newest, err := load(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return m, err
	}
	m.Newest = newest
	if len(data[previousCert]) == 0 {
		return m, nil
	}
	previous, err := load(data[previousCert], data[previousKey])
	if err != nil {
		return Managed{}, problemf(v1alpha1.ReasonInvalidCA, "of %s and %s: %v", previousCert, previousKey, err)
	}
	m.Previous = previous
	return m, nil
}

// Step is what is to be done with a managed CA.
type Step string

// The steps.
const (
	// Keep it as it is.
	Keep Step = "Keep"
	// Make a next CA, which becomes the newest.
	Make Step = "Make"
	// Settle: drop the previous CA, which is not needed any more.
	Settle Step = "Settle"
)

// Situation is what the next step of a managed CA depends on, beside its Secret.
type Situation struct {
	Spec *v1alpha1.ManagedCA
	// Root is what an intermediate is to be issued by; nil if it is a root, or cannot be had now.
	Root *CA
	// Current is the fingerprint of the trust anchor that signs, as the Signer's record has it.
	Current string
	// Distrusted are fingerprints of CA certificates.
	Distrusted []string
	// Asked for a next CA, by hand.
	Asked bool
	// Unfit is true if the newest CA cannot issue what the Signer allows.
	Unfit bool
}

// Next says what is to be done now, and why. The error is a [*Problem]: it is time for a next CA, and yet none would be
// any better.
func (m Managed) Next(now time.Time, in Situation) (Step, string, error) {
	if in.Root != nil && in.Root.Distrusted(in.Distrusted) {
		return Keep, "", problemf(v1alpha1.ReasonCADistrusted, "the root %q is listed in spec.trust.distrusted: put another root in the Secret %s",
			in.Root.certificate.Subject, in.Spec.RootRef.Name)
	}
	c := m.Newest
	switch {
	case c == nil && in.Current != "":
		return Make, "the one before is lost with its Secret", nil
	case c == nil:
		return Make, "there was none", nil
	case c.Distrusted(in.Distrusted):
		return Make, fmt.Sprintf("%q is listed in spec.trust.distrusted", c.certificate.Subject), nil
	case in.Current != "" && fingerprint(c.Anchor()) != in.Current && (m.Previous == nil || m.Previous.ValidAt(now, 0) == nil):
		return m.waiting(now, in)
	case m.Previous != nil:
		return Settle, "", nil
	case in.Asked:
		return Make, "it was asked for with the annotation " + v1alpha1.RotateAnnotation, nil
	case in.anotherRoot(c):
		return Make, fmt.Sprintf("the root is another one now, %q", in.Root.certificate.Subject), nil
	case now.Before(m.RenewAt(in.Spec)):
		return Keep, "", nil
	}
	duration := durationOf(in.Spec)
	if in.Root != nil && in.Root.NotAfter().Before(c.NotAfter().Add(duration/minGain)) {
		return Keep, "", problemf(v1alpha1.ReasonRotationFailed, "%q expires at %s, and its root not much later: put a renewed root in the Secret %s",
			c.certificate.Subject, stamp(c.NotAfter()), in.Spec.RootRef.Name)
	}
	return Make, fmt.Sprintf("%q expires at %s", c.certificate.Subject, stamp(c.NotAfter())), nil
}

// anotherRoot reports whether a CA is below another root than the one that it should be below now.
func (in Situation) anotherRoot(c *CA) bool {
	return in.Root != nil && !slices.ContainsFunc(c.issuers, in.Root.certificate.Equal)
}

// waiting is Next while the newest CA has its time yet to come.
func (m Managed) waiting(now time.Time, in Situation) (Step, string, error) {
	c := m.Newest
	switch {
	case !now.Before(c.NotAfter()):
		return Make, fmt.Sprintf("%q has expired before it signed", c.certificate.Subject), nil
	case in.anotherRoot(c):
		return Make, fmt.Sprintf("the root is another one now, %q", in.Root.certificate.Subject), nil
	case in.Asked && in.Unfit:
		return Make, "it was asked for, and the newest cannot issue", nil
	default:
		return Keep, "", nil
	}
}

// RenewAt is when the newest CA is to be replaced.
func (m Managed) RenewAt(spec *v1alpha1.ManagedCA) time.Time {
	before := RenewBefore(spec)
	if spec.RenewBefore == nil {
		before = min(before, m.Newest.NotAfter().Sub(m.Newest.NotBefore())/3) // its root may have cut it short
	}
	at := m.Newest.NotAfter().Add(-before)
	// Not before a tenth of its life has passed, however early the spec would have it.
	if earliest := m.Newest.NotAfter().Add(-durationOf(spec) / 10 * 9); at.Before(earliest) {
		return earliest
	}
	return at
}

// RenewBefore is how long before its end a managed CA is replaced, as its spec has it.
func RenewBefore(spec *v1alpha1.ManagedCA) time.Duration {
	if spec.RenewBefore != nil {
		return spec.RenewBefore.Duration
	}
	return durationOf(spec) / 3
}

// Replace returns the data of the Secret once a next CA is made; nil values are of keys to be removed.
func (m Managed) Replace(now time.Time, in Situation) (map[string][]byte, error) {
	next, err := generate(now, in.Spec, in.Root)
	if err != nil {
		return nil, err
	}
	keep := func(c *CA) bool { return c != nil && !c.Distrusted(in.Distrusted) && c.ValidAt(now, 0) == nil }
	data := Settled()
	previous := m.Newest
	if !keep(previous) || m.Previous != nil { // which signs until now
		previous = m.Previous
	}
	if keep(previous) {
		if data[previousCert], data[previousKey], err = previous.encode(); err != nil {
			return nil, err
		}
	}
	if data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey], err = next.encode(); err != nil {
		return nil, err
	}
	return data, nil
}

// Settled is the change of the Secret's data by the step Settle.
func Settled() map[string][]byte {
	return map[string][]byte{previousCert: nil, previousKey: nil}
}

func (c *CA) encode() (certPEM, keyPEM []byte, err error) {
	for _, certificate := range c.all() {
		certPEM = append(certPEM, pemOf(certificate)...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding the key of a CA: %w", err)
	}
	return certPEM, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// generate makes a CA: a root, or an intermediate of root. The error is a [*Problem] if it is the spec's.
func generate(now time.Time, spec *v1alpha1.ManagedCA, root *CA) (*CA, error) {
	key, err := generateKey(spec.KeyAlgorithm)
	if err != nil {
		return nil, err
	}
	template, err := template(now, spec, key.Public())
	if err != nil {
		return nil, err
	}
	c := &CA{key: key}
	parent, parentKey := template, key
	if root != nil {
		parent, parentKey = root.certificate, root.key
		c.issuers = root.all()
		if root.NotAfter().Before(template.NotAfter) {
			template.NotAfter = root.NotAfter()
		}
		if root.NotBefore().After(template.NotBefore) {
			template.NotBefore = root.NotBefore()
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, problemf(v1alpha1.ReasonInvalidCA, "a CA certificate cannot be made by spec.ca.managed: %v", err)
	}
	if c.certificate, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("reading back a CA certificate: %w", err)
	}
	if problem := checkCertificates(c.all()); problem != nil { // the path length of the root, above all
		return nil, problem
	}
	return c, nil
}

func generateKey(algorithm v1alpha1.KeyAlgorithm) (crypto.Signer, error) {
	switch algorithm {
	case v1alpha1.KeyECDSAP256, "":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case v1alpha1.KeyECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case v1alpha1.KeyEd25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case v1alpha1.KeyRSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case v1alpha1.KeyRSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case v1alpha1.KeyRSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	default:
		return nil, problemf(v1alpha1.ReasonInvalidCA, "spec.ca.managed.keyAlgorithm is %q: use one of %v", algorithm, []v1alpha1.KeyAlgorithm{
			v1alpha1.KeyECDSAP256, v1alpha1.KeyECDSAP384, v1alpha1.KeyEd25519, v1alpha1.KeyRSA2048, v1alpha1.KeyRSA3072, v1alpha1.KeyRSA4096,
		})
	}
}

// template describes a CA below which there is no other (RFC 5280, sections 4.2.1.2, 4.2.1.3, 4.2.1.9 and 4.2.1.10).
func template(now time.Time, spec *v1alpha1.ManagedCA, public crypto.PublicKey) (*x509.Certificate, error) {
	info, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encoding the public key of a CA: %w", err)
	}
	id, err := SubjectKeyID(info)
	if err != nil {
		return nil, err
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
	limits := spec.NameConstraints
	if limits == nil {
		return t, nil
	}
	if err := checkDomains(limits); err != nil {
		return nil, err
	}
	t.PermittedDNSDomains, t.ExcludedDNSDomains = limits.PermittedDNSDomains, limits.ExcludedDNSDomains
	t.PermittedURIDomains, t.ExcludedURIDomains = limits.PermittedURIDomains, limits.ExcludedURIDomains
	t.PermittedDNSDomainsCritical = true // all of them, in spite of the name
	permitted, err := ranges("permittedIPRanges", limits.PermittedIPRanges)
	excluded, err2 := ranges("excludedIPRanges", limits.ExcludedIPRanges)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	t.PermittedIPRanges, t.ExcludedIPRanges = permitted, excluded
	return t, nil
}

// checkDomains refuses what relying parties would take for another constraint than was meant, or for none.
func checkDomains(limits *v1alpha1.NameConstraints) error {
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
				return problemf(v1alpha1.ReasonInvalidCA, "spec.ca.managed.nameConstraints.%s has %q: write a lower-case DNS name, such as svc.cluster.local; a DNS name covers all below it, without a wildcard", list.field, domain)
			}
		}
	}
	return nil
}

// Changed says which fields of the spec the newest CA is not made by, or "". The error is a [*Problem]: no CA can be made by the spec.
func (m Managed) Changed(now time.Time, spec *v1alpha1.ManagedCA) (string, error) {
	c := m.Newest.certificate
	want, err := template(now, spec, c.PublicKey)
	if err != nil {
		return "", err
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

func ranges(field string, texts []string) ([]*net.IPNet, error) {
	var parsed []*net.IPNet
	for _, text := range texts {
		_, network, err := net.ParseCIDR(text)
		if err != nil {
			return nil, problemf(v1alpha1.ReasonInvalidCA, "spec.ca.managed.nameConstraints.%s has %q: write it as 10.0.0.0/8 or fd00::/8", field, text)
		}
		parsed = append(parsed, network)
	}
	return parsed, nil
}

func durationOf(spec *v1alpha1.ManagedCA) time.Duration {
	if spec.Duration != nil {
		return spec.Duration.Duration
	}
	return defaultDuration
}
