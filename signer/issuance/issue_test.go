// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
)

func newProfile(t testing.TB, change func(*v1alpha1.CertificateProfile)) Profile {
	t.Helper()
	spec := v1alpha1.SignerSpec{SignerName: signerName}
	if change != nil {
		change(&spec.Certificate)
	}
	profile, err := NewProfile(spec)
	if err != nil {
		t.Fatal(err)
	}
	return profile
}

// issued is what the tests look at in a certificate.
type issued struct {
	Subject             string
	DNS, Emails         []string
	IPs, URIs           []string
	KeyUsage            x509.KeyUsage
	ExtKeyUsage         []x509.ExtKeyUsage
	NotBefore, NotAfter time.Time
	SANCritical         bool
	CRLs, OCSP, Issuing []string
}

func describe(c *x509.Certificate) issued {
	i := issued{
		Subject: c.Subject.String(), DNS: c.DNSNames, Emails: c.EmailAddresses,
		KeyUsage: c.KeyUsage, ExtKeyUsage: c.ExtKeyUsage, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		CRLs: c.CRLDistributionPoints, OCSP: c.OCSPServer, Issuing: c.IssuingCertificateURL,
	}
	for _, ip := range c.IPAddresses {
		i.IPs = append(i.IPs, ip.String())
	}
	for _, u := range c.URIs {
		i.URIs = append(i.URIs, u.String())
	}
	for _, e := range c.Extensions {
		if e.Id.String() == "2.5.29.17" {
			i.SANCritical = e.Critical
		}
	}
	return i
}

