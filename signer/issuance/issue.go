// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package issuance

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"sync/atomic"

	"countersign.dev/countersign/pkcs10"
)

// Issuance is a linted certificate that can be signed once. Only [Prepare] makes one.
type Issuance struct {
	*draft
	tbs  []byte // the linted bytes: the DER of a TBSCertificate
	used atomic.Bool
}

// Request returns the request that the certificate is for. Callers must not change it.
func (i *Issuance) Request() *pkcs10.Request { return i.expected.request }

// Template returns the template of the certificate. Callers must not change it.
func (i *Issuance) Template() *x509.Certificate { return i.template }

// Issue signs the certificate. It returns the value of status.certificate, which is the certificate and
// the CA's chain without the root in PEM, and the parsed certificate. It works once. ctx cancels the
// signature of a remote key.
func (i *Issuance) Issue(ctx context.Context) ([]byte, *x509.Certificate, error) {
	if i == nil || i.draft == nil {
		return nil, nil, errors.New("issuing: not prepared")
	}
	if i.used.Swap(true) {
		return nil, nil, errors.New("issuing: already issued")
	}
	der, err := i.ca.Sign(ctx, i.template, i.expected.request.PublicKey, i.tbs)
	if err != nil {
		return nil, nil, fmt.Errorf("issuing: %w", err)
	}
	// x509.CreateCertificate has verified the signature with the public key of the CA.
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("parsing the issued certificate: %w", err)
	}
	var chain bytes.Buffer
	for _, c := range append([]*x509.Certificate{certificate}, i.ca.Chain()...) {
		if err := pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}); err != nil {
			return nil, nil, fmt.Errorf("encoding the issued certificate: %w", err)
		}
	}
	return chain.Bytes(), certificate, nil
}
