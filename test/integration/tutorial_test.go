// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package integration tests the shipped binaries, manifests and policies against a real API server. Each process runs
// with the credentials and the RBAC of its own ServiceAccount.
package integration

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/test/harness"
	"countersign.dev/countersign/test/tutorial"
)

var (
	installation *harness.Installation
	world        *tutorial.World
)

func TestMain(m *testing.M) {
	harness.Main(m, 30*time.Minute, func(ctx context.Context, i *harness.Installation) (err error) {
		installation = i
		world, err = tutorial.NewWorld(ctx, i.Cluster, os.Stderr)
		return err
	})
}

// TestTutorial creates every request of the tutorial and asserts its outcome.
func TestTutorial(t *testing.T) {
	for _, row := range tutorial.Rows() {
		if row.NeedsWebhook {
			continue // see TestWebhookTutorial
		}
		t.Run(row.Name, func(t *testing.T) { runRow(t, row) })
	}
	if t.Failed() {
		return
	}
	csr := first(t)
	name := tutorial.ServiceName + "." + tutorial.Namespace + ".svc.cluster.local"
	answer, err := world.Serve(t.Context(), csr.Status.Certificate, world.Key, name)
	if err != nil || answer != "hello from "+name {
		t.Errorf("a client that trusts the published ConfigMap got %q, %v", answer, err)
	}
	if _, err := world.Serve(t.Context(), csr.Status.Certificate, world.Key, "web."+tutorial.Namespace+".svc.cluster.local"); err == nil {
		t.Error("the certificate is valid for a name that was not requested")
	} else if cause := (x509.HostnameError{}); !errors.As(err, &cause) {
		t.Errorf("got %v, want a x509.HostnameError", err)
	}
}

// runRow creates the request of a row and asserts its outcome.
func runRow(t *testing.T, row tutorial.Row) {
	t.Helper()
	got, err := world.Run(t.Context(), row)
	if err != nil {
		t.Fatal(err)
	}
	want := row.Expected(world)
	if diff := cmp.Diff(want, got.Outcome); diff != "" {
		t.Errorf("(-want +got)\n%s%s", diff, got.Message)
	}
	manual := want.Reason == "KubectlApprove"
	if got.CSR != nil && want.Condition != "" && !manual {
		// An event that comes before the cache has the verdict makes a second record, whose write is a conflict.
		named := func(d audit.Decision) bool { return d.Request.Name == row.Name && strings.Contains(got.Message, d.ID) }
		if !slices.ContainsFunc(decisionsIn(t, installation.Approver.Log), named) {
			t.Errorf("the message does not name a recorded decision: %s", got.Message)
		}
	}
	events, err := world.Events(t.Context(), row.Name)
	if err != nil {
		t.Fatal(err)
	}
	if want.Condition == "" && (len(got.CSR.Status.Conditions) > 0 || len(events) > 0 || len(got.CSR.Annotations) > 0) {
		t.Errorf("a request that is not ours was touched: %+v, Events %v", got.CSR.Status, events)
	}
	if want.Certificate {
		checkCertificate(t, got.CSR, row)
	}
	if !world.Webhook {
		row.Warnings = nil
	}
	if len(got.Warnings) < len(row.Warnings) || world.Webhook == false && len(got.Warnings) > 0 {
		t.Errorf("warnings %q, want some of %v", got.Warnings, row.Warnings)
	}
	for i, id := range row.Warnings {
		if err := contains(got.Warnings[i], "pod-serving", id); err != nil {
			t.Errorf("warning %d: %v", i+1, err)
		}
	}
}

// checkCertificate asserts that the certificate has the key of the request, and no more than was requested.
func checkCertificate(t *testing.T, csr *certificatesv1.CertificateSigningRequest, row tutorial.Row) {
	t.Helper()
	block, _ := pem.Decode(csr.Status.Certificate)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	block, _ = pem.Decode(csr.Spec.Request)
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(certificate.RawSubjectPublicKeyInfo, request.RawSubjectPublicKeyInfo) {
		t.Error("the certificate is for another key")
	}
	if diff := cmp.Diff(row.Request.DNSNames, certificate.DNSNames); diff != "" {
		t.Error(diff)
	}
	var ips []string
	for _, ip := range certificate.IPAddresses {
		ips = append(ips, ip.String())
	}
	if diff := cmp.Diff(row.Request.IPs, ips); diff != "" {
		t.Error(diff)
	}
	if certificate.IsCA || certificate.Subject.CommonName != row.Request.CommonName {
		t.Errorf("got CA %v, subject %s", certificate.IsCA, certificate.Subject)
	}
	if diff := cmp.Diff([]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, certificate.ExtKeyUsage); diff != "" {
		t.Error(diff)
	}
	if lifetime := time.Until(certificate.NotAfter); lifetime > 24*time.Hour || lifetime < 23*time.Hour {
		t.Errorf("valid for %s, want the Signer's 24h", lifetime)
	}
}

// first returns the first request of the tutorial.
func first(t *testing.T) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	csr, err := world.Clientset().CertificatesV1().CertificateSigningRequests().Get(t.Context(), tutorial.Rows()[0].Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// TestVerdictsLeaveMetadataAlone checks that a verdict does not change labels, annotations, owners and finalizers of a
// request.
func TestVerdictsLeaveMetadataAlone(t *testing.T) {
	ctx := t.Context()
	token, err := world.PodToken(ctx, world.Pods[tutorial.PodName])
	must(t, err)
	clientset, err := kubernetes.NewForConfig(world.TokenConfig(token))
	must(t, err)
	for _, tc := range []struct{ name, dns string }{
		{"metadata-approved", "my-pod.my-namespace.pod.cluster.local"},
		{"metadata-denied", "example.com"},
	} {
		name, dns := tc.name, tc.dns
		request, _, err := tutorial.Request{DNSNames: []string{dns}}.PEM()
		must(t, err)
		before, err := clientset.CertificatesV1().CertificateSigningRequests().Create(ctx, &certificatesv1.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{
				Name: name, Labels: map[string]string{"owner": "team-a"}, Annotations: map[string]string{"example.com/ticket": "OPS-1"},
				Finalizers:      []string{"example.com/keep"},
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "node-1", UID: nodeUID(t, "node-1")}},
			},
			Spec: certificatesv1.CertificateSigningRequestSpec{
				Request: request, SignerName: tutorial.SignerName, Usages: []certificatesv1.KeyUsage{"digital signature", "server auth"},
			},
		}, metav1.CreateOptions{})
		must(t, err)
		verdict(t, name)
		if name == "metadata-approved" {
			outcome(t, name, certificatesv1.CertificateApproved) // the signer wrote to it too
		}
		after, err := world.Clientset().CertificatesV1().CertificateSigningRequests().Get(ctx, name, metav1.GetOptions{})
		must(t, err)
		ignored := cmpopts.IgnoreFields(metav1.ObjectMeta{}, "ResourceVersion", "ManagedFields")
		if diff := cmp.Diff(before.ObjectMeta, after.ObjectMeta, ignored); diff != "" {
			t.Errorf("%s (-before +after):\n%s", name, diff)
		}
		atEnd := fmt.Sprintf(`{"metadata": {"resourceVersion": %q, "finalizers": []}}`, after.ResourceVersion)
		kubectl(t, "patch", "csr", name, "--type=merge", "-p", atEnd)
	}
}

func nodeUID(t *testing.T, name string) types.UID {
	t.Helper()
	node, err := world.Clientset().CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	must(t, err)
	return node.UID
}
