// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package tutorial

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
)

// The names of the Kubernetes page.
const (
	Namespace   = "my-namespace"
	PodName     = "my-pod"
	ServiceName = "my-svc"
	podIP       = "10.0.34.2"
	serviceIP   = "192.0.2.24"
	human       = "yourname@example.com"
	delegate    = "operator@example.com"
	approver    = "approver@example.com"
	overrider   = "security@example.com"
)

func podDNS(name string) string { return name + "." + Namespace + ".pod.cluster.local" }

func serviceDNS(name, namespace string) string { return name + "." + namespace + ".svc.cluster.local" }

// Outcome is the outcome of a request.
type Outcome struct {
	// Condition is Approved, Denied or RejectedOnCreate. It is empty for a request that stays pending.
	Condition certificatesv1.RequestConditionType
	Reason    string
	// Violations are the IDs of the violations in the message, in order.
	Violations []string
	// Certificate is true if a certificate was issued.
	Certificate bool
}

// Row is one request of the page and its expected outcome.
type Row struct {
	// Name of the CertificateSigningRequest.
	Name string
	// Description says what is requested.
	Description string
	// Pod creates the request with a token that is bound to it. If Pod is empty, User creates it with a client certificate.
	Pod, User string
	Request   Request
	// Before and After run before and after the request is created.
	Before, After func(context.Context, *World) error
	Want          Outcome
	// Warnings are the IDs of the violations that the webhook returns as warnings.
	Warnings []string
	// RejectedOnCreate is true if the webhook, where it runs, rejects the request on creation.
	RejectedOnCreate bool
	// NeedsWebhook is true if the row requires the webhook.
	NeedsWebhook bool
}

// RejectedOnCreate stands for the condition of a request that the webhook rejected on creation.
const RejectedOnCreate certificatesv1.RequestConditionType = "rejected on creation"

// Requester returns the Pod or the user that creates the request, for display.
func (r Row) Requester() string {
	if r.Pod != "" {
		return "pod " + r.Pod
	}
	return r.User
}

// Expected returns the expected outcome in a world.
func (r Row) Expected(w *World) Outcome {
	if w.Webhook && r.RejectedOnCreate {
		return Outcome{Condition: RejectedOnCreate, Reason: r.Want.Reason}
	}
	return r.Want
}

const (
	notAuthorized = "SubjectNotAuthorized"
	notInControl  = "SubjectDoesNotControlKey"
)

func denied(reason string, violations ...string) Outcome {
	return Outcome{Condition: certificatesv1.CertificateDenied, Reason: reason, Violations: violations}
}

var approved = Outcome{Condition: certificatesv1.CertificateApproved, Reason: "PolicyAllowed", Certificate: true}

