// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/test/cluster"
)

const configurationName = "countersign"

// removeConfiguration reads the webhook configuration that was applied and deletes it: the API server cannot reach
// the Service that it names.
func (i *Installation) removeConfiguration(ctx context.Context) (err error) {
	configurations := i.Cluster.Clientset().AdmissionregistrationV1().ValidatingWebhookConfigurations()
	if i.configuration, err = configurations.Get(ctx, configurationName, metav1.GetOptions{}); err != nil {
		return err
	}
	return configurations.Delete(ctx, configurationName, metav1.DeleteOptions{})
}

// StartWebhook starts the webhook as its own ServiceAccount, with a certificate from files and client authentication, and
// waits until the API server calls it. The webhook configuration is the shipped one except for the address.
func (i *Installation) StartWebhook(ctx context.Context) error {
	ca, err := NewCA("webhook", nil)
	if err != nil {
		return err
	}
	certificate, key, err := ca.IssueServer("127.0.0.1")
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
	i.webhookFlags = []string{
		"--webhook-bind-address=" + address, "--tls-cert-file=" + certFile, "--tls-private-key-file=" + keyFile,
		"--client-authentication=Required", "--client-ca-file=" + i.Cluster.WebhookClientCA(), "--client-names=" + cluster.WebhookClient,
	}
	if err := i.RestartWebhook(ctx); err != nil {
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
		client.Service, client.URL, client.CABundle = nil, &url, ca.CertificatePEM
	}
	configurations := i.Cluster.Clientset().AdmissionregistrationV1().ValidatingWebhookConfigurations()
	if _, err := configurations.Create(ctx, configuration, metav1.CreateOptions{}); err != nil {
		return err
	}
	return i.waitForWebhook(ctx)
}

// RestartWebhook starts the webhook with the address and the certificate of StartWebhook, for the webhook configuration
// that exists.
func (i *Installation) RestartWebhook(ctx context.Context) (err error) {
	i.Webhook, err = i.Run(ctx, "webhook", "", i.webhookFlags...)
	return err
}

// waitForWebhook waits until the API server calls the webhook. The API server needs a moment to see the configuration.
func (i *Installation) waitForWebhook(ctx context.Context) error {
	return Eventually(ctx, 90*time.Second, func() error {
		broken := []byte(`{"apiVersion": "countersign.dev/v1alpha1", "kind": "ApprovalPolicy", "metadata": {"name": "webhook-probe"},
			"spec": {"match": {"signerNames": ["example.com/probe"]}, "rego": {"package": "probe", "modules": {"probe.rego": "not rego"}}}}`)
		err := i.Cluster.Clientset().CoreV1().RESTClient().Post().AbsPath("/apis/countersign.dev/v1alpha1/approvalpolicies").
			Param("dryRun", "All").Body(broken).SetHeader("Content-Type", "application/json").Do(ctx).Error()
		if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) {
			return nil
		}
		return fmt.Errorf("the API server does not call the webhook: %w", err)
	})
}

// StopWebhook deletes the webhook configuration and stops the webhook.
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
