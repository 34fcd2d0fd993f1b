// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"countersign.dev/countersign/api/v1alpha1"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// pair is a CA certificate with its key.
type pair struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

// issue makes a CA certificate of name with key, valid for 10 years, signed by issuer or, if that
// is nil, by itself.
func issue(t *testing.T, name string, key crypto.Signer, issuer *pair, change func(*x509.Certificate)) *pair {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: now.AddDate(0, 0, -1), NotAfter: now.AddDate(10, 0, 0),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if change != nil {
		change(template)
	}
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.certificate, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &pair{certificate, key}
}

func ecKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0") // the package must reject weak keys itself
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func edKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func certPEM(pairs ...*pair) []byte {
	var out []byte
	for _, p := range pairs {
		out = append(out, encode("CERTIFICATE", p.certificate.Raw)...)
	}
	return out
}

// load returns a CA that can be expired.
func load(certPEM, keyPEM []byte) (*CA, *Problem) {
	certificates, problem := ParseCertificates(certPEM)
	if problem != nil {
		return nil, problem
	}
	key, problem := ParseKey(keyPEM)
	if problem != nil {
		return nil, problem
	}
	return New(certificates, key)
}

func keyPEM(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return encode("PRIVATE KEY", der)
}

func TestLoad(t *testing.T) {
	p256, p384, rsa2048, ed := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P384()), rsaKey(t, 2048), edKey(t)
	root := issue(t, "Root", p256, nil, nil)
	upper := issue(t, "Upper", p384, root, nil)
	lower := issue(t, "Lower", rsa2048, upper, nil)
	sec1, err := x509.MarshalECPrivateKey(p256)
	if err != nil {
		t.Fatal(err)
	}
	parameters := encode("EC PARAMETERS", []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07})
	tests := []struct {
		name      string
		cert, key []byte
		chain     []*pair // that follows an issued certificate
		trust     *pair
	}{
		{"root, PKCS#8", certPEM(root), keyPEM(t, p256), nil, root},
		{"root, SEC 1", certPEM(root), encode("EC PRIVATE KEY", sec1), nil, root},
		{"root, SEC 1 with parameters", certPEM(root), append(parameters, encode("EC PRIVATE KEY", sec1)...), nil, root},
		{"root, Ed25519", certPEM(issue(t, "Ed", ed, nil, nil)), keyPEM(t, ed), nil, nil},
		{
			"root without key usage",
			certPEM(issue(t, "Old", p256, nil, func(c *x509.Certificate) { c.KeyUsage = 0 })), keyPEM(t, p256), nil, nil,
		},
		{"intermediate alone", certPEM(lower), keyPEM(t, rsa2048), []*pair{lower}, lower},
		{
			"intermediate, PKCS#1",
			certPEM(lower), encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsa2048)),
			[]*pair{lower},
			lower,
		},
		{"intermediate with its issuer", certPEM(lower, upper), keyPEM(t, rsa2048), []*pair{lower, upper}, upper},
		{"intermediate up to its root", certPEM(lower, upper, root), keyPEM(t, rsa2048), []*pair{lower, upper}, root},
		{"text around the certificate", slices.Concat([]byte("Issuer: CN=Root\n"), certPEM(root), []byte("\n\n")), keyPEM(t, p256), nil, root},
		{"its last second", certPEM(issue(t, "Late", p256, nil, func(c *x509.Certificate) { c.NotAfter = now })), keyPEM(t, p256), nil, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, problem := Load(test.cert, test.key, now)
			if problem != nil {
				t.Fatal(problem)
			}
			var want [][]byte
			for _, p := range test.chain {
				want = append(want, p.certificate.Raw)
			}
			var got [][]byte
			for _, certificate := range c.Chain() {
				got = append(got, certificate.Raw)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("chain (-want +got):\n%s", diff)
			}
			if test.trust != nil && !c.Anchor().Equal(test.trust.certificate) {
				t.Errorf("trust anchor is %s, want %s", c.Anchor().Subject, test.trust.certificate.Subject)
			}
		})
	}
}

