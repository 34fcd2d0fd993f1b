// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/test/cluster"
	"countersign.dev/countersign/test/tutorial"
)

// TestSignatureWithoutParameters checks that the API server stores a request whose RSA signature algorithm has no NULL
// parameters, as older versions of cfssl and Go write it, and that it is issued.
func TestSignatureWithoutParameters(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	ask := own(tutorial.SignerName)
	ask.Key = key
	text, _, err := ask.PEM()
	must(t, err)
	block, _ := pem.Decode(text)
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	must(t, err)
	// PKCS#10 signs the first field only.
	block.Bytes, err = asn1.Marshal(struct {
		Info      asn1.RawValue
		Algorithm struct{ OID asn1.ObjectIdentifier }
		Signature asn1.BitString
	}{
		asn1.RawValue{FullBytes: parsed.RawTBSCertificateRequest},
		struct{ OID asn1.ObjectIdentifier }{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}},
		asn1.BitString{Bytes: parsed.Signature, BitLength: 8 * len(parsed.Signature)},
	})
	must(t, err)
	ask.PKCS10 = pem.EncodeToMemory(block)
	request(t, "without-parameters", ask)
	csr := outcome(t, "without-parameters", certificatesv1.CertificateApproved)
	if issued := certificates(t, csr.Status.Certificate)[0]; !key.PublicKey.Equal(issued.PublicKey) {
		t.Error("the certificate has another key")
	}
}

// pageCA is the input of cfssl gencert -initca on the Kubernetes page.
const pageCA = `{
  "CN": "My Example Signer",
  "key": {
    "algo": "rsa",
    "size": 2048
  }
}
`

// TestCAsOfOtherTools checks that CAs of cfssl and openssl issue certificates, and that openssl verifies them with the
// published CA.
func TestCAsOfOtherTools(t *testing.T) {
	const domain = "tools.example.com"
	strict := []string{"-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"} // as the README has it
	root := selfSigned(t, "Root", append(strict, "-newkey", "rsa:3072")...)
	tests := []struct {
		name   string
		ca     toolCA
		anchor string // the subject of the published CA
		chain  int    // number of certificates in status.certificate
		key    x509.PublicKeyAlgorithm
		lax    bool // the CA has no key usage, which openssl verify -x509_strict requires
	}{
		{name: "cfssl", ca: cfsslCA(t), anchor: "CN=My Example Signer", chain: 1, key: x509.RSA},
		{name: "openssl-rsa", ca: selfSigned(t, "Plain RSA", "-newkey", "rsa:2048"), anchor: "CN=Plain RSA", chain: 1, key: x509.RSA, lax: true},
		{name: "openssl-ec", ca: selfSigned(t, "EC", append(strict, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")...), anchor: "CN=EC", chain: 1, key: x509.ECDSA},
		{name: "openssl-intermediate", ca: intermediate(t, "Intermediate", root), anchor: "CN=Root", chain: 2, key: x509.ECDSA},
	}
	var names []string
	for _, tc := range tests {
		names = append(names, tc.name)
	}
	grant(t, domain, names...)
	other := file(t, "other.pem", selfSigned(t, "Other", "-newkey", "rsa:2048").crt)
	c := newClient(t)
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			name := tc.name
			must(t, storeSecret(t.Context(), tlsSecret(name, tc.ca.crt, tc.ca.key)))
			newSigner(t, c, domain, name, v1alpha1.SignerCA{SecretRef: &v1alpha1.LocalObjectReference{Name: name}})
			ask := own(domain + "/" + name)
			request(t, name, ask)
			csr := outcome(t, name, certificatesv1.CertificateApproved)
			checkCertificate(t, csr, tutorial.Row{Request: ask})

			issued := certificates(t, csr.Status.Certificate)
			if len(issued) != tc.chain || issued[0].SignatureAlgorithm != signedBy[tc.key] {
				t.Errorf("%d certificates were issued, the first signed with %s; want %d, %s", len(issued), issued[0].SignatureAlgorithm, tc.chain, signedBy[tc.key])
			}
			published := bundle(t, name)
			var subjects []string
			for _, anchor := range certificates(t, published) {
				subjects = append(subjects, anchor.Subject.String())
			}
			if diff := cmp.Diff([]string{tc.anchor}, subjects); diff != "" {
				t.Errorf("published (-want +got)\n%s", diff)
			}
			s := awaitSigner(t, c, name, isReady)
			if s.Status.CA == nil || s.Status.CA.Subject != issued[0].Issuer.String() {
				t.Errorf("status.ca is %+v, and the issuer is %s", s.Status.CA, issued[0].Issuer)
			}

			leaf, rest := csr.Status.Certificate, []byte(nil)
			if end := bytes.Index(leaf, []byte("-----END CERTIFICATE-----\n")); end >= 0 {
				end += len("-----END CERTIFICATE-----\n")
				leaf, rest = leaf[:end], leaf[end:]
			}
			anchors, args := file(t, "ca.crt", published), []string(nil)
			if len(rest) > 0 {
				args = []string{"-untrusted", file(t, "chain.pem", rest)}
			}
			args = append(args, file(t, "leaf.pem", leaf))
			for _, also := range [][]string{
				nil,
				{"-purpose", "sslserver"},
				{"-purpose", "sslserver", "-verify_hostname", "my-svc.my-namespace.svc.cluster.local"},
				{"-purpose", "sslserver", "-verify_ip", "10.0.34.2"},
				{"-purpose", "sslserver", "-x509_strict"},
			} {
				if tc.lax && slices.Contains(also, "-x509_strict") {
					continue
				}
				if out, err := verify(t, anchors, append(also, args...)); err != nil {
					t.Errorf("openssl verify %s: %v\n%s", also, err, out)
				}
			}
			for _, tc := range []struct {
				name    string
				anchors string
				also    []string
				says    string
			}{
				{"another CA", other, nil, "unable to get local issuer certificate"},
				{"another use", anchors, []string{"-purpose", "sslclient"}, "certificate purpose"},
				{"another name", anchors, []string{"-verify_hostname", "web.my-namespace.svc.cluster.local"}, "hostname mismatch"},
				{"too late", anchors, []string{"-attime", "4102444800"}, "certificate has expired"},
			} {
				if out, err := verify(t, tc.anchors, append(tc.also, args...)); err == nil || !strings.Contains(out, tc.says) {
					t.Errorf("%s: openssl verify: %v, want %q\n%s", tc.name, err, tc.says, out)
				}
			}
		})
	}
}

