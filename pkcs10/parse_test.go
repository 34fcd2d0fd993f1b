// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	certificatesv1 "k8s.io/api/certificates/v1"
)

func addresses(texts ...string) []netip.Addr {
	var addrs []netip.Addr
	for _, text := range texts {
		addrs = append(addrs, netip.MustParseAddr(text))
	}
	return addrs
}

// wantRequest compares all of a request but the key itself, which
// TestParseKeys and the properties of the fuzz tests are about.
func wantRequest(t *testing.T, got *Request, want Request) {
	t.Helper()
	opts := []cmp.Option{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmpopts.IgnoreFields(Request{}, "PublicKey", "RawSubjectPublicKeyInfo"),
		cmpopts.IgnoreFields(Key{}, "SHA256"),
	}
	if diff := cmp.Diff(&want, got, opts...); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

func TestParseOfOtherTools(t *testing.T) {
	var hundred []string
	for i := range 100 {
		n := strconv.Itoa(1001 + i)[1:]
		hundred = append(hundred, "service-"+n+".a-namespace-with-a-rather-long-name-of-fifty.svc.cluster.local.example")
	}
	for _, test := range []struct {
		file string
		want Request
	}{
		{"cfssl.pem", Request{
			Subject:     Subject{CommonName: "my-pod.my-namespace.pod.cluster.local"},
			DNSNames:    []string{"my-svc.my-namespace.svc.cluster.local", "my-pod.my-namespace.pod.cluster.local"},
			IPAddresses: addresses("192.0.2.24", "10.0.34.2"),
			Key:         Key{Algorithm: "ECDSA", Bits: 256},
		}},
		{"keytool.pem", Request{
			Subject: Subject{
				CommonName:          "web.example",
				Organizations:       []string{"Example"},
				OrganizationalUnits: []string{"Cards", "Payments"},
				Other:               []Attribute{{OID: "2.5.4.6", Value: "DE"}},
			},
			DNSNames:    []string{"web.example"},
			IPAddresses: addresses("10.0.0.7"),
			Usages:      []certificatesv1.KeyUsage{"client auth", "digital signature", "server auth"},
			Key:         Key{Algorithm: "ECDSA", Bits: 256},
		}},
		{"openssl-rsa.pem", Request{
			Subject: Subject{
				CommonName:          "web.example",
				Organizations:       []string{"Example"},
				OrganizationalUnits: []string{"Cards", "Payments"},
				Other:               []Attribute{{OID: "2.5.4.6", Value: "DE"}},
			},
			DNSNames:       []string{"web.example", "*.web.example"},
			IPAddresses:    addresses("10.0.0.7", "fd00::7"),
			URIs:           []string{"spiffe://cluster.local/ns/shop/sa/web"},
			EmailAddresses: []string{"web@example.com"},
			Usages:         []certificatesv1.KeyUsage{"digital signature", "key encipherment", "server auth"},
			Key:            Key{Algorithm: "RSA", Bits: 2048},
		}},
		{"openssl-pss.pem", Request{
			Subject: Subject{CommonName: "pss"},
			Key:     Key{Algorithm: "RSA", Bits: 2048},
		}},
		{"openssl-ed25519-ip.pem", Request{
			IPAddresses: addresses("10.0.0.7"),
			Key:         Key{Algorithm: "Ed25519", Bits: 256},
		}},
		{"openssl-dns.pem", Request{
			DNSNames: []string{"web.shop.svc", "web.shop.svc.cluster.local"},
			Key:      Key{Algorithm: "ECDSA", Bits: 384},
		}},
		{"openssl-rsa8192.pem", Request{
			Subject:  Subject{CommonName: "rsa8192"},
			DNSNames: hundred,
			Key:      Key{Algorithm: "RSA", Bits: 8192},
		}},
	} {
		t.Run(test.file, func(t *testing.T) {
			data := mustRead(test.file)
			got, err := Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			wantRequest(t, got, test.want)
		})
	}
}

func TestParseOfCryptoX509(t *testing.T) {
	spiffe := &url.URL{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/shop/sa/web"}
	for _, test := range []struct {
		name     string
		template x509.CertificateRequest
		want     Request
	}{
		{name: "nothing asked for"},
		{
			name:     "DNS names only, kept as they are",
			template: x509.CertificateRequest{DNSNames: []string{"Web.Example.", "*.web.example", "web.example", "Web.Example"}},
			want:     Request{DNSNames: []string{"Web.Example.", "*.web.example", "web.example", "Web.Example"}},
		},
		{
			name:     "IP addresses only",
			template: x509.CertificateRequest{IPAddresses: []net.IP{net.ParseIP("10.0.0.7"), net.ParseIP("fd00::7"), net.IPv4zero}},
			want:     Request{IPAddresses: addresses("10.0.0.7", "fd00::7", "0.0.0.0")},
		},
		{
			name:     "URI and email",
			template: x509.CertificateRequest{URIs: []*url.URL{spiffe}, EmailAddresses: []string{"web@example.com"}},
			want:     Request{URIs: []string{"spiffe://cluster.local/ns/shop/sa/web"}, EmailAddresses: []string{"web@example.com"}},
		},
		{
			name:     "node client",
			template: x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}},
			want:     Request{Subject: Subject{CommonName: "system:node:n1", Organizations: []string{"system:nodes"}}},
		},
		{
			name: "several organizations, each in an RDN of its own",
			template: x509.CertificateRequest{Subject: pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{
				{Type: []int{2, 5, 4, 10}, Value: "b"},
				{Type: []int{2, 5, 4, 11}, Value: "d"},
				{Type: []int{2, 5, 4, 10}, Value: "a"},
				{Type: []int{2, 5, 4, 11}, Value: "c"},
			}}},
			want: Request{Subject: Subject{Organizations: []string{"b", "a"}, OrganizationalUnits: []string{"d", "c"}}},
		},
		{
			name:     "several organizations in one RDN, as crypto/x509 writes them",
			template: x509.CertificateRequest{Subject: pkix.Name{Organization: []string{"a", "b"}, OrganizationalUnit: []string{"c", "d"}}},
			want:     Request{Subject: Subject{Organizations: []string{"a", "b"}, OrganizationalUnits: []string{"c", "d"}}},
		},
		{
			name:     "one name in several kinds",
			template: x509.CertificateRequest{DNSNames: []string{"a"}, URIs: []*url.URL{{Scheme: "a", Opaque: "a"}}, Subject: pkix.Name{CommonName: "a"}},
			want:     Request{DNSNames: []string{"a"}, URIs: []string{"a:a"}, Subject: Subject{CommonName: "a"}},
		},
		{
			name:     "text beyond ASCII",
			template: x509.CertificateRequest{Subject: pkix.Name{CommonName: "Zoë & Łukasz *", Locality: []string{"München"}}},
			want:     Request{Subject: Subject{CommonName: "Zoë & Łukasz *", Other: []Attribute{{OID: "2.5.4.7", Value: "München"}}}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			der, err := x509.CreateCertificateRequest(rand.Reader, &test.template, testKey)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Parse(encodePEM(der))
			if err != nil {
				t.Fatal(err)
			}
			test.want.Key = Key{Algorithm: "ECDSA", Bits: 256}
			wantRequest(t, got, test.want)
		})
	}
}

