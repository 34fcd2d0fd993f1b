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
	"countersign.dev/countersign/approver/policy"
	"countersign.dev/countersign/internal/certreq"
)

// PathApprovalPolicy is the path of the webhook for ApprovalPolicies.
const PathApprovalPolicy = "/validate-approvalpolicy"

// fixes are the instructions for the problems that do not contain one, by reason.
var fixes = map[string]string{
	v1alpha1.ReasonInvalidRego:       "correct these lines and apply again; docs/input.md lists the fields of input",
	v1alpha1.ReasonInvalidParameters: "set spec.parameters as the policy's parameters.schema.json requires",
	v1alpha1.ReasonTestsFailed:       "correct the policy, or the tests that expect otherwise",
}

// policyHandler rejects an ApprovalPolicy that the approver could not use.
type policyHandler struct {
	decoder admission.Decoder
	loader  policy.Loader // reads ConfigMaps live
	cached  client.Reader // for ApprovalPolicies and Signers
	live    client.Reader // for Namespaces, whose labels are not cached
	access  access
	// approver is the user that approves requests by the policy.
	approver authenticationv1.UserInfo
}

// Handle implements admission.Handler.
func (h *policyHandler) Handle(ctx context.Context, req admission.Request) admission.Response {
	var object v1alpha1.ApprovalPolicy
	if err := h.decoder.Decode(req, &object); err != nil {
		return failure(fmt.Errorf("decoding the policy: %w", err))
	}
	var old v1alpha1.ApprovalPolicy
	if req.Operation == admissionv1.Update {
		if err := h.decoder.DecodeRaw(req.OldObject, &old); err != nil {
			return failure(fmt.Errorf("decoding the old policy: %w", err))
		}
		// Labels and finalizers of a policy with a problem can be changed.
		if object.DeletionTimestamp != nil || equality.Semantic.DeepEqual(old.Spec, object.Spec) {
			return admission.Allowed("")
		}
	}
	if cause, err := h.tooLarge(ctx, &old, &object); err != nil {
		return failure(err)
	} else if cause != nil {
		return invalid(&object, []metav1.StatusCause{*cause})
	}
	causes, warnings, err := h.load(ctx, &object)
	switch {
	case err != nil:
		return failure(err)
	case len(causes) > 0:
		return invalid(&object, causes).WithWarnings(warnings...)
	}
	return admission.Allowed("").WithWarnings(limitWarnings(append(warnings, h.warnings(ctx, &object)...))...)
}

// tooLarge returns a problem if the caches could not hold all policies. A policy that does not grow is
// admitted.
func (h *policyHandler) tooLarge(ctx context.Context, old, object *v1alpha1.ApprovalPolicy) (*metav1.StatusCause, error) {
	size := policy.CachedSize(object)
	if size <= policy.CachedSize(old) {
		return nil, nil
	}
	var list v1alpha1.ApprovalPolicyList
	if err := h.cached.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing policies: %w", err)
	}
	for i := range list.Items {
		if list.Items[i].Name != object.Name {
			size += policy.CachedSize(&list.Items[i])
		}
	}
	if size <= policy.MaxCached {
		return nil, nil
	}
	return &metav1.StatusCause{
		Type: metav1.CauseTypeFieldValueInvalid, Field: "spec",
		Message: fmt.Sprintf("all ApprovalPolicies together have %d bytes with this one, the maximum is %d: delete policies or move modules to ConfigMaps", size, policy.MaxCached),
	}, nil
}

// load loads the source of the policy and of its candidate, and returns their problems. The error is
// an error of the API server or of this process.
func (h *policyHandler) load(ctx context.Context, object *v1alpha1.ApprovalPolicy) (causes []metav1.StatusCause, warnings []string, err error) {
	type find func(context.Context, *v1alpha1.ApprovalPolicy) (policy.Source, error)
	sources := []struct {
		field string
		find  find
	}{{"spec.rego", h.loader.Source}}
	if object.Spec.Candidate != nil {
		sources = append(sources, struct {
			field string
			find  find
		}{"spec.candidate.rego", h.loader.CandidateSource})
	}
	for _, s := range sources {
		source, err := s.find(ctx, object)
		if err != nil {
			return nil, nil, err
		}
		if source.MissingObject {
			warnings = append(warnings, warning(source.NotFound, "; the policy cannot be used until then"))
			continue
		}
		result, err := h.loader.Load(ctx, source, object.Spec.MinCoverage)
		if err != nil {
			return nil, nil, fmt.Errorf("loading %s: %w", s.field, err)
		}
		causes = append(causes, causesOf(result, s.field)...)
	}
	return causes, warnings, nil
}

