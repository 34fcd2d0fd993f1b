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

	"countersign.dev/countersign/approver"
	"countersign.dev/countersign/audit"
	"countersign.dev/countersign/internal/certreq"
)

// PathApproval is where questions about approvals by hand are answered.
const PathApproval = "/validate-approval"

// Verdicts on approvals by hand, as they are on record.
const (
	ApprovalAllowed    = "ApprovalAllowed"
	ApprovalRefused    = "ApprovalRefused"
	ApprovalOverridden = "ApprovalOverridden"
)

// Reasons on record of a verdict on an approval by hand, where it is not that of the decision.
const (
	// ReasonNoPolicyApplies: no policy in mode Enforce is for the request, or every one abstains.
	ReasonNoPolicyApplies = "NoPolicyApplies"
	// ReasonOtherNamespaces: policies enforce for the signer, and none of them for the namespace that
	// the request speaks for, if it speaks for one at all.
	ReasonOtherNamespaces = "OtherNamespaces"
	// ReasonNotJudged: there is no verdict, because of a fault.
	// Example: "the request could not be judged: gathering facts: connection refused".
	ReasonNotJudged = "NotJudged"
	// ReasonPolicyNotLoaded: there is no verdict, because a policy cannot be evaluated.
	// Example: "policy pod-serving is not loaded: see its status".
	ReasonPolicyNotLoaded = "PolicyNotLoaded"
)

// Keys of the annotations in the API server's own audit log, after the name of the webhook.
const (
	annotationDecision  = "decision-id"
	annotationRevisions = "policy-revisions"
	annotationVerdict   = "verdict"
)

const (
	// approvalDeadline is how long an approval may be judged. The API server waits longer, for
	// what comes after.
	approvalDeadline = 6 * time.Second
	// seenDeadline is how far the cache may lag behind a request that is to be approved.
	seenDeadline = 2 * time.Second
)

// approvalHandler guards approvals by hand.
type approvalHandler struct {
	decoder admission.Decoder
	judge   judge
	// seen returns once the cache that the Judge finds requests in is as new as one request, or an error.
	seen   func(context.Context, *certificatesv1.CertificateSigningRequest) error
	access access
	log    *audit.Log
	now    func() time.Time
}

// Handle implements admission.Handler.
func (h *approvalHandler) Handle(ctx context.Context, req admission.Request) admission.Response {
	var csr, old certificatesv1.CertificateSigningRequest
	if err := errors.Join(h.decoder.Decode(req, &csr), h.decoder.DecodeRaw(req.OldObject, &old)); err != nil {
		return fault(fmt.Errorf("decoding the request: %w", err))
	}
	if certreq.IsApproved(&old) || !certreq.IsApproved(&csr) {
		return admission.Allowed("") // denials only narrow
	}
	// The request is judged as it is stored, not as whoever approves it has sent it.
	if h.judge.Loaded() && !h.judge.Manages(old.Spec.SignerName) {
		return admission.Allowed("")
	}
	judgement, err := h.examine(ctx, &old)
	found := find(judgement, err)
	verdict := h.verdict(ctx, req.UserInfo, old.Spec.SignerName, &found)

	record := approver.Record(&old, judgement)
	record.Verdict, record.Reason, record.Message = verdict, found.reason, found.message
	record.By = requesterOf(req.UserInfo)
	annotations := map[string]string{annotationVerdict: verdict, annotationRevisions: revisionsOf(judgement)}
	named := "not recorded, because this is a dry run"
	if req.DryRun == nil || !*req.DryRun {
		if err := h.log.AppendDecision(record); err != nil {
			return deny(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "the approval cannot be recorded, so it is refused: "+err.Error())
		}
		annotations[annotationDecision] = record.ID
		named = "decision " + record.ID
	}
	approvals.WithLabelValues(verdict).Inc()

	var response admission.Response
	switch verdict {
	case ApprovalRefused:
		response = deny(http.StatusForbidden, metav1.StatusReasonForbidden, found.message+"; "+named+"; "+found.override(old.Spec.SignerName))
	case ApprovalOverridden:
		response = admission.Allowed("").WithWarnings(warning("policy is overridden: "+found.message, "; "+named))
	default:
		response = admission.Allowed("")
	}
	response.AuditAnnotations = annotations
	return response
}