func TestLoad_problems(t *testing.T) {
	key, otherKey := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	root := issue(t, "Root", key, nil, nil)
	other := issue(t, "Other", otherKey, nil, nil)
	lower := issue(t, "Lower", otherKey, root, nil)
	with := func(change func(*x509.Certificate)) []byte { return certPEM(issue(t, "Root", key, nil, change)) }
	good := keyPEM(t, key)
	weakRSA, p224 := rsaKey(t, 1024), ecKey(t, elliptic.P224())
	unknownKey := bytes.Replace(root.certificate.Raw,
		[]byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01}, // 1.2.840.10045.2.1, an EC key
		[]byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x02}, 1)
	sameName := issue(t, "Root", otherKey, nil, nil)
	x25519 := []byte{0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x04, 0x22, 0x04, 0x20}
	x25519 = append(x25519, bytes.Repeat([]byte{7}, 32)...)

	tests := []struct {
		name      string
		cert, key []byte
		reason    string
		message   string
	}{
		{"no certificate", nil, good, v1alpha1.ReasonInvalidCA, "tls.crt is missing or empty: both tls.crt and tls.key are required, as 'kubectl create secret tls' writes them"},
		{"no key", certPEM(root), []byte(" \n"), v1alpha1.ReasonInvalidCA, "tls.key is missing or empty: both tls.crt and tls.key are required, as 'kubectl create secret tls' writes them"},
		{
			"certificate is DER",
			root.certificate.Raw, good, v1alpha1.ReasonInvalidCA, "tls.crt contains no PEM block: check that it is not DER, and not encoded in base64 twice",
		},
		{
			"certificate is too large",
			bytes.Repeat([]byte("x"), 64<<10+1), good, v1alpha1.ReasonInvalidCA, "tls.crt has 65537 bytes: the limit is 65536; remove what does not belong to this CA",
		},
		{
			"certificate is cut off",
			append(certPEM(root), certPEM(root)[:100]...), good, v1alpha1.ReasonInvalidCA, "tls.crt contains a damaged PEM block: 2 begin, 1 can be decoded; copy the whole file again",
		},
		{
			"certificate is garbage",
			encode("CERTIFICATE", []byte("garbage")), good, v1alpha1.ReasonInvalidCA, "certificate 1 in tls.crt is invalid: x509: malformed certificate; issue it again, or copy it again",
		},
		{
			"key among the certificates",
			append(certPEM(root), good...), good, v1alpha1.ReasonInvalidCA, `tls.crt contains a PEM block of type "PRIVATE KEY": it must contain only certificates`,
		},
		{
			"key is garbage",
			certPEM(root), encode("PRIVATE KEY", []byte("garbage")), v1alpha1.ReasonInvalidCA,
			"the private key in tls.key is invalid: it must be RSA, ECDSA or Ed25519 in PKCS#8, PKCS#1 or SEC 1; 'openssl pkey -in tls.key' shows details",
		},
		{
			"key is a certificate",
			certPEM(root), certPEM(root), v1alpha1.ReasonInvalidCA, `tls.key contains a PEM block of type "CERTIFICATE": it must contain only the private key`,
		},
		{
			"key is missing beside its parameters",
			certPEM(root), encode("EC PARAMETERS", []byte{5, 0}), v1alpha1.ReasonInvalidCA, "the private key in tls.key cannot sign: use RSA, ECDSA or Ed25519",
		},
		{
			"key cannot sign",
			certPEM(root), encode("PRIVATE KEY", x25519), v1alpha1.ReasonInvalidCA, "the private key in tls.key cannot sign: use RSA, ECDSA or Ed25519",
		},
		{
			"two keys",
			certPEM(root), append(good, good...), v1alpha1.ReasonInvalidCA, "tls.key contains more than one key: keep only the key of the CA certificate",
		},
		{
			"key is encrypted, PKCS#8",
			certPEM(root), encode("ENCRYPTED PRIVATE KEY", []byte("x")), v1alpha1.ReasonInvalidCA,
			"the private key in tls.key is encrypted, and the signer has no passphrase: decrypt it with 'openssl pkey -in <encrypted> -out tls.key'",
		},
		{
			"key is encrypted, by header",
			certPEM(root), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte("x"), Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}}),
			v1alpha1.ReasonInvalidCA,
			"the private key in tls.key is encrypted, and the signer has no passphrase: decrypt it with 'openssl pkey -in <encrypted> -out tls.key'",
		},
		{
			"key of another certificate",
			certPEM(root), keyPEM(t, otherKey), v1alpha1.ReasonCAKeyMismatch,
			`tls.key does not match the first certificate in tls.crt, "CN=Root": replace both together, and put the CA certificate before its issuers`,
		},
		{
			"key of another kind",
			certPEM(root), keyPEM(t, edKey(t)), v1alpha1.ReasonCAKeyMismatch,
			`tls.key does not match the first certificate in tls.crt, "CN=Root": replace both together, and put the CA certificate before its issuers`,
		},
		{
			"not a CA",
			with(func(c *x509.Certificate) { c.IsCA = false }), good, v1alpha1.ReasonInvalidCA,
			`the certificate "CN=Root" is not a CA certificate: its basic constraints must be CA:TRUE`,
		},
		{
			"path length",
			certPEM(issue(t, "Lower", key, root, nil), issue(t, "Root", key, nil, func(c *x509.Certificate) { c.MaxPathLenZero = true })), good, v1alpha1.ReasonInvalidCA,
			`the certificate "CN=Root" allows at most 0 CAs below it, and there are 1: use an issuer with a longer path length, or sign with a CA further up`,
		},
		{
			"no basic constraints",
			with(func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA = false, false }), good, v1alpha1.ReasonInvalidCA,
			`the certificate "CN=Root" is not a CA certificate: its basic constraints must be CA:TRUE`,
		},
		{
			"may not sign",
			with(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }), good, v1alpha1.ReasonInvalidCA,
			`the certificate "CN=Root" cannot sign certificates: its key usage must include certificate sign (keyCertSign)`,
		},
		{
			"no subject",
			with(func(c *x509.Certificate) { c.Subject = pkix.Name{} }), good, v1alpha1.ReasonInvalidCA,
			"the certificate with serial number 1 has no subject: an issuer requires one (RFC 5280, section 4.1.2.6)",
		},
		{
			"unknown critical extension",
			with(func(c *x509.Certificate) {
				c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
			}), good, v1alpha1.ReasonInvalidCA,
			`the certificate "CN=Root" has a critical extension 1.2.3 that TLS clients reject: issue the CA certificate without it`,
		},
		{
			"weak RSA",
			certPEM(issue(t, "Weak", weakRSA, nil, nil)), keyPEM(t, weakRSA), v1alpha1.ReasonInvalidCA,
			`the certificate "CN=Weak" has an RSA key of 1024 bits: use 2048 or more`,
		},
		{
			"weak curve",
			certPEM(issue(t, "Weak", p224, nil, nil)), keyPEM(t, p224), v1alpha1.ReasonInvalidCA,
			`the certificate "CN=Weak" has an ECDSA key on curve P-224: use P-256, P-384 or P-521`,
		},
		{
			"unknown kind of key",
			encode("CERTIFICATE", unknownKey), good, v1alpha1.ReasonInvalidCA,
			`the certificate "CN=Root" has a key of unknown type: use RSA, ECDSA or Ed25519`,
		},
		{
			"issuer is another",
			certPEM(lower, other), keyPEM(t, otherKey), v1alpha1.ReasonInvalidCA,
			`the certificate "CN=Lower" is not issued by the next one, "CN=Other": put the CA certificate first, followed by each of its issuers`,
		},
		{
			"issuer has the name but not the key",
			certPEM(lower, sameName), keyPEM(t, otherKey), v1alpha1.ReasonInvalidCA,
			`the certificate "CN=Lower" is not issued by the next one, "CN=Root": put the CA certificate first, followed by each of its issuers`,
		},
		{
			"issuer has the key but not the name",
			certPEM(lower, issue(t, "Renamed", key, nil, nil)), keyPEM(t, otherKey), v1alpha1.ReasonInvalidCA,
			`the issuer of the certificate "CN=Lower" differs from the subject of the next one, "CN=Renamed"`,
		},
		{
			"issuer first",
			certPEM(root, lower), good, v1alpha1.ReasonInvalidCA,
			`the certificate "CN=Root" is not issued by the next one, "CN=Lower": put the CA certificate first, followed by each of its issuers`,
		},
		{
			"expired",
			with(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Hour) }), good, v1alpha1.ReasonCAExpired,
			`the certificate "CN=Root" expired at 2026-03-01T11:00:00Z: replace the CA with a renewed one`,
		},
		{
			"not yet valid",
			with(func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) }), good, v1alpha1.ReasonCANotYetValid,
			`the certificate "CN=Root" is not valid before 2026-03-01T13:00:00Z: wait until then, or correct the clock`,
		},
		{
			"issuer expired",
			certPEM(issue(t, "Lower", otherKey, root, nil), issue(t, "Root", key, nil, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Hour) })),
			keyPEM(t, otherKey), v1alpha1.ReasonCAExpired,
			`the certificate "CN=Root" expired at 2026-03-01T11:00:00Z: replace the CA with a renewed one`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, problem := Load(test.cert, test.key, now)
			if c != nil {
				t.Error("Load returns a CA together with a Problem")
			}
			if diff := cmp.Diff(&Problem{Reason: test.reason, Message: test.message}, problem); diff != "" {
				t.Errorf("problem (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCA_status(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	rootEnd, lowerStart := now.AddDate(1, 0, 0), now.Add(-time.Hour)
	root := issue(t, "Root", key, nil, func(c *x509.Certificate) { c.NotAfter = rootEnd })
	lower := issue(t, "Lower", key, root, func(c *x509.Certificate) { c.NotBefore = lowerStart })
	c, problem := Load(certPEM(lower, root), keyPEM(t, key), now)
	if problem != nil {
		t.Fatal(problem)
	}
	if !c.NotAfter().Equal(rootEnd) {
		t.Errorf("notAfter %v, want that of the root, which ends first: %v", c.NotAfter(), rootEnd)
	}
	if !c.NotBefore().Equal(lowerStart) {
		t.Errorf("notBefore %v, want that of the CA, which begins last: %v", c.NotBefore(), lowerStart)
	}
	status := c.Status()
	if status.Subject != "CN=Lower" || !status.NotAfter.Time.Equal(rootEnd) || status.Fingerprint != c.Fingerprint() || len(c.Fingerprint()) != 64 {
		t.Errorf("status is %+v", status)
	}
	if problem := c.ValidAt(rootEnd.Add(time.Second), 0); problem == nil || problem.Reason != v1alpha1.ReasonCAExpired {
		t.Errorf("after its end: %v, want reason CAExpired", problem)
	}
	if problem := c.ValidAt(rootEnd.Add(-time.Minute), time.Minute); problem != nil {
		t.Errorf("exactly as long before its end as required: %v", problem)
	}
	problem = c.ValidAt(rootEnd.Add(-time.Minute+time.Second), time.Minute)
	want := fmt.Sprintf(`the certificate "CN=Root" expires at %s, too soon to issue the shortest certificate (1m0s): replace the CA with a renewed one`, stamp(rootEnd))
	if problem == nil || *problem != (Problem{Reason: v1alpha1.ReasonCAExpired, Message: want}) {
		t.Errorf("a second later: %v, want %q", problem, want)
	}
}

// loadBelowRoot loads a CA that a root issued; the changes are to the template of each.
func loadBelowRoot(t *testing.T, key crypto.Signer, root, lower func(*x509.Certificate)) *CA {
	t.Helper()
	issuer := issue(t, "Root", key, nil, root)
	c, problem := Load(certPEM(issue(t, "Lower", key, issuer, lower), issuer), keyPEM(t, key), now)
	if problem != nil {
		t.Fatal(problem)
	}
	return c
}

func TestCA_permits(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	limit := func(usages ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = usages }
	}
	tests := []struct {
		name        string
		root, lower func(*x509.Certificate)
		want        bool
	}{
		{"no limits", nil, nil, true},
		{"listed", nil, limit(x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth), true},
		{"any", nil, limit(x509.ExtKeyUsageAny), true},
		{"not listed", nil, limit(x509.ExtKeyUsageClientAuth), false},
		{"not listed by issuer", limit(x509.ExtKeyUsageClientAuth), limit(x509.ExtKeyUsageServerAuth), false},
		{"only an unknown usage", nil, func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3}} }, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := loadBelowRoot(t, key, test.root, test.lower)
			if got := c.Permits(x509.ExtKeyUsageServerAuth); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestCA_Sign(t *testing.T) {
	subject := ecKey(t, elliptic.P256())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "web"}, DNSNames: []string{"web.example"}, NotBefore: now, NotAfter: now.AddDate(0, 0, 1),
	}
	for _, test := range []struct {
		name string
		key  crypto.Signer
	}{
		{"P-256", ecKey(t, elliptic.P256())},
		{"P-384", ecKey(t, elliptic.P384())},
		{"RSA", rsaKey(t, 2048)},
		{"Ed25519", edKey(t)},
	} {
		t.Run(test.name, func(t *testing.T) {
			key := test.key
			c, problem := Load(certPEM(issue(t, "Root", key, nil, nil)), keyPEM(t, key), now)
			if problem != nil {
				t.Fatal(problem)
			}
			tbs, err := c.ToBeSigned(template, subject.Public())
			if err != nil {
				t.Fatal(err)
			}
			der, err := c.Sign(t.Context(), template, subject.Public(), tbs)
			if err != nil {
				t.Fatal(err)
			}
			certificate, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(tbs, certificate.RawTBSCertificate) {
				t.Errorf("to be signed: %x, signed: %x", tbs, certificate.RawTBSCertificate)
			}
			other := *template
			other.DNSNames = []string{"admin.example"}
			der, err = c.Sign(t.Context(), &other, subject.Public(), tbs)
			if want := `signing with CA "CN=Root": the message to sign differs from the linted certificate`; der != nil || err == nil || err.Error() != want {
				t.Errorf("another template: got %x, %v, want %q", der, err, want)
			}
			bad := *template
			bad.DNSNames = []string{"wéb"}
			if tbs, err := c.ToBeSigned(&bad, subject.Public()); tbs != nil || err == nil || err.Error() != `x509: "wéb" cannot be encoded as an IA5String` {
				t.Errorf("a name that cannot be encoded: got %x, %v", tbs, err)
			}
		})
	}
}