var signedBy = map[x509.PublicKeyAlgorithm]x509.SignatureAlgorithm{x509.RSA: x509.SHA256WithRSA, x509.ECDSA: x509.ECDSAWithSHA256}

func isReady(s *v1alpha1.Signer) error {
	if !meta.IsStatusConditionTrue(s.Status.Conditions, v1alpha1.ConditionReady) {
		return errors.New("the Signer is not ready")
	}
	return nil
}

// verify runs openssl verify with these trust anchors only.
func verify(t *testing.T, anchors string, args []string) (string, error) {
	t.Helper()
	return openssl(t, append([]string{"verify", "-no-CApath", "-no-CAstore", "-CAfile", anchors}, args...)...)
}

// openssl runs openssl and returns its output.
func openssl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatalf("this test requires openssl: install it, for example with 'apt-get install openssl': %v", err)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	return string(out), err
}

// toolCA is a CA that a tool wrote: tls.crt and tls.key.
type toolCA struct{ crt, key []byte }

func selfSigned(t *testing.T, commonName string, args ...string) toolCA {
	t.Helper()
	crt, key := filepath.Join(t.TempDir(), "ca.pem"), filepath.Join(t.TempDir(), "ca-key.pem")
	run := append([]string{"req", "-x509", "-noenc", "-days", "3650", "-subj", "/CN=" + commonName, "-keyout", key, "-out", crt}, args...)
	if out, err := openssl(t, run...); err != nil {
		t.Fatalf("openssl %s: %v\n%s", run, err, out)
	}
	return toolCA{read(t, crt), read(t, key)}
}

// intermediate returns a CA below root, followed by root.
func intermediate(t *testing.T, commonName string, root toolCA) toolCA {
	t.Helper()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.WriteFile(in("root.pem"), root.crt, 0o600))
	must(t, os.WriteFile(in("root-key.pem"), root.key, 0o600))
	must(t, os.WriteFile(in("extensions"), []byte("basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"), 0o600))
	for _, args := range [][]string{
		{"req", "-new", "-noenc", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=" + commonName, "-keyout", in("ca-key.pem"), "-out", in("ca.csr")},
		{"x509", "-req", "-in", in("ca.csr"), "-CA", in("root.pem"), "-CAkey", in("root-key.pem"), "-CAcreateserial", "-days", "365", "-extfile", in("extensions"), "-out", in("ca.pem")},
	} {
		if out, err := openssl(t, args...); err != nil {
			t.Fatalf("openssl %s: %v\n%s", args, err, out)
		}
	}
	return toolCA{append(read(t, in("ca.pem")), root.crt...), read(t, in("ca-key.pem"))}
}

// cfsslCA returns the CA of the Kubernetes page: cfssl gencert -initca - | cfssljson -bare ca.
func cfsslCA(t *testing.T) toolCA {
	t.Helper()
	root, err := cluster.Root()
	must(t, err)
	dir := t.TempDir()
	run := func(stdin []byte, name string, args ...string) []byte {
		command := exec.CommandContext(t.Context(), name, args...)
		command.Dir, command.Stdin = dir, bytes.NewReader(stdin)
		var stdout, stderr bytes.Buffer
		command.Stdout, command.Stderr = &stdout, &stderr
		// Ignore the build settings of the user.
		command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
		if err := command.Run(); err != nil {
			t.Fatalf("%s %s: %v\n%s", name, args, err, stderr.Bytes())
		}
		return stdout.Bytes()
	}
	const module = "github.com/cloudflare/cfssl/cmd/"
	run(nil, "go", "build", "-C", filepath.Join(root, "test", "cfssl"), "-o", dir+string(filepath.Separator), module+"cfssl", module+"cfssljson")
	run(run([]byte(pageCA), filepath.Join(dir, "cfssl"), "gencert", "-initca", "-"), filepath.Join(dir, "cfssljson"), "-bare", "ca")
	return toolCA{read(t, filepath.Join(dir, "ca.pem")), read(t, filepath.Join(dir, "ca-key.pem"))}
}

func certificates(t *testing.T, text []byte) []*x509.Certificate {
	t.Helper()
	var all []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		must(t, err)
		all = append(all, certificate)
	}
	if len(all) == 0 {
		t.Fatalf("no certificate in %q", text)
	}
	return all
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	must(t, err)
	return content
}

// file writes a temporary file and returns its path.
func file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, content, 0o600))
	return path
}