// Rows returns the requests of the page in order. The first one is honest and is approved.
func Rows() []Row {
	return []Row{
		{
			Name: "my-svc.my-namespace", Description: "its service and pod, by name and address", Pod: PodName,
			Request: Request{
				CommonName: podDNS(PodName), DNSNames: []string{serviceDNS(ServiceName, Namespace), podDNS(PodName)}, IPs: []string{serviceIP, podIP},
			},
			Want: approved,
		},
		{
			Name: "other-pod-name", Description: "another pod's DNS name", Pod: PodName,
			Request:  Request{DNSNames: []string{podDNS("other-pod")}},
			Want:     denied(notAuthorized, "dns-name-not-owned"),
			Warnings: []string{"dns-name-not-owned"},
		},
		{
			Name: "unselected-service", Description: "a Service that does not select the pod", Pod: PodName,
			Request: Request{DNSNames: []string{serviceDNS("web", Namespace)}},
			Want:    denied(notAuthorized, "dns-name-not-owned"),
		},
		{
			Name: "foreign-service", Description: "a Service in another namespace", Pod: PodName,
			Request: Request{DNSNames: []string{serviceDNS("theirs", "other-namespace")}},
			Want:    denied(notAuthorized, "dns-name-not-owned"),
		},
		{
			Name: "external-name", Description: "an ExternalName Service", Pod: PodName,
			Request: Request{DNSNames: []string{serviceDNS("external", Namespace)}},
			Want:    denied(notAuthorized, "dns-name-not-owned"),
		},
		{
			Name: "other-pod-address", Description: "an address of another pod", Pod: PodName,
			Request: Request{DNSNames: []string{podDNS(PodName)}, IPs: []string{"10.0.34.4"}},
			Want:    denied(notAuthorized, "ip-address-not-owned"),
		},
		{
			Name: "node-address", Description: "a node address", Pod: PodName,
			Request: Request{IPs: []string{"10.0.0.11"}},
			Want:    denied(notAuthorized, "ip-address-not-owned"),
		},
		{
			Name: "wildcard", Description: "a wildcard", Pod: PodName,
			Request: Request{DNSNames: []string{"*." + Namespace + ".svc.cluster.local"}},
			Want:    denied(notAuthorized, "wildcard-not-allowed"),
		},
		{
			Name: "replay", Description: "the PKCS#10 bytes of my-pod, replayed", Pod: "other-pod",
			Want: denied(notInControl, "key-used-by-another", "dns-name-not-owned", "ip-address-not-owned"),
		},
		{
			Name: "sibling", Description: "the name of a pod of the same ServiceAccount", Pod: "my-sibling",
			Request: Request{DNSNames: []string{podDNS(PodName)}, IPs: []string{podIP}},
			Want:    denied(notAuthorized, "dns-name-not-owned", "ip-address-not-owned"),
		},
		{
			Name: "recreated", Description: "the token of a pod since recreated under its name", Pod: "short-lived",
			Request: Request{DNSNames: []string{podDNS("short-lived")}, IPs: []string{"10.0.34.5"}},
			// The API server caches for some seconds that a token is valid after its Pod is deleted.
			Before: func(ctx context.Context, w *World) error {
				if err := w.runPod(ctx, "short-lived", "short-lived", "default", "10.0.34.5"); err != nil {
					return err
				}
				if err := w.useToken(ctx, "short-lived"); err != nil {
					return err
				}
				if err := w.DeletePod(ctx, Namespace, "short-lived"); err != nil {
					return err
				}
				return w.runPod(ctx, "short-lived", "short-lived", "default", "10.0.34.5")
			},
			Want: denied(notInControl, "pod-replaced"),
		},
		{
			Name: "human", Description: "my-pod's name, without delegation", User: human,
			Request: Request{DNSNames: []string{podDNS(PodName)}},
			Want:    denied(notInControl, "not-delegated"),
		},
		{
			Name: "delegate", Description: "my-pod's name and address, with delegation", User: delegate,
			Request: Request{DNSNames: []string{podDNS(PodName)}, IPs: []string{podIP}},
			Want:    approved,
		},
		{
			Name: "weak-key", Description: "RSA-1024", Pod: PodName,
			Request: Request{DNSNames: []string{podDNS(PodName)}, Key: weakKey()},
			Want:    denied("WeakKey"), RejectedOnCreate: true,
		},
		{
			Name: "ca", Description: "CA:TRUE", Pod: PodName,
			Request: Request{DNSNames: []string{podDNS(PodName)}, CA: true},
			Want:    denied("CertificateAuthority"), RejectedOnCreate: true,
		},
		{
			Name: "masters", Description: "organization system:masters", Pod: PodName,
			Request: Request{DNSNames: []string{podDNS(PodName)}, Organization: "system:masters"},
			Want:    denied(notAuthorized, "organization-not-allowed"),
		},
		{
			Name: "usages", Description: "usages beyond the profile", Pod: PodName,
			Request: Request{DNSNames: []string{podDNS(PodName)}, Usages: append(slices.Clone(servingUsages), certificatesv1.UsageClientAuth)},
			Want:    denied(notAuthorized, "usage-not-allowed"),
		},
		{
			Name: "no-address-yet", Description: "its address, before it has one", Pod: "starting",
			Request: Request{DNSNames: []string{podDNS("starting")}, IPs: []string{"10.0.34.6"}},
			Before: func(ctx context.Context, w *World) error {
				return w.runPod(ctx, "starting", "starting", "default")
			},
			After: func(ctx context.Context, w *World) error {
				if err := w.waitForEvent(ctx, "no-address-yet", "Held"); err != nil {
					return err
				}
				pod, err := w.SetPodStatus(ctx, w.Pods["starting"], corev1.PodRunning, "10.0.34.6")
				w.Pods["starting"] = pod
				return err
			},
			Want: approved,
		},
		{
			Name: "approved-too-early", Description: "its address; a manual approval is rejected before it has one", Pod: "slow", NeedsWebhook: true,
			Request: Request{DNSNames: []string{podDNS("slow")}, IPs: []string{"10.0.34.7"}},
			Before: func(ctx context.Context, w *World) error {
				return w.runPod(ctx, "slow", "slow", "default")
			},
			After: approveTooEarly,
			Want:  approved, Warnings: []string{"ip-address-unknown"},
		},
		{
			Name: "overridden", Description: "its address; a user with override-policy approves manually", Pod: "slower", NeedsWebhook: true,
			Request: Request{DNSNames: []string{podDNS("slower")}, IPs: []string{"10.0.34.8"}},
			Before: func(ctx context.Context, w *World) error {
				return w.runPod(ctx, "slower", "slower", "default")
			},
			After: func(ctx context.Context, w *World) error {
				if err := w.waitForEvent(ctx, "overridden", "Held"); err != nil {
					return err
				}
				_, err := w.ApproveManually(ctx, overrider, "overridden")
				return err
			},
			Want:     Outcome{Condition: certificatesv1.CertificateApproved, Reason: "KubectlApprove", Certificate: true},
			Warnings: []string{"ip-address-unknown"},
		},
		{
			Name: "not-ours", Description: "a signerName that no policy matches", Pod: PodName,
			Request: Request{DNSNames: []string{podDNS(PodName)}, SignerName: "example.com/unmanaged"},
		},
	}
}

// weakKey returns a key that the approver must reject.
func weakKey() crypto.Signer {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		panic(err)
	}
	return key
}

// approveTooEarly manually approves a held request, which the webhook must reject, and then gives the Pod its
// address.
func approveTooEarly(ctx context.Context, w *World) error {
	if err := w.waitForEvent(ctx, "approved-too-early", "Held"); err != nil {
		return err
	}
	_, err := w.ApproveManually(ctx, approver, "approved-too-early")
	if err == nil {
		return errors.New("the approval was not rejected")
	}
	if !strings.Contains(err.Error(), "ip-address-unknown: address 10.0.34.7 does not belong to Pod") {
		return fmt.Errorf("the rejection does not name the violation: %w", err)
	}
	pod, err := w.SetPodStatus(ctx, w.Pods["slow"], corev1.PodRunning, "10.0.34.7")
	w.Pods["slow"] = pod
	return err
}