func TestIssue(t *testing.T) {
	keys := testKeys()
	second := now.Truncate(time.Second)
	honest := issued{
		Subject: "CN=web.example", DNS: []string{"web.example"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore: second.Add(-5 * time.Minute), NotAfter: second.Add(24 * time.Hour),
	}
	with := func(change func(*issued)) issued {
		i := honest
		change(&i)
		return i
	}
	day := 24 * time.Hour
	tests := map[string]struct {
		key     crypto.Signer // of the request; nil: ECDSA
		ca      crypto.Signer // nil: ECDSA
		request func(*x509.CertificateRequest)
		object  func(*certificatesv1.CertificateSigningRequest)
		profile func(*v1alpha1.CertificateProfile)
		caBent  func(*x509.Certificate)
		want    issued
	}{
		"ECDSA: key encipherment is dropped":   {want: honest},
		"Ed25519: key encipherment is dropped": {key: keys.Ed, want: honest},
		"RSA: key encipherment is issued": {key: keys.RSA, want: with(func(i *issued) {
			i.KeyUsage |= x509.KeyUsageKeyEncipherment
		})},
		"RSA CA":     {ca: keys.RSA, want: honest},
		"Ed25519 CA": {ca: keys.Ed, want: honest},
		"usages are a subset of the profile's": {
			key: keys.RSA, object: usages("server auth", "digital signature"), want: honest,
		},
		"client auth by profile": {
			object: usages("digital signature", "client auth"),
			profile: func(p *v1alpha1.CertificateProfile) {
				p.Usages = []certificatesv1.KeyUsage{"digital signature", "client auth"}
			},
			want: with(func(i *issued) { i.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
		},
		"usages in the PKCS#10 agree with spec.usages": {
			request: func(r *x509.CertificateRequest) {
				r.ExtraExtensions = []pkix.Extension{
					{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{3, 2, 5, 0xa0}},
					{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: []byte{0x30, 0x0a, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1}},
				}
			}, want: honest,
		},
		"every kind of name": {
			request: func(r *x509.CertificateRequest) {
				r.Subject.Organization, r.Subject.OrganizationalUnit = []string{"zeta", "alpha"}, []string{"unit"}
				r.DNSNames = []string{"b.example", "*.a.example", "_http._tcp.c.example"}
				r.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1), net.ParseIP("2001:db8::1")}
				r.EmailAddresses = []string{"web@example.com"}
				r.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.com", Path: "/ns/a/sa/b"}}
			},
			want: with(func(i *issued) {
				i.Subject = "CN=web.example,OU=unit,O=zeta+O=alpha"
				i.DNS, i.Emails = []string{"b.example", "*.a.example", "_http._tcp.c.example"}, []string{"web@example.com"}
				i.IPs, i.URIs = []string{"10.0.0.1", "2001:db8::1"}, []string{"spiffe://example.com/ns/a/sa/b"}
			}),
		},
		"empty subject: names are critical": {
			request: func(r *x509.CertificateRequest) { r.Subject = pkix.Name{} },
			want:    with(func(i *issued) { i.Subject, i.SANCritical = "", true }),
		},
		"expirationSeconds is honoured": {
			object: expiration(3600), want: with(func(i *issued) { i.NotAfter = second.Add(time.Hour) }),
		},
		"expirationSeconds beyond the profile": {
			object: expiration(7 * 86400), want: honest,
		},
		"profile's lifetime and backdate": {
			profile: func(p *v1alpha1.CertificateProfile) {
				p.MaxDuration, p.Backdate = &metav1.Duration{Duration: 2 * day}, &metav1.Duration{}
			},
			want: with(func(i *issued) { i.NotBefore, i.NotAfter = second, second.Add(2*day) }),
		},
		"what the Signer keeps of the subject": {
			request: func(r *x509.CertificateRequest) {
				r.Subject.Organization, r.Subject.OrganizationalUnit = []string{"zeta", "alpha"}, []string{"unit"}
			},
			profile: func(p *v1alpha1.CertificateProfile) {
				p.Subject = []v1alpha1.SubjectAttribute{"organizationalUnit", "organization"}
			},
			want: with(func(i *issued) { i.Subject = "OU=unit,O=zeta+O=alpha" }),
		},
		"nothing of the subject is kept": {
			profile: func(p *v1alpha1.CertificateProfile) { p.Subject = []v1alpha1.SubjectAttribute{} },
			want:    with(func(i *issued) { i.Subject, i.SANCritical = "", true }),
		},
		"attributes that no Signer keeps": {
			request: func(r *x509.CertificateRequest) {
				r.Subject.Country, r.Subject.Province, r.Subject.SerialNumber = []string{"AU"}, []string{"Some-State"}, "1"
			}, want: honest,
		},
		"URLs": {
			profile: func(p *v1alpha1.CertificateProfile) {
				p.CRLDistributionPoints = []string{"http://crl.example/1", "https://crl.example/2"}
				p.OCSPServers, p.IssuingCertificateURLs = []string{"http://ocsp.example/b", "http://ocsp.example/a"}, []string{"http://ca.example/ca.crt"}
			},
			want: with(func(i *issued) {
				i.CRLs = []string{"http://crl.example/1", "https://crl.example/2"}
				i.OCSP, i.Issuing = []string{"http://ocsp.example/b", "http://ocsp.example/a"}, []string{"http://ca.example/ca.crt"}
			}),
		},
		"no longer than some seconds, by a CA of a minute": {
			object: expiration(600),
			profile: func(p *v1alpha1.CertificateProfile) {
				p.MaxDuration, p.Backdate = &metav1.Duration{Duration: 10 * time.Second}, &metav1.Duration{}
			},
			caBent: func(c *x509.Certificate) { c.NotAfter = second.Add(time.Minute) },
			want:   with(func(i *issued) { i.NotBefore, i.NotAfter = second, second.Add(10*time.Second) }),
		},
		"just the shortest lifetime": {
			object:  expiration(3600),
			profile: func(p *v1alpha1.CertificateProfile) { p.MinDuration = &metav1.Duration{Duration: time.Hour} },
			want:    with(func(i *issued) { i.NotAfter = second.Add(time.Hour) }),
		},
		"clamped to the CA's notAfter": {
			caBent: func(c *x509.Certificate) { c.NotAfter = second.Add(time.Hour) },
			want:   with(func(i *issued) { i.NotAfter = second.Add(time.Hour) }),
		},
		"clamped to the CA's notBefore": {
			caBent: func(c *x509.Certificate) { c.NotBefore = second.Add(-time.Minute) },
			want:   with(func(i *issued) { i.NotBefore = second.Add(-time.Minute) }),
		},
		"within the CA's name constraints": {
			caBent: func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example"} }, want: honest,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			key, caKey := test.key, test.ca
			if key == nil {
				key = keys.EC
			}
			if caKey == nil {
				caKey = keys.EC
			}
			authority := newCA(t, caKey, test.caBent)
			csr := newCSR(t, key, test.request, test.object)
			before := csr.DeepCopy()
			issuance, err := Prepare(now, csr, newProfile(t, test.profile), authority)
			if err != nil {
				t.Fatal(err)
			}
			record := issuance.Record()
			chain, certificate, err := issuance.Issue(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, describe(certificate)); diff != "" {
				t.Errorf("certificate (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, csr); diff != "" {
				t.Errorf("Prepare changed the request:\n%s", diff)
			}
			block, rest := pem.Decode(chain)
			if block == nil || !slices.Equal(block.Bytes, certificate.Raw) || len(rest) > 0 || len(block.Headers) > 0 {
				t.Errorf("PEM is not the certificate alone:\n%s", chain)
			}
			public, ok := certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
			if !ok || !public.Equal(key.Public()) {
				t.Error("public key is not that of the request")
			}
			if certificate.IsCA || !certificate.BasicConstraintsValid {
				t.Error("certificate is not marked as no CA")
			}
			if err := certificate.CheckSignatureFrom(authority.Certificate()); err != nil {
				t.Errorf("signature: %v", err)
			}
			if got := new(big.Int); record.Serial == "" || len(record.Serial) != 32 {
				t.Errorf("recorded serial %q", record.Serial)
			} else if got, _ = got.SetString(record.Serial, 16); got.Cmp(certificate.SerialNumber) != 0 {
				t.Errorf("recorded serial %q, issued %x", record.Serial, certificate.SerialNumber)
			}
			if !record.NotAfter.Equal(certificate.NotAfter) || record.CAFingerprint != authority.Fingerprint() {
				t.Errorf("record %+v does not tell of the certificate", record)
			}
		})
	}
}

func TestIssue_once(t *testing.T) {
	keys := testKeys()
	issuance, err := Prepare(now, newCSR(t, keys.EC, nil, nil), newProfile(t, nil), newCA(t, keys.EC, nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := issuance.Issue(t.Context()); err != nil {
		t.Fatal(err)
	}
	chain, certificate, err := issuance.Issue(t.Context())
	if err == nil || err.Error() != "issuing: used before" || chain != nil || certificate != nil {
		t.Errorf("second use: got %q, %v, %v", chain, certificate, err)
	}
	if _, _, err := new(Issuance).Issue(t.Context()); err == nil || err.Error() != "issuing: not prepared" {
		t.Errorf("an Issuance that was not prepared: got %v", err)
	}
}

// TestIssue_alteredAfterLint has what was linted changed behind its back, as a fault in memory would.
func TestIssue_alteredAfterLint(t *testing.T) {
	keys := testKeys()
	issuance, err := Prepare(now, newCSR(t, keys.EC, nil, nil), newProfile(t, nil), newCA(t, keys.EC, nil))
	if err != nil {
		t.Fatal(err)
	}
	issuance.template.DNSNames = []string{"admin.example"}
	chain, certificate, err := issuance.Issue(t.Context())
	want := `issuing: signing with CA "CN=Test CA": what is to be signed is not what was linted`
	if err == nil || err.Error() != want || chain != nil || certificate != nil {
		t.Errorf("got %q, %v, %v, want error %q", chain, certificate, err, want)
	}
}

// lyingKey signs something else than it is told to, as a key store that is broken may.
type lyingKey struct{ crypto.Signer }

func (k lyingKey) Sign(random io.Reader, message []byte, options crypto.SignerOpts) ([]byte, error) {
	other := slices.Clone(message)
	other[0] ^= 1
	return k.Signer.Sign(random, other, options)
}

// TestCreateCertificate_verifies is of crypto/x509: Issue does not verify once more.
func TestCreateCertificate_verifies(t *testing.T) {
	keys := testKeys()
	for _, key := range []crypto.Signer{keys.EC, keys.RSA, keys.Ed} {
		authority := newCA(t, key, nil)
		issuance, err := Prepare(now, newCSR(t, keys.EC, nil, nil), newProfile(t, nil), authority)
		if err != nil {
			t.Fatal(err)
		}
		if der, err := x509.CreateCertificate(rand.Reader, issuance.template, authority.Certificate(), keys.EC.Public(), lyingKey{key}); err == nil || der != nil {
			t.Errorf("%T: a wrong signature is let out", key)
		}
	}
}

func TestPrepare_serialNumbers(t *testing.T) {
	keys := testKeys()
	csr, profile, authority := newCSR(t, keys.EC, nil, nil), newProfile(t, nil), newCA(t, keys.EC, nil)
	seen := map[string]bool{}
	longest := 0
	for range 64 {
		issuance, err := Prepare(now, csr, profile, authority)
		if err != nil {
			t.Fatal(err)
		}
		serial := issuance.template.SerialNumber
		if serial.Sign() <= 0 || serial.BitLen() > 128 || seen[serial.String()] {
			t.Fatalf("serial number %x is not positive, too long, or repeated", serial)
		}
		seen[serial.String()] = true
		longest = max(longest, serial.BitLen())
	}
	if longest < 127 { // 2^-64 if all 128 bits are random
		t.Errorf("the longest of 64 serial numbers has %d bits", longest)
	}
}

func TestPrepare_notDue(t *testing.T) {
	keys := testKeys()
	add := func(kinds ...certificatesv1.RequestConditionType) func(*certificatesv1.CertificateSigningRequest) {
		return func(c *certificatesv1.CertificateSigningRequest) {
			c.Status.Conditions = nil
			for _, kind := range kinds {
				c.Status.Conditions = append(c.Status.Conditions, conditionOf(kind))
			}
		}
	}
	tests := map[string]struct {
		object func(*certificatesv1.CertificateSigningRequest)
		want   NotDue
	}{
		"another signerName": {func(c *certificatesv1.CertificateSigningRequest) { c.Spec.SignerName = "example.com/other" }, NotOurs},
		"signerName in another case": {func(c *certificatesv1.CertificateSigningRequest) {
			c.Spec.SignerName = "example.com/Serving"
		}, NotOurs},
		"signerName as a prefix": {func(c *certificatesv1.CertificateSigningRequest) { c.Spec.SignerName = signerName + "s" }, NotOurs},
		"no condition":           {add(), NotApproved},
		"unknown condition":      {add("Example"), NotApproved},
		"approved but False": {func(c *certificatesv1.CertificateSigningRequest) {
			c.Status.Conditions[0].Status = corev1.ConditionFalse
		}, NotApproved},
		"denied":              {add("Denied"), Denied},
		"approved and denied": {add("Approved", "Denied"), Denied},
		"denied and approved": {add("Denied", "Approved"), Denied},
		"approved and failed": {add("Approved", "Failed"), Failed},
		"issued":              {func(c *certificatesv1.CertificateSigningRequest) { c.Status.Certificate = []byte("x") }, AlreadyIssued},
	}
	profile, authority := newProfile(t, nil), newCA(t, keys.EC, nil)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			csr := newCSR(t, keys.EC, nil, func(c *certificatesv1.CertificateSigningRequest) {
				test.object(c)
				c.Spec.Request = []byte("a request that is not due is not even read")
			})
			issuance, err := Prepare(now, csr, profile, authority)
			if !errors.Is(err, test.want) || issuance != nil {
				t.Errorf("got %v, %v, want %q", issuance, err, test.want)
			}
		})
	}
	t.Run("zero Profile", func(t *testing.T) {
		csr := newCSR(t, keys.EC, nil, func(c *certificatesv1.CertificateSigningRequest) { c.Spec.SignerName = "" })
		if _, err := Prepare(now, csr, Profile{}, authority); !errors.Is(err, NotOurs) {
			t.Errorf("got %v, want %q", err, NotOurs)
		}
	})
}

