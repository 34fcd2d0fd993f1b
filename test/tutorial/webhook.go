// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package tutorial

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const configurationName = "countersign"

// takeConfiguration takes the configuration of the webhook, as it was applied, out of the cluster:
// there is no network in which the API server could reach a Service.
func (i *Installation) takeConfiguration(ctx context.Context) (err error) {
	configurations := i.Cluster.Clientset().AdmissionregistrationV1().ValidatingWebhookConfigurations()
	if i.configuration, err = configurations.Get(ctx, configurationName, metav1.GetOptions{}); err != nil {
		return err
	}
	return configurations.Delete(ctx, configurationName, metav1.DeleteOptions{})
}

// StartWebhook starts the webhook as its own ServiceAccount, with a certificate in files, and has the API
// server ask it. The configuration is the shipped one, but for the address.
func (i *Installation) StartWebhook(ctx context.Context) error {
	ca, err := newCA("webhook")
	if err != nil {
		return err
	}
	certificate, key, err := ca.issue("127.0.0.1")
	if err != nil {
		return err
	}
	certFile, keyFile := filepath.Join(i.dir, "webhook.crt"), filepath.Join(i.dir, "webhook.key")
	if err := errors.Join(os.WriteFile(certFile, certificate, 0o600), os.WriteFile(keyFile, key, 0o600)); err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	flags := []string{"--webhook-bind-address=" + address, "--tls-cert-file=" + certFile, "--tls-private-key-file=" + keyFile}
	if i.Webhook, err = i.Run(ctx, "webhook", "", flags...); err != nil {
		return err
	}
	if err := i.Webhook.Ready(ctx); err != nil {
		return err
	}
	configuration := i.configuration.DeepCopy()
	configuration.ObjectMeta = metav1.ObjectMeta{Name: configurationName}
	for n := range configuration.Webhooks {
		client := &configuration.Webhooks[n].ClientConfig
		url := "https://" + address + *client.Service.Path
		client.Service, client.URL, client.CABundle = nil, &url, ca.certificatePEM
	}
	configurations := i.Cluster.Clientset().AdmissionregistrationV1().ValidatingWebhookConfigurations()
	if _, err := configurations.Create(ctx, configuration, metav1.CreateOptions{}); err != nil {
		return err
	}
	return i.asked(ctx)
}

// asked waits until the API server asks the webhook: it takes a moment to see the configuration.
func (i *Installation) asked(ctx context.Context) error {
	return Eventually(ctx, wait, func() error {
		broken := []byte(`{"apiVersion": "countersign.dev/v1alpha1", "kind": "ApprovalPolicy", "metadata": {"name": "webhook-probe"},
			"spec": {"match": {"signerNames": ["example.com/probe"]}, "rego": {"package": "probe", "modules": {"probe.rego": "not rego"}}}}`)
		err := i.Cluster.Clientset().CoreV1().RESTClient().Post().AbsPath("/apis/countersign.dev/v1alpha1/approvalpolicies").
			Param("dryRun", "All").Body(broken).SetHeader("Content-Type", "application/json").Do(ctx).Error()
		if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) {
			return nil
		}
		return fmt.Errorf("the webhook has not been asked: %w", err)
	})
}

// StopWebhook has the API server ask no more, and stops the webhook.
func (i *Installation) StopWebhook(ctx context.Context) error {
	err := i.Cluster.Clientset().AdmissionregistrationV1().ValidatingWebhookConfigurations().Delete(ctx, configurationName, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	if i.Webhook != nil {
		err = errors.Join(err, i.Webhook.Stop())
		i.Webhook = nil
	}
	return err
}

// authority is a CA that is made for the occasion.
type authority struct {
	certificate            *x509.Certificate
	key                    *ecdsa.PrivateKey
	certificatePEM, keyPEM []byte
}

func newCA(commonName string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: commonName},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	a := &authority{key: key}
	a.certificatePEM, a.keyPEM, err = sign(template, template, key, key)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(a.certificatePEM)
	a.certificate, err = x509.ParseCertificate(block.Bytes)
	return a, err
}

// issue makes a certificate for a server at an address, and its key, both PEM.
func (a *authority) issue(ip string) (certificate, key []byte, err error) {
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	return sign(&x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: ip}, IPAddresses: []net.IP{net.ParseIP(ip)},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().AddDate(0, 0, 1),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.certificate, own, a.key)
}

// sign returns a certificate for a key, and the key, in PEM.
func sign(template, issuer *x509.Certificate, key, issuerKey *ecdsa.PrivateKey) (certificate, keyPEM []byte, err error) {
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), issuerKey)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}
