// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver"
	"countersign.dev/countersign/internal/certreq"
)

// PathApprovalPolicy is where questions about ApprovalPolicies are answered.
const PathApprovalPolicy = "/validate-approvalpolicy"

// fixes say what to do about what is wrong, by the reason, where the fault itself does not.
var fixes = map[string]string{
	v1alpha1.ReasonInvalidRego:       "mend these lines and apply again; docs/input.md lists the fields of input",
	v1alpha1.ReasonInvalidParameters: "set spec.parameters as the policy's parameters.schema.json asks",
	v1alpha1.ReasonTestsFailed:       "mend the policy, or the tests that expect otherwise",
}

// policyHandler tries what an ApprovalPolicy names as the approver would.
type policyHandler struct {
	decoder admission.Decoder
	loader  approver.Loader // reads ConfigMaps live
	cached  client.Reader   // of Namespaces and Signers
	access  access
	// approver is who would approve by the policy.
	approver authenticationv1.UserInfo
}

// Handle implements admission.Handler.
func (h *policyHandler) Handle(ctx context.Context, req admission.Request) admission.Response {
	var policy v1alpha1.ApprovalPolicy
	if err := h.decoder.Decode(req, &policy); err != nil {
		return fault(fmt.Errorf("decoding the policy: %w", err))
	}
	if req.Operation == admissionv1.Update {
		var old v1alpha1.ApprovalPolicy
		if err := h.decoder.DecodeRaw(req.OldObject, &old); err != nil {
			return fault(fmt.Errorf("decoding the policy as it was: %w", err))
		}
		// What is wrong with a policy must not keep its labels and finalizers from being changed.
		if policy.DeletionTimestamp != nil || equality.Semantic.DeepEqual(old.Spec, policy.Spec) {
			return admission.Allowed("")
		}
	}
	causes, warnings, err := h.try(ctx, &policy)
	switch {
	case err != nil:
		return fault(err)
	case len(causes) > 0:
		return invalid(&policy, causes).WithWarnings(warnings...)
	}
	return admission.Allowed("").WithWarnings(atMost(append(warnings, h.warnings(ctx, &policy)...))...)
}

// try tries the source of the policy and of its candidate, and says what is wrong with each. The
// error is a fault of the API server, or of this machine.
func (h *policyHandler) try(ctx context.Context, policy *v1alpha1.ApprovalPolicy) (causes []metav1.StatusCause, warnings []string, err error) {
	fields := []string{"spec.rego"}
	if policy.Spec.Candidate != nil {
		fields = append(fields, "spec.candidate.rego")
	}
	for i, field := range fields {
		source, err := h.loader.Source(ctx, policy, i == 1)
		if err != nil {
			return nil, nil, err
		}
		if source.MayCome {
			warnings = append(warnings, warning(source.Missing, "; until then the policy cannot be used"))
			continue
		}
		attempt, err := h.loader.Try(ctx, source, policy.Spec.MinCoverage)
		if err != nil {
			return nil, nil, fmt.Errorf("trying %s: %w", field, err)
		}
		switch attempt.Reason() {
		case v1alpha1.ReasonInvalidParameters:
			field = "spec.parameters"
		case v1alpha1.ReasonCoverageTooLow:
			field = "spec.minCoverage"
		}
		for _, text := range linesOf(attempt) {
			causes = append(causes, metav1.StatusCause{Type: metav1.CauseTypeFieldValueInvalid, Field: field, Message: strings.TrimPrefix(text, field+": ")})
		}
	}
	return causes, warnings, nil
}

// linesOf is what is wrong with a source, each fault by itself, and then what to do about it.
func linesOf(attempt approver.Attempt) []string {
	var lines []string
	switch faults := attempt.Faults(); {
	case attempt.Usable():
		return nil
	case len(faults) == 0:
		lines = append(lines, attempt.Error())
	default:
		for _, f := range faults {
			lines = append(lines, f.Error())
		}
	}
	if fix := fixes[attempt.Reason()]; fix != "" {
		lines = append(lines, "fix: "+fix)
	}
	return lines
}

// invalid refuses a policy. kubectl shows the causes, other clients the message: both have it all.
func invalid(policy *v1alpha1.ApprovalPolicy, causes []metav1.StatusCause) admission.Response {
	lines := make([]string, len(causes))
	for i, cause := range causes {
		lines[i] = cause.Field + ": " + cause.Message
	}
	response := deny(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, strings.Join(lines, "\n"))
	response.Result.Details = &metav1.StatusDetails{
		Group: v1alpha1.GroupVersion.Group, Kind: "ApprovalPolicy", Name: policy.Name, Causes: causes,
	}
	return response
}

// warnings say why a policy that can be used would decide nothing, or in vain. What could not be
// looked up is left out.
func (h *policyHandler) warnings(ctx context.Context, policy *v1alpha1.ApprovalPolicy) []string {
	if policy.Spec.Mode == v1alpha1.ModeDisabled {
		return []string{"spec.mode is Disabled: the policy decides nothing"}
	}
	var out []string
	leftOut := func(what string, err error) {
		log.FromContext(ctx).Info("a warning is left out", "about", what, "error", err.Error())
	}
	switch selected, err := h.selectsNamespaces(ctx, policy.Spec.Match.NamespaceSelector); {
	case err != nil:
		leftOut("namespaceSelector", err)
	case !selected:
		out = append(out, "spec.match.namespaceSelector selects no namespace now: the policy decides nothing until there is one")
	}
	var signers v1alpha1.SignerList
	signersErr := h.cached.List(ctx, &signers)
	if signersErr != nil {
		leftOut("signers", signersErr)
	}
	for _, name := range policy.Spec.Match.SignerNames {
		if signersErr == nil && !strings.HasPrefix(name, "kubernetes.io/") && !slices.ContainsFunc(signers.Items, func(s v1alpha1.Signer) bool {
			return certreq.MatchesSignerName(name, s.Spec.SignerName)
		}) {
			out = append(out, warning("no Signer has signerName "+name, " yet: approved requests get no certificate from Countersign until there is one"))
		}
		// Of a policy that is only looked at nothing is approved.
		if policy.Spec.Mode == v1alpha1.ModeAudit {
			continue
		}
		switch allowed, err := h.access.maySigner(ctx, h.approver, verbApprove, name); {
		case err != nil:
			leftOut("approve", err)
		case !allowed:
			out = append(out, warning(fmt.Sprintf("%s may not approve on signer %s", h.approver.Username, name), ": grant it in grants.yaml"))
		}
	}
	return out
}

// selectsNamespaces says whether a selector selects a namespace. One that selects everything is for
// requests without a namespace too.
func (h *policyHandler) selectsNamespaces(ctx context.Context, chosen *metav1.LabelSelector) (bool, error) {
	if chosen == nil || len(chosen.MatchLabels)+len(chosen.MatchExpressions) == 0 {
		return true, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(chosen)
	if err != nil {
		return false, err
	}
	var namespaces corev1.NamespaceList
	if err := h.cached.List(ctx, &namespaces, client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return false, err
	}
	return len(namespaces.Items) > 0, nil
}
