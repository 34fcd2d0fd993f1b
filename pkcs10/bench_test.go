// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import (
	"crypto/x509"
	"encoding/pem"
	"testing"
)

// BenchmarkParse shows Parse beside the least that any approver does: decode, parse, verify. Parse
// reads the request twice, once by itself and once by crypto/x509, and verifies once.
func BenchmarkParse(b *testing.B) {
	for _, file := range []string{"cfssl.pem", "openssl-rsa.pem", "openssl-rsa8192.pem"} {
		data := mustRead(file)
		b.Run("pkcs10/"+file, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(data); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("x509/"+file, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				block, _ := pem.Decode(data)
				csr, err := x509.ParseCertificateRequest(block.Bytes)
				if err != nil {
					b.Fatal(err)
				}
				if err := csr.CheckSignature(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	hostile := hostileRequest("forty bad names").bytes()
	b.Run("pkcs10/refused", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Parse(hostile); err == nil {
				b.Fatal("accepted")
			}
		}
	})
}