func TestPrepare_refusals(t *testing.T) {
	keys := testKeys()
	extension := func(id asn1.ObjectIdentifier, value ...byte) func(*x509.CertificateRequest) {
		return func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{{Id: id, Value: value}}
		}
	}
	tests := map[string]struct {
		key     crypto.Signer
		request func(*x509.CertificateRequest)
		object  func(*certificatesv1.CertificateSigningRequest)
		profile func(*v1alpha1.CertificateProfile)
		reason  string
		message string
	}{
		"not a request": {
			object: func(c *certificatesv1.CertificateSigningRequest) { c.Spec.Request = []byte("hello") },
			reason: ReasonRequestRefused, message: "MalformedRequest: the request does not begin with -----BEGIN CERTIFICATE REQUEST-----: put nothing before the PEM block",
		},
		"CA:TRUE": {
			request: extension(asn1.ObjectIdentifier{2, 5, 29, 19}, 0x30, 3, 1, 1, 0xff),
			reason:  ReasonRequestRefused, message: "CertificateAuthority: basic constraints ask for a CA certificate: leave CA:TRUE out",
		},
		"usage beyond the profile": {
			object: usages("digital signature", "server auth", "client auth"),
			reason: ReasonUsageNotAllowed, message: `usage "client auth" is not among those of the Signer: "digital signature", "key encipherment", "server auth"`,
		},
		"usage for CAs": {
			object: usages("cert sign", "server auth"),
			reason: ReasonUsageNotAllowed, message: `usage "cert sign" is not among those of the Signer: "digital signature", "key encipherment", "server auth"`,
		},
		"any usage": {
			object: usages("digital signature", "any"),
			reason: ReasonUsageNotAllowed, message: `usage "any" is not among those of the Signer: "digital signature", "key encipherment", "server auth"`,
		},
		"PKCS#10 asks for more than spec.usages": {
			request: extension(asn1.ObjectIdentifier{2, 5, 29, 37}, 0x30, 0x0a, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2),
			reason:  ReasonUsageNotAllowed, message: `the PKCS#10 asks for usage "client auth", which is not in spec.usages: let the two agree`,
		},
		"no extended key usage, which would be any": {
			object: usages("digital signature", "key encipherment"),
			reason: ReasonUsageNotAllowed, message: `the usages "digital signature", "key encipherment" leave the certificate without an extended key usage, which would allow every one: ask for one such as "server auth" or "client auth"`,
		},
		"no key usage, which would be any": {
			object: usages("server auth"),
			reason: ReasonUsageNotAllowed, message: `for a key of type ECDSA the usages "server auth" leave the certificate without a key usage, which would allow every one: ask for "digital signature"`,
		},
		"no key usage is left for the key": {
			key: keys.Ed, object: usages("key encipherment", "server auth"),
			reason: ReasonUsageNotAllowed, message: `for a key of type Ed25519 the usages "key encipherment", "server auth" leave the certificate without a key usage, which would allow every one: ask for "digital signature"`,
		},
		"no name at all": {
			request: func(r *x509.CertificateRequest) { r.Subject, r.DNSNames = pkix.Name{}, nil },
			reason:  ReasonSubjectNotAllowed, message: "the request has neither a common name nor a subject alternative name: a certificate must name somebody",
		},
		"no name but an organization": {
			request: func(r *x509.CertificateRequest) {
				r.Subject, r.DNSNames = pkix.Name{Organization: []string{"system:masters"}}, nil
			},
			reason: ReasonSubjectNotAllowed, message: "the request has neither a common name nor a subject alternative name: a certificate must name somebody",
		},
		"no name that is kept": {
			request: func(r *x509.CertificateRequest) { r.DNSNames = nil },
			profile: func(p *v1alpha1.CertificateProfile) { p.Subject = []v1alpha1.SubjectAttribute{"organization"} },
			reason:  ReasonSubjectNotAllowed, message: "the Signer leaves the common name out, and the request has no subject alternative name: a certificate must name somebody; ask for a subject alternative name",
		},
		"RSA key": {
			key: keys.RSA, profile: func(p *v1alpha1.CertificateProfile) { p.KeyAlgorithms = []string{"ECDSA", "Ed25519"} },
			reason: ReasonKeyNotAllowed, message: `the key is of type RSA, and the Signer issues only for keys of type "ECDSA", "Ed25519": make a request with such a key`,
		},
		"ECDSA key": {
			profile: func(p *v1alpha1.CertificateProfile) { p.KeyAlgorithms = []string{"RSA"} },
			reason:  ReasonKeyNotAllowed, message: `the key is of type ECDSA, and the Signer issues only for keys of type "RSA": make a request with such a key`,
		},
		"shorter than the shortest": {
			object: expiration(3599), profile: func(p *v1alpha1.CertificateProfile) { p.MinDuration = &metav1.Duration{Duration: time.Hour} },
			reason: ReasonLifetimeNotAllowed, message: "expirationSeconds is 3599, and the Signer issues for 1h0m0s at least: ask for 3600 or more",
		},
		"shorter than the shortest, which is no whole second": {
			object: expiration(600), profile: func(p *v1alpha1.CertificateProfile) {
				p.MinDuration = &metav1.Duration{Duration: 600*time.Second + time.Millisecond}
			},
			reason: ReasonLifetimeNotAllowed, message: "expirationSeconds is 600, and the Signer issues for 10m0.001s at least: ask for 601 or more",
		},
		"lifetime that is negative": { // the API server lets none through
			object: expiration(-1), reason: ReasonLifetimeNotAllowed, message: "expirationSeconds is -1, and the Signer issues for 10m0s at least: ask for 600 or more",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			key := test.key
			if key == nil {
				key = keys.EC
			}
			issuance, err := Prepare(now, newCSR(t, key, test.request, test.object), newProfile(t, test.profile), newCA(t, keys.EC, nil))
			if issuance != nil {
				t.Error("an Issuance is returned with a refusal")
			}
			var refusal *Refusal
			if !errors.As(err, &refusal) {
				t.Fatalf("got error %v, want a *Refusal", err)
			}
			if diff := cmp.Diff(&Refusal{test.reason, test.message}, refusal); diff != "" {
				t.Errorf("refusal (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPrepare_caFaults(t *testing.T) {
	keys := testKeys()
	tests := map[string]struct {
		ca     func(*x509.Certificate)
		at     time.Time // when the request is prepared; the CA is loaded at now
		reason string
	}{
		"expired since":          {func(c *x509.Certificate) { c.NotAfter = now.Add(time.Hour) }, now.Add(2 * time.Hour), v1alpha1.ReasonCAExpired},
		"expires in 9 minutes":   {func(c *x509.Certificate) { c.NotAfter = now.Add(time.Hour) }, now.Add(51 * time.Minute), v1alpha1.ReasonCAExpired},
		"clock was set back":     {nil, now.AddDate(-2, 0, 0), v1alpha1.ReasonCANotYetValid},
		"names not permitted":    {func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"other"} }, now, ReasonNameNotPermitted},
		"names excluded":         {func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"example"} }, now, ReasonNameNotPermitted},
		"extended usages differ": {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, now, v1alpha1.ReasonInvalidCA},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			authority := newCA(t, keys.EC, test.ca)
			issuance, err := Prepare(test.at, newCSR(t, keys.EC, nil, approved(test.at)), newProfile(t, nil), authority)
			var fault *ca.Problem
			if !errors.As(err, &fault) || fault.Reason != test.reason || issuance != nil {
				t.Errorf("got %v, %v, want a *ca.Problem with reason %s", issuance, err, test.reason)
			}
		})
	}
	t.Run("ends before the shortest that the profile issues", func(t *testing.T) {
		authority := newCA(t, keys.EC, func(c *x509.Certificate) { c.NotAfter = now.Truncate(time.Second).Add(time.Hour) })
		profile := newProfile(t, func(p *v1alpha1.CertificateProfile) { p.MinDuration = &metav1.Duration{Duration: 2 * time.Hour} })
		_, err := Prepare(now, newCSR(t, keys.EC, nil, nil), profile, authority)
		want := &ca.Problem{Reason: v1alpha1.ReasonCAExpired, Message: `the certificate "CN=Test CA" expires at 2026-03-01T13:00:00Z, too soon to issue the shortest of certificates (2h0m0s): put a renewed CA in its place`}
		if diff := cmp.Diff(error(want), err); diff != "" {
			t.Errorf("error (-want +got):\n%s", diff)
		}
	})
	t.Run("a request that cannot be issued is refused all the same", func(t *testing.T) {
		authority := newCA(t, keys.EC, nil)
		csr := newCSR(t, keys.EC, nil, usages("any"))
		approved(now.AddDate(20, 0, 0))(csr)
		_, err := Prepare(now.AddDate(20, 0, 0), csr, newProfile(t, nil), authority)
		if _, ok := errors.AsType[*Refusal](err); !ok {
			t.Errorf("got %v, want a *Refusal", err)
		}
	})
}

