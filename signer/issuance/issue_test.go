// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
)

// issued holds the fields of a certificate that the tests compare.
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
	expected := issued{
		Subject: "CN=web.example", DNS: []string{"web.example"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore: second.Add(-5 * time.Minute), NotAfter: second.Add(24 * time.Hour),
	}
	with := func(change func(*issued)) issued {
		i := expected
		change(&i)
		return i
	}
	day := 24 * time.Hour
	tests := []struct {
		name    string
		key     crypto.Signer // of the request; nil: ECDSA
		ca      crypto.Signer // nil: ECDSA
		request func(*x509.CertificateRequest)
		object  func(*certificatesv1.CertificateSigningRequest)
		profile func(*v1alpha1.CertificateProfile)
		alterCA func(*x509.Certificate)
		want    issued
	}{
		{name: "ECDSA: key encipherment is dropped", want: expected},
		{name: "Ed25519: key encipherment is dropped", key: keys.Ed, want: expected},
		{name: "RSA: key encipherment is issued", key: keys.RSA, want: with(func(i *issued) {
			i.KeyUsage |= x509.KeyUsageKeyEncipherment
		})},
		{name: "RSA CA", ca: keys.RSA, want: expected},
		{name: "Ed25519 CA", ca: keys.Ed, want: expected},
		{
			name: "subset of the usages of the Profile",
			key:  keys.RSA, object: usages("server auth", "digital signature"), want: expected,
		},
		{
			name:   "client auth",
			object: usages("digital signature", "client auth"),
			profile: func(p *v1alpha1.CertificateProfile) {
				p.Usages = []certificatesv1.KeyUsage{"digital signature", "client auth"}
			},
			want: with(func(i *issued) { i.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
		},
		{
			name: "PKCS#10 request with the same usages",
			request: func(r *x509.CertificateRequest) {
				r.ExtraExtensions = []pkix.Extension{
					{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{3, 2, 5, 0xa0}},
					{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: []byte{0x30, 0x0a, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1}},
				}
			}, want: expected,
		},
		{
			name: "all types of names",
			request: func(r *x509.CertificateRequest) {
				r.Subject.Organization, r.Subject.OrganizationalUnit = []string{"zeta", "alpha"}, []string{"unit"}
				r.DNSNames = []string{"b.example", "*.a.example", "c.example"}
				r.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1), net.ParseIP("2001:db8::1")}
				r.EmailAddresses = []string{"web@example.com"}
				r.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.com", Path: "/ns/a/sa/b"}}
			},
			want: with(func(i *issued) {
				i.Subject = "CN=web.example,OU=unit,O=zeta+O=alpha"
				i.DNS, i.Emails = []string{"b.example", "*.a.example", "c.example"}, []string{"web@example.com"}
				i.IPs, i.URIs = []string{"10.0.0.1", "2001:db8::1"}, []string{"spiffe://example.com/ns/a/sa/b"}
			}),
		},
		{
			name:    "empty subject: names are critical",
			request: func(r *x509.CertificateRequest) { r.Subject = pkix.Name{} },
			want:    with(func(i *issued) { i.Subject, i.SANCritical = "", true }),
		},
		{
			name:   "expirationSeconds within the limits",
			object: expiration(3600), want: with(func(i *issued) { i.NotAfter = second.Add(time.Hour) }),
		},
		{
			name:   "expirationSeconds above the limit",
			object: expiration(7 * 86400), want: expected,
		},
		{
			name: "lifetime and backdate of the Profile",
			profile: func(p *v1alpha1.CertificateProfile) {
				p.MaxDuration, p.Backdate = &metav1.Duration{Duration: 2 * day}, &metav1.Duration{}
			},
			want: with(func(i *issued) { i.NotBefore, i.NotAfter = second, second.Add(2*day) }),
		},
		{
			name: "subject attributes of the Profile",
			request: func(r *x509.CertificateRequest) {
				r.Subject.Organization, r.Subject.OrganizationalUnit = []string{"zeta", "alpha"}, []string{"unit"}
			},
			profile: func(p *v1alpha1.CertificateProfile) {
				p.Subject = []v1alpha1.SubjectAttribute{"organizationalUnit", "organization"}
			},
			want: with(func(i *issued) { i.Subject = "OU=unit,O=zeta+O=alpha" }),
		},
		{
			name:    "no subject attributes",
			profile: func(p *v1alpha1.CertificateProfile) { p.Subject = []v1alpha1.SubjectAttribute{} },
			want:    with(func(i *issued) { i.Subject, i.SANCritical = "", true }),
		},
		{
			name: "unsupported subject attributes",
			request: func(r *x509.CertificateRequest) {
				r.Subject.Country, r.Subject.Province, r.Subject.SerialNumber = []string{"AU"}, []string{"Some-State"}, "1"
			}, want: expected,
		},
		{
			name: "URLs",
			profile: func(p *v1alpha1.CertificateProfile) {
				p.CRLDistributionPoints = []string{"http://crl.example/1", "https://crl.example/2"}
				p.OCSPServers, p.IssuingCertificateURLs = []string{"http://ocsp.example/b", "http://ocsp.example/a"}, []string{"http://ca.example/ca.crt"}
			},
			want: with(func(i *issued) {
				i.CRLs = []string{"http://crl.example/1", "https://crl.example/2"}
				i.OCSP, i.Issuing = []string{"http://ocsp.example/b", "http://ocsp.example/a"}, []string{"http://ca.example/ca.crt"}
			}),
		},
		{
			name:   "a lifetime of 10 seconds and a CA that expires in a minute",
			object: expiration(600),
			profile: func(p *v1alpha1.CertificateProfile) {
				p.MaxDuration, p.Backdate = &metav1.Duration{Duration: 10 * time.Second}, &metav1.Duration{}
			},
			alterCA: func(c *x509.Certificate) { c.NotAfter = second.Add(time.Minute) },
			want:    with(func(i *issued) { i.NotBefore, i.NotAfter = second, second.Add(10*time.Second) }),
		},
		{
			name:    "shortest lifetime",
			object:  expiration(3600),
			profile: func(p *v1alpha1.CertificateProfile) { p.MinDuration = &metav1.Duration{Duration: time.Hour} },
			want:    with(func(i *issued) { i.NotAfter = second.Add(time.Hour) }),
		},
		{
			name:    "clamped to the CA's notAfter",
			alterCA: func(c *x509.Certificate) { c.NotAfter = second.Add(time.Hour) },
			want:    with(func(i *issued) { i.NotAfter = second.Add(time.Hour) }),
		},
		{
			name:    "clamped to the CA's notBefore",
			alterCA: func(c *x509.Certificate) { c.NotBefore = second.Add(-time.Minute) },
			want:    with(func(i *issued) { i.NotBefore = second.Add(-time.Minute) }),
		},
		{
			name:    "within the CA's name constraints",
			alterCA: func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example"} }, want: expected,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			key, caKey := test.key, test.ca
			if key == nil {
				key = keys.EC
			}
			if caKey == nil {
				caKey = keys.EC
			}
			authority := newCA(t, caKey, test.alterCA)
			csr := newCSR(t, key, test.request, test.object)
			before := csr.DeepCopy()
			issuance := mustPrepare(t, csr, newProfile(t, test.profile), authority)
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
				t.Errorf("PEM is not exactly the certificate:\n%s", chain)
			}
			public, ok := certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
			if !ok || !public.Equal(key.Public()) {
				t.Error("public key is not that of the request")
			}
			if certificate.IsCA || !certificate.BasicConstraintsValid {
				t.Error("certificate is not CA:FALSE")
			}
			if err := certificate.CheckSignatureFrom(authority.Certificate()); err != nil {
				t.Errorf("signature: %v", err)
			}
			template := issuance.Template()
			if template.SerialNumber.Cmp(certificate.SerialNumber) != 0 || !template.NotAfter.Equal(certificate.NotAfter) {
				t.Errorf("template has serial %x and notAfter %v, certificate has %x and %v",
					template.SerialNumber, template.NotAfter, certificate.SerialNumber, certificate.NotAfter)
			}
			if !bytes.Equal(issuance.Request().RawSubjectPublicKeyInfo, certificate.RawSubjectPublicKeyInfo) {
				t.Error("Request has another key than the certificate")
			}
		})
	}
}

