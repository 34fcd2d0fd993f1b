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

	"countersign.dev/countersign/approver"
)

// PathRequest is where questions about new CertificateSigningRequests are answered.
const PathRequest = "/validate-certificatesigningrequest"

// requestDeadline is how long a request may be judged before it is made without a word. The API
// server waits a little longer.
const requestDeadline = 4 * time.Second

// OnDenial is what becomes of a new request that policy would deny.
type OnDenial string

// What may become of it.
const (
	// Warn makes the request, with a warning for each violation; the approver denies it.
	Warn OnDenial = "warn"
	// Reject does not make it.
	Reject OnDenial = "reject"
)

// judge is an [approver.Judge].
type judge interface {
	Loaded() bool
	Manages(signerName string) bool
	Judge(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, since time.Time) (approver.Judgement, error)
}

// requestHandler tells who makes a request what stands in its way. The verdict stays the approver's.
type requestHandler struct {
	decoder  admission.Decoder
	judge    judge
	onDenial OnDenial
	now      func() time.Time
}

// Handle implements admission.Handler.
func (h *requestHandler) Handle(ctx context.Context, req admission.Request) admission.Response {
	var csr certificatesv1.CertificateSigningRequest
	if err := h.decoder.Decode(req, &csr); err != nil {
		return fault(fmt.Errorf("decoding the request: %w", err))
	}
	if !h.judge.Manages(csr.Spec.SignerName) {
		return admission.Allowed("")
	}
	// The API server has filled these in, and this is where it says who asks.
	csr.Spec.Username, csr.Spec.UID, csr.Spec.Groups = req.UserInfo.Username, req.UserInfo.UID, req.UserInfo.Groups
	csr.Spec.Extra = extraOf[certificatesv1.ExtraValue](req.UserInfo.Extra)

	ctx, cancel := context.WithTimeout(ctx, requestDeadline)
	defer cancel()
	judgement, err := h.judge.Judge(ctx, &csr, h.now())
	if err != nil {
		log.FromContext(ctx).Info("a new request could not be judged: it is left to the approver", "signerName", csr.Spec.SignerName, "error", err.Error())
		return admission.Allowed("")
	}
	return answerRequest(judgement, h.onDenial)
}

// answerRequest is the answer to who makes a request that is judged so.
func answerRequest(judgement approver.Judgement, onDenial OnDenial) admission.Response {
	decision := judgement.Decision
	if judgement.Refused {
		return deny(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, decision.Message)
	}
	follows := " (is held for now)"
	switch decision.Verdict {
	case approver.Denied:
		follows = " (would be denied)"
	case approver.Held:
	default: // it is approved, or there is no opinion
		return admission.Allowed("")
	}
	texts := violationsOf(judgement)
	if decision.Verdict == approver.Denied && onDenial == Reject {
		return deny(http.StatusForbidden, metav1.StatusReasonForbidden, strings.Join(texts, "; "))
	}
	warnings := make([]string, len(texts))
	for i, text := range texts {
		warnings[i] = warning(text, follows)
	}
	return admission.Allowed("").WithWarnings(atMost(warnings)...)
}

// violationsOf lists what the policies that decide have against a request, each as
// "policy: id: message".
func violationsOf(judgement approver.Judgement) []string {
	var out []string
	for _, e := range judgement.Evaluations {
		for _, v := range e.Result.Violations {
			out = append(out, e.Policy+": "+v.ID+": "+v.Message)
		}
	}
	return out
}
