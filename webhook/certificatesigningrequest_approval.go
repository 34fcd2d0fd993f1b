// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"countersign.dev/countersign/approver/review"
	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/internal/certreq"
)

// PathApproval is the path of the webhook for the subresource approval.
const PathApproval = "/validate-approval"

// Keys of the annotations in the audit log of the API server, after the name of the webhook.
const (
	annotationDecision  = "decision-id"
	annotationRevisions = "policy-revisions"
	annotationVerdict   = "verdict"
)

const (
	// approvalDeadline bounds the review of an approval. The timeout of the API server is longer,
	// for the steps after the review.
	approvalDeadline = 6 * time.Second
	// cacheDeadline bounds the wait for the cache to contain the request.
	cacheDeadline = 2 * time.Second
)

// approvalHandler rejects manual approvals that the policies do not allow.
type approvalHandler struct {
	decoder  admission.Decoder
	reviewer reviewer
	// awaitCache returns once the cache of the Reviewer contains the request, or with an error.
	awaitCache func(context.Context, *certificatesv1.CertificateSigningRequest) error
	access     access
	log        *audit.Log
}

// Handle implements admission.Handler.
func (h *approvalHandler) Handle(ctx context.Context, req admission.Request) admission.Response {
	var csr, old certificatesv1.CertificateSigningRequest
	if err := errors.Join(h.decoder.Decode(req, &csr), h.decoder.DecodeRaw(req.OldObject, &old)); err != nil {
		return failure(fmt.Errorf("decoding the request: %w", err))
	}
	if certreq.IsApproved(&old) || !certreq.IsApproved(&csr) {
		return admission.Allowed("") // a denial approves nothing
	}
	// The stored object is reviewed, not the one that the approving user has sent.
	if h.reviewer.Loaded() && !h.reviewer.Manages(old.Spec.SignerName) {
		return admission.Allowed("")
	}
	reviewed, err := h.review(ctx, &old)
	found := findingOf(reviewed, err)
	verdict := h.verdict(ctx, req.UserInfo, old.Spec.SignerName, &found)
	annotations := map[string]string{annotationVerdict: verdict, annotationRevisions: revisionsOf(reviewed)}
	recorded := "not recorded, because this is a dry run"
	if req.DryRun == nil || !*req.DryRun {
		record := review.Record(&old, reviewed)
		record.Verdict, record.Reason, record.Message = verdict, found.reason, found.message
		record.By = requesterOf(req.UserInfo)
		if err := h.log.AppendDecision(record); err != nil {
			return deny(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "the approval cannot be recorded: "+err.Error())
		}
		annotations[annotationDecision] = record.ID
		recorded = "decision " + record.ID
	}
	approvals.WithLabelValues(verdict).Inc()
	response := answerApproval(verdict, found, recorded, old.Spec.SignerName)
	response.AuditAnnotations = annotations
	return response
}

// answerApproval returns the answer for an approval with a verdict.
func answerApproval(verdict string, found finding, recorded, signerName string) admission.Response {
	switch verdict {
	case ApprovalRefused:
		return deny(http.StatusForbidden, metav1.StatusReasonForbidden, found.message+"; "+recorded+"; "+found.override(signerName))
	case ApprovalOverridden:
		return admission.Allowed("").WithWarnings(warning("the policies are overridden: "+found.message, "; "+recorded))
	default:
		return admission.Allowed("")
	}
}

// verdict returns the verdict on an approval. If the authorizer fails, it adds the error to the message.
func (h *approvalHandler) verdict(ctx context.Context, user authenticationv1.UserInfo, signerName string, found *finding) string {
	switch {
	case found.allowed:
		return ApprovalAllowed
	case found.final:
		return ApprovalRefused
	}
	allowed, err := h.access.signer(ctx, user, VerbOverridePolicy, signerName)
	switch {
	case err != nil:
		found.message += "; checking the verb " + VerbOverridePolicy + " failed: " + err.Error()
		return ApprovalRefused
	case allowed:
		return ApprovalOverridden
	}
	return ApprovalRefused
}

// review reviews a request that is about to be approved.
func (h *approvalHandler) review(ctx context.Context, csr *certificatesv1.CertificateSigningRequest) (review.Review, error) {
	if !h.reviewer.Loaded() {
		return review.Review{}, errors.New("policies have not been loaded yet")
	}
	ctx, cancel := context.WithTimeout(ctx, approvalDeadline)
	defer cancel()
	if err := h.awaitCache(ctx, csr); err != nil {
		return review.Review{}, err
	}
	return h.reviewer.Review(ctx, csr, review.Clocks{})
}

// finding is the effect of a review on a manual approval.
type finding struct {
	allowed bool
	// final means that the rejection cannot be overridden.
	final           bool
	reason, message string
}

// override says how to override a rejection.
func (f finding) override(signerName string) string {
	if f.final {
		return "no policy can allow this request, so it cannot be overridden"
	}
	return fmt.Sprintf("overriding the policy requires the verb %q on signer %q", VerbOverridePolicy, signerName)
}

// findingOf returns the finding for a review. err is the error of the review.
func findingOf(reviewed review.Review, err error) finding {
	if err != nil {
		return finding{reason: ReasonNotReviewed, message: "the request could not be reviewed: " + err.Error()}
	}
	f := finding{reason: reviewed.Reason, message: reviewed.Message}
	switch reviewed.Outcome {
	case review.Approve:
		f.allowed = true
	case review.Refuse:
		f.final = true
	case review.NotLoaded:
		f = finding{reason: ReasonPolicyNotLoaded, message: fmt.Sprintf("policy %s is not loaded: see its status", reviewed.NotLoaded)}
	case review.OtherNamespaces:
		f = finding{reason: ReasonOtherNamespaces, message: "no policy for this signer selects the namespace of the request"}
	case review.NoOpinion, review.NotMatched:
		f = finding{allowed: true, reason: ReasonNoPolicyApplies, message: "no policy in mode Enforce applies to the request"}
	case review.Deny, review.Hold:
	}
	return f
}

// revisionsOf returns the policies that decide, each as "name=revision".
func revisionsOf(reviewed review.Review) string {
	out := make([]string, len(reviewed.Evaluations))
	for i, e := range reviewed.Evaluations {
		out[i] = fmt.Sprintf("%s=%.12s", e.Policy, e.Revision)
	}
	return strings.Join(out, ",")
}

func requesterOf(user authenticationv1.UserInfo) *audit.Requester {
	return &audit.Requester{Username: user.Username, UID: user.UID, Groups: user.Groups, Extra: extraOf[[]string](user.Extra)}
}

// cacheContains returns a function that waits until a cache contains a request. The cache then also
// contains all requests that were created before it, such as the first one with the same key.
func cacheContains(cached client.Reader) func(context.Context, *certificatesv1.CertificateSigningRequest) error {
	return func(ctx context.Context, csr *certificatesv1.CertificateSigningRequest) error {
		var readErr error
		err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, cacheDeadline, true, func(ctx context.Context) (bool, error) {
			var stored certificatesv1.CertificateSigningRequest
			readErr = cached.Get(ctx, types.NamespacedName{Name: csr.Name}, &stored)
			return readErr == nil && stored.UID == csr.UID, nil
		})
		if err == nil {
			return nil
		}
		return errors.Join(fmt.Errorf("the cache does not contain the request yet, try again: %w", err), readErr)
	}
}
