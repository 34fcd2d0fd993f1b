// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package tutorial

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"countersign.dev/countersign/test/harness"
)

// timeout is the longest time that a verdict or a certificate takes on a busy machine.
const timeout = 90 * time.Second

// Result is the result of the request of a row.
type Result struct {
	Outcome
	// CSR is nil if the request was rejected on creation.
	CSR *certificatesv1.CertificateSigningRequest
	// Message of the condition or of the rejection; empty if the request is pending.
	Message string
	// Warnings that the requester got.
	Warnings []string
	// Notes are the outputs of manual approvals.
	Notes []string
}

// Run creates the request of a row and returns its result.
func (w *World) Run(ctx context.Context, row Row) (Result, error) {
	w.notes = nil
	if row.Before != nil {
		if err := row.Before(ctx, w); err != nil {
			return Result{}, err
		}
	}
	config, err := w.config(ctx, row)
	if err != nil {
		return Result{}, err
	}
	warnings := &warnings{}
	config.WarningHandler = warnings
	request := row.Request
	if row.Name == "replay" {
		request.PKCS10 = w.PKCS10
	}
	csr, key, err := request.Create(ctx, config, row.Name)
	if message, ok := rejection(err); ok {
		reason, _, _ := strings.Cut(message, ":")
		return Result{Outcome: Outcome{Condition: RejectedOnCreate, Reason: reason}, Message: message}, nil
	}
	if err != nil {
		return Result{}, err
	}
	if w.Key == nil {
		w.Key, w.PKCS10 = key, csr.Spec.Request
	}
	if row.After != nil {
		if err := row.After(ctx, w); err != nil {
			return Result{}, err
		}
	}
	if csr, err = w.settle(ctx, csr, row.Want); err != nil {
		return Result{}, err
	}
	result := Result{Outcome: OutcomeOf(csr), CSR: csr, Warnings: warnings.texts, Notes: w.notes}
	if c := Condition(csr, certificatesv1.CertificateFailed, certificatesv1.CertificateDenied, certificatesv1.CertificateApproved); c != nil {
		result.Message = c.Message
	}
	return result, nil
}

// warnings collects the warnings of the API server.
type warnings struct{ texts []string }

// HandleWarningHeader implements rest.WarningHandler.
func (w *warnings) HandleWarningHeader(_ int, _, text string) { w.texts = append(w.texts, text) }

// rejection returns the message of the webhook if an error is its rejection of a new request.
func rejection(err error) (string, bool) {
	const webhook = `admission webhook "certificatesigningrequests.countersign.dev" denied the request: `
	if err == nil {
		return "", false
	}
	_, text, ok := strings.Cut(err.Error(), webhook)
	return text, ok
}

// ApproveManually runs kubectl certificate approve as a user and returns its output.
func (w *World) ApproveManually(ctx context.Context, user, csrName string) (string, error) {
	config, err := w.ConfigFor(user)
	if err != nil {
		return "", err
	}
	out, err := w.KubectlAs(ctx, config, "certificate", "approve", csrName)
	output := strings.TrimSpace(string(out))
	if err != nil {
		output = err.Error()
	}
	w.notes = append(w.notes, user+": "+output)
	return output, err
}

func (w *World) config(ctx context.Context, row Row) (*rest.Config, error) {
	if row.Pod == "" {
		return w.ConfigFor(row.User)
	}
	if token, ok := w.tokens[row.Pod]; ok {
		return w.TokenConfig(token), nil
	}
	token, err := w.PodToken(ctx, w.Pods[row.Pod])
	if err != nil {
		return nil, err
	}
	return w.TokenConfig(token), nil
}

// useToken authenticates once with a token of a Pod. The rows of that Pod then use the same token.
func (w *World) useToken(ctx context.Context, pod string) error {
	token, err := w.PodToken(ctx, w.Pods[pod])
	if err != nil {
		return err
	}
	clientset, err := kubernetes.NewForConfig(w.TokenConfig(token))
	if err != nil {
		return err
	}
	w.tokens[pod] = token
	_, err = clientset.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	return err
}

// settle waits until a request has a verdict and, if it is approved, a certificate. If the request must stay pending,
// settle waits until a request that was created later is issued.
func (w *World) settle(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, want Outcome) (*certificatesv1.CertificateSigningRequest, error) {
	requests := w.Clientset().CertificatesV1().CertificateSigningRequests()
	if want.Condition == "" {
		marker := Row{Name: csr.Name + "-marker", Pod: PodName, Request: Request{DNSNames: []string{podDNS(PodName)}}, Want: approved}
		if _, err := w.Run(ctx, marker); err != nil {
			return nil, err
		}
		return requests.Get(ctx, csr.Name, metav1.GetOptions{})
	}
	err := harness.Eventually(ctx, timeout, func() error {
		got, err := requests.Get(ctx, csr.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		csr = got
		switch verdict := Condition(got, certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed); {
		case verdict == nil:
			return fmt.Errorf("%s has no verdict", csr.Name)
		case verdict.Type == certificatesv1.CertificateApproved && got.Status.Certificate == nil && Condition(got, certificatesv1.CertificateFailed) == nil:
			return fmt.Errorf("%s has no certificate", csr.Name)
		}
		return nil
	})
	return csr, err
}

// violationID matches the ID of a violation in a message, such as "dns-name-not-owned: ".
var violationID = regexp.MustCompile(`(?:^|[ ;])([a-z]+(?:-[a-z]+)+): `)

// OutcomeOf returns the outcome of a request.
func OutcomeOf(csr *certificatesv1.CertificateSigningRequest) Outcome {
	out := Outcome{Certificate: len(csr.Status.Certificate) > 0}
	verdict := Condition(csr, certificatesv1.CertificateFailed)
	if verdict == nil {
		verdict = Condition(csr, certificatesv1.CertificateApproved, certificatesv1.CertificateDenied)
	}
	if verdict == nil {
		return out
	}
	out.Condition, out.Reason = verdict.Type, verdict.Reason
	if verdict.Type == certificatesv1.CertificateDenied {
		for _, match := range violationID.FindAllStringSubmatch(verdict.Message, -1) {
			if !slices.Contains(out.Violations, match[1]) {
				out.Violations = append(out.Violations, match[1])
			}
		}
	}
	return out
}

// Events returns the reasons of the Events about a request.
func (w *World) Events(ctx context.Context, csrName string) ([]string, error) {
	list, err := w.Clientset().EventsV1().Events("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var reasons []string
	for i := range list.Items {
		if event := &list.Items[i]; event.Regarding.Kind == "CertificateSigningRequest" && event.Regarding.Name == csrName {
			reasons = append(reasons, event.Reason)
		}
	}
	return reasons, nil
}

func (w *World) waitForEvent(ctx context.Context, csrName, reason string) error {
	return harness.Eventually(ctx, 25*time.Second, func() error {
		reasons, err := w.Events(ctx, csrName)
		if err == nil && !slices.Contains(reasons, reason) {
			err = fmt.Errorf("no Event %s about %s", reason, csrName)
		}
		return err
	})
}
