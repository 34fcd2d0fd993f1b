// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzParse calls Parse with any bytes. The seeds are every hostile request and every file in testdata.
func FuzzParse(f *testing.F) {
	for _, test := range hostileRequests() {
		f.Add(test.bytes())
	}
	files, err := filepath.Glob(filepath.Join("testdata", "*.pem"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no files in testdata: %v", err)
	}
	for _, file := range files {
		f.Add(mustRead(filepath.Base(file)))
	}
	f.Fuzz(checkParse)
}

// FuzzParseSigned calls Parse with any subject and attributes in a request with a valid signature, so
// that the fuzzer does not have to find valid PEM and DER around them.
func FuzzParseSigned(f *testing.F) {
	add := func(t template) {
		f.Add(cmpOr(t.subject, sequence()), t.attributes)
	}
	for _, test := range hostileRequests() {
		add(test.template)
	}
	add(withNames(dnsName("web.example"), ip(10, 0, 0, 7), uri("spiffe://a/b"), email("a@b")))
	add(withNames(dnsName("*.xn--bcher-kva.example."), uri("https://[fd00::7]:8443/a%20b?c=d#e"), uri("urn:uuid:0"), email("a.b+c@xn--bcher-kva.example")))
	add(withExtensions(extension(oidKeyUsage, unhex("03 02 07 80")), extension(oidExtendedKeyUsage, sequence(oid("1.3.6.1.5.5.7.3.1")))))
	add(withSubject(rdn(oidOrganization, utf8String("a")), rdn(oidOrganization, utf8String("b")), rdn("2.5.4.7", utf8String("c"))))
	f.Fuzz(func(t *testing.T, subject, attributes []byte) {
		checkParse(t, template{subject: subject, attributes: attributes}.pem())
	})
}

func checkParse(t *testing.T, data []byte) {
	request, err := Parse(data)
	second, secondErr := Parse(bytes.Clone(data))
	if diff := cmp.Diff(request, second, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("the second call returns another request (-first +second):\n%s", diff)
	}
	if diff := cmp.Diff(err, secondErr); diff != "" {
		t.Errorf("the second call returns another error (-first +second):\n%s", diff)
	}
	if err != nil {
		if request != nil {
			t.Error("an error and a request")
		}
		checkError(t, err)
		return
	}
	if len(data) > MaxSize {
		t.Errorf("accepted %d bytes", len(data))
	}
	checkRequest(t, data, request)
}

func checkError(t *testing.T, err error) {
	refused, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("error is a %T", err)
	}
	if n := len(refused.Refusals); n < 1 || n > maxRefusals {
		t.Errorf("%d refusals", n)
	}
	for i, refusal := range refused.Refusals {
		if strings.HasPrefix(refusal.Message, "crypto/x509 reads ") {
			t.Errorf("readings differ: %s", refusal.Message)
		}
		if strings.HasPrefix(refusal.Message, "crypto/x509 cannot read ") && strings.Contains(refusal.Message, "URI") {
			t.Errorf("crypto/x509 refuses a URI that is accepted here: %s", refusal.Message)
		}
		if refusal.Message == "" || len(refusal.Message) > maxMessage {
			t.Errorf("message of %d bytes", len(refusal.Message))
		}
		if strings.ContainsFunc(refusal.Message, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("message is not printable ASCII: %q", refusal.Message)
		}
		for _, other := range refused.Refusals[:i] {
			if other == refusal {
				t.Errorf("refused twice: %v", refusal)
			}
		}
	}
}

// checkRequest reads data as the API server does, and compares request with it.
func checkRequest(t *testing.T, data []byte, request *Request) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		t.Fatalf("not one PEM block: %v, rest %q", block, rest)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := csr.CheckSignature(); err != nil {
		t.Error(err)
	}
	digest := sha256.Sum256(request.RawSubjectPublicKeyInfo)
	if request.Key.SHA256 != hex.EncodeToString(digest[:]) || !bytes.Equal(request.RawSubjectPublicKeyInfo, csr.RawSubjectPublicKeyInfo) {
		t.Error("digest of another key")
	}
	if request.Key.Algorithm != csr.PublicKeyAlgorithm.String() {
		t.Errorf("algorithm = %s, want %s", request.Key.Algorithm, csr.PublicKeyAlgorithm)
	}

	// Names as text, independent of how difference compares.
	var want, got []string
	for _, name := range csr.DNSNames {
		want = append(want, "dns:"+name)
	}
	for _, name := range csr.IPAddresses {
		want = append(want, "ip:"+name.String())
	}
	for _, name := range csr.URIs {
		want = append(want, "uri:"+name.String())
	}
	for _, name := range csr.EmailAddresses {
		want = append(want, "email:"+name)
	}
	for _, name := range request.DNSNames {
		got = append(got, "dns:"+name)
	}
	for _, name := range request.IPAddresses {
		got = append(got, "ip:"+name.String())
	}
	for _, name := range request.URIs {
		got = append(got, "uri:"+name)
	}
	for _, name := range request.EmailAddresses {
		got = append(got, "email:"+name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names (-crypto/x509 +got):\n%s", diff)
	}
	subject := csr.Subject
	if request.Subject.CommonName != subject.CommonName ||
		!cmp.Equal(request.Subject.Organizations, subject.Organization) ||
		!cmp.Equal(request.Subject.OrganizationalUnits, subject.OrganizationalUnit) {
		t.Errorf("subject = %+v, crypto/x509 has %v", request.Subject, subject)
	}
	ours := len(request.Subject.Organizations) + len(request.Subject.OrganizationalUnits) + len(request.Subject.Other)
	if request.Subject.CommonName != "" {
		ours++
	}
	if ours != len(subject.Names) {
		t.Errorf("%d subject attributes, crypto/x509 has %d", ours, len(subject.Names))
	}
}
