// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
)

// ClientAuthentication is the setting for which clients can send requests.
type ClientAuthentication string

// The values of a [ClientAuthentication].
const (
	// Required accepts clients with a certificate of [Options.ClientCAFile] and a name of [Options.ClientNames].
	Required ClientAuthentication = "Required"
	// None accepts all clients.
	None ClientAuthentication = "None"
)

// clients returns the options of TLS that authenticate clients.
func (o *Options) clients() (func(*tls.Config), error) {
	switch {
	case o.ClientAuthentication == None && (o.ClientCAFile != "" || len(o.ClientNames) > 0):
		return nil, errors.New("--client-authentication=None: remove --client-ca-file and --client-names, or set --client-authentication=Required")
	case o.ClientAuthentication == None:
		return func(*tls.Config) {}, nil
	case o.ClientAuthentication != Required:
		return nil, fmt.Errorf("--client-authentication %q: must be Required or None", o.ClientAuthentication)
	case o.ClientCAFile == "":
		return nil, errors.New("--client-authentication=Required: set --client-ca-file to the CA of the client certificate of the API server " +
			"(docs/operations.md says how the API server gets one). Or set --client-authentication=None, and restrict the port to the API server with a NetworkPolicy")
	}
	raw, err := os.ReadFile(o.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("--client-ca-file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("--client-ca-file %s: the file contains no certificate", o.ClientCAFile)
	}
	names := slices.Clone(o.ClientNames)
	return func(c *tls.Config) {
		c.ClientCAs, c.ClientAuth = roots, tls.RequireAndVerifyClientCert
		c.VerifyConnection = func(state tls.ConnectionState) error { return checkName(names, state.PeerCertificates) }
	}, nil
}

// checkName returns an error if names is not empty and does not contain the common name of the first certificate.
func checkName(names []string, certificates []*x509.Certificate) error {
	if len(names) == 0 {
		return nil
	}
	if len(certificates) == 0 {
		return errors.New("the client has no certificate")
	}
	if name := certificates[0].Subject.CommonName; !slices.Contains(names, name) {
		return fmt.Errorf("the client %q is not one of --client-names", name)
	}
	return nil
}
