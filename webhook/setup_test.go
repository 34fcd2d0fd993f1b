// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestOptions(t *testing.T) {
	dir := t.TempDir()
	ca, junk := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "junk")
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name     string
		change   func(*Options)
		err      string
		username string
	}{
		{name: "as they are by default", username: "system:serviceaccount:ns:countersign-approver"},
		{
			name:   "another approver",
			change: func(o *Options) { o.ApproverUsername = "jane" }, username: "jane",
		},
		{
			name:   "a client CA",
			change: func(o *Options) { o.ClientAuthentication, o.ClientCAFile = Required, ca }, username: "system:serviceaccount:ns:countersign-approver",
		},
		{name: "an invalid client CA", change: func(o *Options) { o.ClientAuthentication, o.ClientCAFile = Required, junk }, err: "the file contains no certificate"},
		{name: "no client CA", change: func(o *Options) { o.ClientAuthentication = Required }, err: "--client-authentication=Required: set --client-ca-file"},
		{name: "client authentication not set", change: func(o *Options) { o.ClientAuthentication = "" }, err: `--client-authentication "": must be Required or None`},
		{name: "a client CA without authentication", change: func(o *Options) { o.ClientCAFile = ca }, err: "--client-authentication=None: remove --client-ca-file"},
		{name: "names without authentication", change: func(o *Options) { o.ClientNames = []string{"x"} }, err: "--client-authentication=None: remove --client-ca-file"},
		{name: "a certificate without a key", change: func(o *Options) { o.CertFile = "tls.crt" }, err: "--tls-cert-file and --tls-private-key-file: set both or neither"},
		{name: "files that do not exist", change: func(o *Options) { o.CertFile, o.KeyFile = "/no/crt", "/no/key" }, err: "reading --tls-cert-file and --tls-private-key-file"},
		{name: "no signer and no files", change: func(o *Options) { o.ServingSigner = "" }, err: "without certificate files, --serving-signer, --service-name and --ca-bundle-configmap must be set"},
		{name: "no port", change: func(o *Options) { o.BindAddress = "localhost" }, err: "--webhook-bind-address: address localhost: missing port in address"},
		{name: "an invalid port", change: func(o *Options) { o.BindAddress = ":https" }, err: `--webhook-bind-address ":https": the port must be a number from 1 to 65535`},
		{name: "port 0", change: func(o *Options) { o.BindAddress = ":0" }, err: `--webhook-bind-address ":0": the port must be a number from 1 to 65535`},
		{name: "an unknown action for a denial", change: func(o *Options) { o.OnDenial = "cry" }, err: `--on-denial "cry": must be warn or reject`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := Options{Namespace: "ns", ClusterDomain: "cluster.local", BindAddress: ":9443", OnDenial: Warn, ClientAuthentication: None, ServingSigner: "countersign.dev/webhook", ServiceName: "countersign-webhook", CABundleConfigMap: "countersign-webhook-ca"}
			if tc.change != nil {
				tc.change(&o)
			}
			s, err := New(o)
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Fatalf("%v, want %q", err, tc.err)
			}
			if err != nil {
				return
			}
			if s.options.ApproverUsername != tc.username {
				t.Errorf("approver %q", s.options.ApproverUsername)
			}
			if got := s.options.servingCertificate().DNSNames; !slices.Equal(got, []string{"countersign-webhook.ns.svc"}) {
				t.Errorf("requests a certificate for %q", got)
			}
		})
	}
}