func TestIssue_chain(t *testing.T) {
	keys := testKeys()
	root := newCA(t, keys.RSA, nil)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "Intermediate"},
		NotBefore: now.AddDate(0, 0, -1), NotAfter: now.AddDate(1, 0, 0),
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	tbs, err := root.ToBeSigned(template, keys.EC.Public())
	if err != nil {
		t.Fatal(err)
	}
	der, err := root.Sign(t.Context(), template, keys.EC.Public(), tbs)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(keys.EC)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := ca.Load(slices.Concat(encode("CERTIFICATE", der), encode("CERTIFICATE", root.Anchor().Raw)), encode("PRIVATE KEY", keyDER), now)
	if err != nil {
		t.Fatal(err)
	}
	issuance, err := Prepare(now, newCSR(t, keys.EC, nil, nil), newProfile(t, nil), authority)
	if err != nil {
		t.Fatal(err)
	}
	chain, certificate, err := issuance.Issue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := string(encode("CERTIFICATE", certificate.Raw)) + string(encode("CERTIFICATE", der))
	if string(chain) != want {
		t.Errorf("chain is not the certificate and the intermediate, without the root:\n%s", chain)
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(authority.Anchor())
	if !intermediates.AppendCertsFromPEM([]byte(strings.TrimPrefix(string(chain), string(encode("CERTIFICATE", certificate.Raw))))) {
		t.Fatal("no certificates in trust or chain")
	}
	if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: now, DNSName: "web.example"}); err != nil {
		t.Errorf("a TLS client would reject it: %v", err)
	}
}