// verdict is what becomes of an approval. Why it could not be found out who may override policy is
// added to what was found.
func (h *approvalHandler) verdict(ctx context.Context, user authenticationv1.UserInfo, signerName string, found *finding) string {
	switch {
	case found.allowed:
		return ApprovalAllowed
	case found.final:
		return ApprovalRefused
	}
	may, err := h.access.maySigner(ctx, user, VerbOverridePolicy, signerName)
	if err != nil {
		found.message += "; who may override policy could not be found out: " + err.Error()
	}
	if err == nil && may {
		return ApprovalOverridden
	}
	return ApprovalRefused
}

// examine judges a request that is to be approved.
func (h *approvalHandler) examine(ctx context.Context, csr *certificatesv1.CertificateSigningRequest) (approver.Judgement, error) {
	if !h.judge.Loaded() {
		return approver.Judgement{}, errors.New("policies have not been loaded yet")
	}
	ctx, cancel := context.WithTimeout(ctx, approvalDeadline)
	defer cancel()
	if err := h.seen(ctx, csr); err != nil {
		return approver.Judgement{}, err
	}
	return h.judge.Judge(ctx, csr, h.now())
}

// finding is what a judgement means for an approval.
type finding struct {
	allowed bool
	// final says that nobody may override it: it is not policy that refuses.
	final           bool
	reason, message string
}

// override says who may approve nevertheless.
func (f finding) override(signerName string) string {
	if f.final {
		return "no one may approve it: it is not policy that refuses it"
	}
	return fmt.Sprintf("only who has the verb %s on signer %s may approve it nevertheless", VerbOverridePolicy, signerName)
}

// find says whether a request that is judged so may be approved by hand. err says that it could not be judged.
func find(judgement approver.Judgement, err error) finding {
	decision := judgement.Decision
	switch {
	case err != nil:
		return finding{reason: ReasonNotJudged, message: "the request could not be judged: " + err.Error()}
	case judgement.NotLoaded != "":
		return finding{reason: ReasonPolicyNotLoaded, message: fmt.Sprintf("policy %s is not loaded: see its status", judgement.NotLoaded)}
	case decision.Verdict == approver.Approved:
		return finding{allowed: true, reason: decision.Reason, message: decision.Message}
	case judgement.Elsewhere:
		return finding{reason: ReasonOtherNamespaces, message: "every policy for this signer is for namespaces that the request does not speak for"}
	case decision.Verdict == approver.NoOpinion:
		return finding{allowed: true, reason: ReasonNoPolicyApplies, message: "no policy that enforces applies to the request"}
	}
	return finding{final: judgement.Refused, reason: decision.Reason, message: decision.Message}
}

// revisionsOf names the policies that decide, each as name=revision.
func revisionsOf(judgement approver.Judgement) string {
	out := make([]string, len(judgement.Evaluations))
	for i, e := range judgement.Evaluations {
		out[i] = fmt.Sprintf("%s=%.12s", e.Policy, e.Revision)
	}
	return strings.Join(out, ",")
}

func requesterOf(user authenticationv1.UserInfo) *audit.Requester {
	return &audit.Requester{Username: user.Username, UID: user.UID, Groups: user.Groups, Extra: extraOf[[]string](user.Extra)}
}

// seenBy waits until a cache has a request. What was made before the request is in it then, too: the
// first to show a key among it.
func seenBy(cached client.Reader) func(context.Context, *certificatesv1.CertificateSigningRequest) error {
	return func(ctx context.Context, csr *certificatesv1.CertificateSigningRequest) error {
		var reading error
		err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, seenDeadline, true, func(ctx context.Context) (bool, error) {
			var known certificatesv1.CertificateSigningRequest
			reading = cached.Get(ctx, types.NamespacedName{Name: csr.Name}, &known)
			return reading == nil && known.UID == csr.UID, nil
		})
		if err == nil {
			return nil
		}
		return errors.Join(fmt.Errorf("the cache of requests is not as new as the request: try again: %w", err), reading)
	}
}
