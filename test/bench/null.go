// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"os"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	nullName   = "null"
	nullSigner = "example.com/null"
	// nullWorkers is the default number of workers of approver and signer.
	nullWorkers = 32
)

// nullCommand approves every request for nullSigner and writes the same certificate to each.
func nullCommand(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench null", flag.ContinueOnError)
	kubeconfig := fs.String("kubeconfig", "", "`path` of a kubeconfig file.")
	if err := fs.Parse(args); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.ContentType, config.AcceptContentTypes = -1, protobuf, protobuf
	return approveAll(ctx, config)
}

func approveAll(ctx context.Context, config *rest.Config) error {
	clientset, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	certificate, err := anyCertificate()
	if err != nil {
		return err
	}
	work := make(chan *certificatesv1.CertificateSigningRequest, 1<<16)
	informer := informerOf(clientset.CertificatesV1().RESTClient(), nullSigner)
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(object any) {
		if csr, ok := object.(*certificatesv1.CertificateSigningRequest); ok && len(csr.Status.Conditions) == 0 {
			work <- csr
		}
	}}); err != nil {
		return err
	}
	var workers sync.WaitGroup
	for range nullWorkers {
		workers.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case csr := <-work:
					approveAndIssue(ctx, clientset, csr, certificate)
				}
			}
		})
	}
	informer.RunWithContext(ctx)
	workers.Wait()
	if ctx.Err() == nil {
		return errors.New("the informer stopped")
	}
	return nil
}

// approveAndIssue approves a request and writes a certificate to it. If a write fails, the request stays as it is and
// the load reports it.
func approveAndIssue(ctx context.Context, clientset kubernetes.Interface, csr *certificatesv1.CertificateSigningRequest, certificate []byte) {
	requests := clientset.CertificatesV1().CertificateSigningRequests()
	csr = csr.DeepCopy()
	csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Null", Message: "nothing was checked",
	}}
	approved, err := requests.UpdateApproval(ctx, csr.Name, csr, metav1.UpdateOptions{})
	if err == nil {
		approved.Status.Certificate = certificate
		_, err = requests.UpdateStatus(ctx, approved, metav1.UpdateOptions{})
	}
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, csr.Name, err)
	}
}

func anyCertificate() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: nullName}, DNSNames: []string{"null.example.com"},
		NotBefore: time.Now(), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}