func TestIssue_once(t *testing.T) {
	keys := testKeys()
	issuance := mustPrepare(t, newCSR(t, keys.EC, nil, nil), newProfile(t, nil), newCA(t, keys.EC, nil))
	if _, _, err := issuance.Issue(t.Context()); err != nil {
		t.Fatal(err)
	}
	chain, certificate, err := issuance.Issue(t.Context())
	if err == nil || err.Error() != "issuing: already issued" || chain != nil || certificate != nil {
		t.Errorf("second use: got %q, %v, %v", chain, certificate, err)
	}
	if _, _, err := new(Issuance).Issue(t.Context()); err == nil || err.Error() != "issuing: not prepared" {
		t.Errorf("Issuance that was not prepared: got %v", err)
	}
}

// TestIssue_alteredAfterLint changes the template after lint, as a memory error could.
func TestIssue_alteredAfterLint(t *testing.T) {
	keys := testKeys()
	issuance := mustPrepare(t, newCSR(t, keys.EC, nil, nil), newProfile(t, nil), newCA(t, keys.EC, nil))
	issuance.template.DNSNames = []string{"admin.example"}
	chain, certificate, err := issuance.Issue(t.Context())
	want := `issuing: signing with CA "CN=Test CA": the message to sign differs from the linted certificate`
	if err == nil || err.Error() != want || chain != nil || certificate != nil {
		t.Errorf("got %q, %v, %v, want error %q", chain, certificate, err, want)
	}
}

// brokenKey signs another message than the given one, as a broken key store could.
type brokenKey struct{ crypto.Signer }

func (k brokenKey) Sign(random io.Reader, message []byte, options crypto.SignerOpts) ([]byte, error) {
	other := slices.Clone(message)
	other[0] ^= 1
	return k.Signer.Sign(random, other, options)
}

// TestCreateCertificate_verifies checks that crypto/x509 verifies the signature: Issue relies on it.
func TestCreateCertificate_verifies(t *testing.T) {
	keys := testKeys()
	for _, key := range []crypto.Signer{keys.EC, keys.RSA, keys.Ed} {
		authority := newCA(t, key, nil)
		issuance := mustPrepare(t, newCSR(t, keys.EC, nil, nil), newProfile(t, nil), authority)
		if der, err := x509.CreateCertificate(rand.Reader, issuance.template, authority.Certificate(), keys.EC.Public(), brokenKey{key}); err == nil || der != nil {
			t.Errorf("%T: an invalid signature is returned", key)
		}
	}
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
	authority, problem := ca.Load(slices.Concat(encode("CERTIFICATE", der), encode("CERTIFICATE", root.Anchor().Raw)), encode("PRIVATE KEY", keyDER), now)
	if problem != nil {
		t.Fatal(problem)
	}
	issuance := mustPrepare(t, newCSR(t, keys.EC, nil, nil), newProfile(t, nil), authority)
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
		t.Fatal("the chain has no intermediate")
	}
	if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: now, DNSName: "web.example"}); err != nil {
		t.Errorf("a TLS client rejects the certificate: %v", err)
	}
}