func TestParseKeys(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		t.Run(curve.Params().Name, func(t *testing.T) {
			key, err := ecdsa.GenerateKey(curve, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Parse(encodePEM(der))
			if err != nil {
				t.Fatal(err)
			}
			if !key.PublicKey.Equal(got.PublicKey) {
				t.Error("another public key")
			}
			if got.Key.Algorithm != "ECDSA" || got.Key.Bits != curve.Params().BitSize {
				t.Errorf("key = %+v", got.Key)
			}
		})
	}
	t.Run("digest", func(t *testing.T) {
		got, err := Parse(mustRead("cfssl.pem"))
		if err != nil {
			t.Fatal(err)
		}
		// openssl req -in cfssl.pem -pubkey -noout | openssl pkey -pubin -outform DER | sha256sum
		const want = "33e12bc35ed29100d47908483322a03d6a79b054e66480fce7dc8777557a7fa0"
		if got.Key.SHA256 != want {
			t.Errorf("SHA256 = %s, want %s", got.Key.SHA256, want)
		}
	})
}

func TestParseSignatureAlgorithms(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[x509.PublicKeyAlgorithm]crypto.Signer{x509.RSA: rsaKey, x509.ECDSA: testKey, x509.Ed25519: edKey}
	tested := map[x509.SignatureAlgorithm]bool{}
	for _, test := range []struct {
		key        x509.PublicKeyAlgorithm
		algorithms []x509.SignatureAlgorithm
	}{
		{x509.RSA, []x509.SignatureAlgorithm{x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS}},
		{x509.ECDSA, []x509.SignatureAlgorithm{x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512}},
		{x509.Ed25519, []x509.SignatureAlgorithm{x509.PureEd25519}},
	} {
		for _, algorithm := range test.algorithms {
			tested[algorithm] = true
			t.Run(algorithm.String(), func(t *testing.T) {
				der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{SignatureAlgorithm: algorithm}, keys[test.key])
				if err != nil {
					t.Fatal(err)
				}
				got, err := Parse(encodePEM(der))
				if err != nil {
					t.Fatal(err)
				}
				if got.Key.Algorithm != test.key.String() {
					t.Errorf("algorithm = %s, want %s", got.Key.Algorithm, test.key)
				}
			})
		}
	}
	if allowed := len(signatureAlgorithms) + len(pssAlgorithms); len(tested) != allowed {
		t.Errorf("%d algorithms tested, %d allowed", len(tested), allowed)
	}
}