// causesOf returns the problems of a source, one cause each, and then how to fix them.
func causesOf(result policy.LoadResult, field string) []metav1.StatusCause {
	problem := result.Problem()
	switch problem.Reason {
	case "":
		return nil
	case v1alpha1.ReasonInvalidParameters:
		field = "spec.parameters"
	case v1alpha1.ReasonCoverageTooLow:
		field = "spec.minCoverage"
	}
	var lines []string
	for _, e := range result.Errors {
		lines = append(lines, e.Error())
	}
	if len(lines) == 0 {
		lines = append(lines, problem.Message)
	}
	if fix := fixes[problem.Reason]; fix != "" {
		lines = append(lines, "fix: "+fix)
	}
	causes := make([]metav1.StatusCause, len(lines))
	for i, line := range lines {
		causes[i] = metav1.StatusCause{Type: metav1.CauseTypeFieldValueInvalid, Field: field, Message: strings.TrimPrefix(line, field+": ")}
	}
	return causes
}

// invalid rejects a policy. kubectl prints the causes, other clients print the message.
func invalid(object *v1alpha1.ApprovalPolicy, causes []metav1.StatusCause) admission.Response {
	lines := make([]string, len(causes))
	for i, cause := range causes {
		lines[i] = cause.Field + ": " + cause.Message
	}
	response := deny(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, strings.Join(lines, "\n"))
	response.Result.Details = &metav1.StatusDetails{
		Group: v1alpha1.GroupVersion.Group, Kind: "ApprovalPolicy", Name: object.Name, Causes: causes,
	}
	return response
}

// warnings returns the reasons why a usable policy decides nothing, or approves without effect. A
// warning is omitted if a lookup for it fails.
func (h *policyHandler) warnings(ctx context.Context, object *v1alpha1.ApprovalPolicy) []string {
	if object.Spec.Mode == v1alpha1.ModeDisabled {
		return []string{"spec.mode is Disabled: the policy is not evaluated"}
	}
	var out []string
	switch selected, err := h.selectsNamespaces(ctx, object.Spec.Match.NamespaceSelector); {
	case err != nil:
		logOmitted(ctx, "namespaceSelector", err)
	case !selected:
		out = append(out, "spec.match.namespaceSelector selects no existing namespace: the policy decides nothing until one matches")
	}
	withoutSigner := h.withoutSigner(ctx, object.Spec.Match.SignerNames)
	for _, name := range object.Spec.Match.SignerNames {
		if slices.Contains(withoutSigner, name) {
			out = append(out, warning("no Signer has signerName "+name, ": Countersign issues no certificates for approved requests until one does"))
		}
		if object.Spec.Mode == v1alpha1.ModeAudit { // approves nothing
			continue
		}
		switch allowed, err := h.access.signer(ctx, h.approver, verbApprove, name); {
		case err != nil:
			logOmitted(ctx, "approve", err)
		case !allowed:
			out = append(out, warning(fmt.Sprintf("%s is not allowed to approve on signer %s", h.approver.Username, name), ": grant it in grants.yaml"))
		}
	}
	return out
}

func logOmitted(ctx context.Context, about string, err error) {
	log.FromContext(ctx).Info("a warning is omitted", "about", about, "error", err.Error())
}

// withoutSigner returns the signerNames that no Signer issues for. The signers of Kubernetes itself
// need no Signer.
func (h *policyHandler) withoutSigner(ctx context.Context, signerNames []string) []string {
	var signers v1alpha1.SignerList
	if err := h.cached.List(ctx, &signers); err != nil {
		logOmitted(ctx, "signers", err)
		return nil
	}
	return slices.DeleteFunc(slices.Clone(signerNames), func(name string) bool {
		return strings.HasPrefix(name, "kubernetes.io/") || slices.ContainsFunc(signers.Items, func(s v1alpha1.Signer) bool {
			return certreq.MatchesSignerName(name, s.Spec.SignerName)
		})
	})
}

// selectsNamespaces reports whether a selector selects a namespace. A selector that selects everything
// also selects requests without a namespace.
func (h *policyHandler) selectsNamespaces(ctx context.Context, labelSelector *metav1.LabelSelector) (bool, error) {
	if labelSelector == nil || len(labelSelector.MatchLabels)+len(labelSelector.MatchExpressions) == 0 {
		return true, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(labelSelector)
	if err != nil {
		return false, err
	}
	namespaces := metav1.PartialObjectMetadataList{}
	namespaces.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NamespaceList"))
	if err := h.live.List(ctx, &namespaces, client.MatchingLabelsSelector{Selector: selector}, client.Limit(1)); err != nil {
		return false, err
	}
	return len(namespaces.Items) > 0, nil
}