// remoteKey is a key of another process.
type remoteKey struct{ crypto.Signer }

func (k remoteKey) SignMessageContext(ctx context.Context, random io.Reader, message []byte, options crypto.SignerOpts) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return crypto.SignMessage(k.Signer, random, message, options)
}

func TestCA_Sign_context(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	c, problem := Load(certPEM(issue(t, "Root", key, nil, nil)), keyPEM(t, key), now)
	if problem != nil {
		t.Fatal(problem)
	}
	c.key = remoteKey{key}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: now, NotAfter: now.AddDate(0, 0, 1)}
	tbs, err := c.ToBeSigned(template, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := c.Sign(ctx, template, key.Public(), tbs); err != nil {
		t.Errorf("before the context ends: %v", err)
	}
	cancel()
	if _, err := c.Sign(ctx, template, key.Public(), tbs); !errors.Is(err, context.Canceled) {
		t.Errorf("after the context ended: got %v, want context.Canceled", err)
	}
}

func TestCA_ConstrainsNames(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	limit := func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"example.com"} }
	tests := []struct {
		name        string
		root, lower func(*x509.Certificate)
		want        bool
	}{
		{"none", nil, nil, false},
		{"the CA", nil, limit, true},
		{"its issuer", limit, nil, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := loadBelowRoot(t, key, test.root, test.lower)
			if got := c.ConstrainsNames(); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}