// TestParseSignatureParameters has every form of the parameters that RFC 4055 says a reader must accept.
// The API server verifies the same requests with crypto/x509.
func TestParseSignatureParameters(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	bare := func(id string) []byte { return sequence(oid(id)) }
	mask := func(hash []byte) []byte { return sequence(oid(oidMGF1), hash) }
	pss := func(hash, mask []byte, salt int64, trailer ...[]byte) []byte {
		return sequence(oid(oidPSS), sequence(slices.Concat(
			element(0xa0, hash), element(0xa1, mask), element(0xa2, integer(salt)), slices.Concat(trailer...),
		)))
	}
	trailer := element(0xa3, integer(1))
	for _, test := range []struct {
		name       string
		algorithm  x509.SignatureAlgorithm
		identifier []byte
	}{
		{"SHA-256, no parameters", x509.SHA256WithRSA, bare("1.2.840.113549.1.1.11")},
		{"SHA-384, no parameters", x509.SHA384WithRSA, bare("1.2.840.113549.1.1.12")},
		{"SHA-512, no parameters", x509.SHA512WithRSA, bare("1.2.840.113549.1.1.13")},
		{"PSS, NULL for hash and mask", x509.SHA256WithRSAPSS, pss(hash(oidSHA256), mgf1(oidSHA256), 32)},
		{"PSS, no parameters for the hash", x509.SHA256WithRSAPSS, pss(bare(oidSHA256), mgf1(oidSHA256), 32)},
		{"PSS, no parameters for the mask", x509.SHA256WithRSAPSS, pss(hash(oidSHA256), mask(bare(oidSHA256)), 32)},
		{"PSS, no parameters for both", x509.SHA384WithRSAPSS, pss(bare(oidSHA384), mask(bare(oidSHA384)), 48)},
		{"PSS, trailerField", x509.SHA512WithRSAPSS, pss(hash(oidSHA512), mgf1(oidSHA512), 64, trailer)},
		{"PSS, trailerField and no parameters", x509.SHA512WithRSAPSS, pss(bare(oidSHA512), mask(bare(oidSHA512)), 64, trailer)},
	} {
		t.Run(test.name, func(t *testing.T) {
			der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{SignatureAlgorithm: test.algorithm}, key)
			if err != nil {
				t.Fatal(err)
			}
			csr, err := x509.ParseCertificateRequest(der)
			if err != nil {
				t.Fatal(err)
			}
			der = sequence(csr.RawTBSCertificateRequest, test.identifier, bitString(csr.Signature))
			got, err := Parse(encodePEM(der))
			if err != nil {
				t.Fatal(err)
			}
			checkRequest(t, encodePEM(der), got)
		})
	}
}

// TestParseUsages has every usage that has a name in Kubernetes and is not for CAs.
func TestParseUsages(t *testing.T) {
	var all [][]byte
	for id := range extendedKeyUsages {
		all = append(all, oid(id), oid(id))
	}
	got, err := Parse(withExtensions(
		extension(oidKeyUsage, unhex("03 03 07 f9 80")),
		extension(oidExtendedKeyUsage, sequence(all...)),
	).pem())
	if err != nil {
		t.Fatal(err)
	}
	want := []certificatesv1.KeyUsage{
		"any", "client auth", "code signing", "content commitment", "data encipherment", "decipher only",
		"digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel", "ipsec user",
		"key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "server auth", "timestamping",
	}
	if diff := cmp.Diff(want, got.Usages); diff != "" {
		t.Errorf("usages (-want +got):\n%s", diff)
	}
}

func TestParseAroundTheBlock(t *testing.T) {
	block := template{}.pem()
	for _, test := range []struct {
		name string
		data []byte
	}{
		{"as encoded", block},
		{"no last line end", bytes.TrimSuffix(block, []byte("\n"))},
		{"CRLF", bytes.ReplaceAll(block, []byte("\n"), []byte("\r\n"))},
		{"white space", append([]byte(" \n\t\r\n"), append(bytes.Clone(block), " \t\r\n\n"...)...)},
		{"one long line", oneLine(block)},
		{"of size MaxSize", append(bytes.Clone(block), bytes.Repeat([]byte("\n"), MaxSize-len(block))...)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := Parse(test.data); err != nil {
				t.Error(err)
			}
		})
	}
}

func oneLine(block []byte) []byte {
	lines := bytes.Split(bytes.TrimSpace(block), []byte("\n"))
	return bytes.Join([][]byte{lines[0], bytes.Join(lines[1:len(lines)-1], nil), lines[len(lines)-1]}, []byte("\n"))
}

// TestParseSharesNoMemory: a request does not hold its bytes, and does not change with them.
func TestParseSharesNoMemory(t *testing.T) {
	data := mustRead("openssl-rsa.pem")
	got, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Parse(bytes.Clone(data))
	if err != nil {
		t.Fatal(err)
	}
	clear(data)
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("request changed with its bytes (-want +got):\n%s", diff)
	}
}
