// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// WebhookClient is the common name of the certificate that the API server presents to webhooks, as in a cluster of
// kubeadm whose API server uses the certificate of the front proxy.
const WebhookClient = "front-proxy-client"

// WebhookClientCA returns the path of the CA of the certificate that the API server presents to webhooks.
func (c *Cluster) WebhookClientCA() string { return filepath.Join(c.dir, "front-proxy-ca.crt") }

// admissionConfiguration makes the API server present a client certificate to every webhook. docs/operations.md says
// how to do the same with kubeadm. The API server requires an absolute path.
const admissionConfiguration = `apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
  - name: ValidatingAdmissionWebhook
    configuration:
      apiVersion: apiserver.config.k8s.io/v1
      kind: WebhookAdmissionConfiguration
      kubeConfigFile: %q
`

// writeAdmission writes the admission configuration of the API server, and the credentials for webhooks.
func (c *Cluster) writeAdmission() error {
	frontProxy, err := newAuthority()
	if err != nil {
		return err
	}
	certificate, key, err := frontProxy.issue(pkix.Name{CommonName: WebhookClient}, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return err
	}
	kubeconfig := filepath.Join(c.dir, "webhooks.kubeconfig")
	return errors.Join(
		os.WriteFile(c.WebhookClientCA(), frontProxy.pem, 0o600),
		os.WriteFile(filepath.Join(c.dir, "admission.yaml"), fmt.Appendf(nil, admissionConfiguration, kubeconfig), 0o600),
		clientcmd.WriteToFile(clientcmdapi.Config{AuthInfos: map[string]*clientcmdapi.AuthInfo{
			"*": {ClientCertificateData: certificate, ClientKeyData: key},
		}}, kubeconfig),
	)
}
