// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"countersign.dev/countersign/approver/review"
)

// PathRequest is the path of the webhook for new CertificateSigningRequests.
const PathRequest = "/validate-certificatesigningrequest"

// requestDeadline bounds the review of a new request. After it, the request is admitted without
// warnings. The timeout of the API server is a little longer.
const requestDeadline = 1500 * time.Millisecond

// OnDenial is the action for a new request that the policies would deny.
type OnDenial string

// The actions of an [OnDenial].
const (
	// Warn admits the request, with a warning for each violation. The approver denies it.
	Warn OnDenial = "warn"
	// Reject rejects the request.
	Reject OnDenial = "reject"
)

// reviewer is implemented by [review.Reviewer].
type reviewer interface {
	Loaded() bool
	Manages(signerName string) bool
	Review(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, clocks review.Clocks) (review.Review, error)
}

// requestHandler reports the violations of a new CertificateSigningRequest to the requester. The
// approver makes the decision.
type requestHandler struct {
	decoder  admission.Decoder
	reviewer reviewer
	onDenial OnDenial
}

// Handle implements admission.Handler.
func (h *requestHandler) Handle(ctx context.Context, req admission.Request) admission.Response {
	var csr certificatesv1.CertificateSigningRequest
	if err := h.decoder.Decode(req, &csr); err != nil {
		return failure(fmt.Errorf("decoding the request: %w", err))
	}
	if !h.reviewer.Manages(csr.Spec.SignerName) {
		return admission.Allowed("")
	}
	// The API server sets these fields to the user that admission reports.
	csr.Spec.Username, csr.Spec.UID, csr.Spec.Groups = req.UserInfo.Username, req.UserInfo.UID, req.UserInfo.Groups
	csr.Spec.Extra = extraOf[certificatesv1.ExtraValue](req.UserInfo.Extra)

	ctx, cancel := context.WithTimeout(ctx, requestDeadline)
	defer cancel()
	reviewed, err := h.reviewer.Review(ctx, &csr, review.Clocks{})
	if err != nil {
		log.FromContext(ctx).Info("a new request is admitted without a review", "signerName", csr.Spec.SignerName, "error", err.Error())
		return admission.Allowed("")
	}
	return answerRequest(reviewed, h.onDenial)
}

// answerRequest returns the answer for a new request that was reviewed.
func answerRequest(reviewed review.Review, onDenial OnDenial) admission.Response {
	consequence := ""
	switch reviewed.Outcome {
	case review.Refuse:
		return deny(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, reviewed.Message)
	case review.Deny:
		if onDenial == Reject {
			return deny(http.StatusForbidden, metav1.StatusReasonForbidden, strings.Join(violationsOf(reviewed), "; "))
		}
		consequence = " (would be denied)"
	case review.Hold:
		consequence = " (held for now)"
	default: // approved or left pending
		return admission.Allowed("")
	}
	var warnings []string
	for _, violation := range violationsOf(reviewed) {
		warnings = append(warnings, warning(violation, consequence))
	}
	return admission.Allowed("").WithWarnings(limitWarnings(warnings)...)
}

// violationsOf returns the violations of the policies that decide, each as "policy: id: message".
func violationsOf(reviewed review.Review) []string {
	var out []string
	for _, e := range reviewed.Evaluations {
		for _, v := range e.Result.Violations {
			out = append(out, e.Policy+": "+v.ID+": "+v.Message)
		}
	}
	return out
}
