// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package tutorial

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/test/harness"
)

// Serve runs a TLS server with an issued certificate (a PEM chain) and its key. A client that trusts only the CA in the
// ConfigMap that the signer publishes in the namespace of the Pod connects to it. Serve returns the body that it reads.
func (w *World) Serve(ctx context.Context, chain []byte, key crypto.Signer, serverName string) (string, error) {
	certificate := tls.Certificate{PrivateKey: key}
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		certificate.Certificate = append(certificate.Certificate, block.Bytes)
	}
	roots := x509.NewCertPool()
	err := harness.Eventually(ctx, timeout, func() error {
		configMap, err := w.Clientset().CoreV1().ConfigMaps(Namespace).Get(ctx, "example-serving-ca", metav1.GetOptions{})
		if err == nil && !roots.AppendCertsFromPEM([]byte(configMap.Data["ca.crt"])) {
			err = errors.New("ConfigMap example-serving-ca holds no certificate under ca.crt")
		}
		return err
	})
	if err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed below
	if err != nil {
		return "", err
	}
	server := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13},
		Handler: http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			fmt.Fprintf(response, "hello from %s", request.TLS.ServerName)
		}),
	}
	defer server.Close() //nolint:errcheck // the response was read
	go func() { _ = server.ServeTLS(listener, "", "") }()

	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, listener.Addr().String()) // in place of the cluster's DNS
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+serverName+"/", nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(response.Body)
	return string(body), err
}
