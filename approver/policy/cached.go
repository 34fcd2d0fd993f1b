// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/evaluator"
)

// maxSelector is the maximum size of spec.match.namespaceSelector, in bytes.
const maxSelector = 8 << 10

// invalidSelector replaces a namespaceSelector that is too large. It is invalid, so the policy is never
// loaded, and the requests for its signers stay pending.
var invalidSelector = metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
	Key: "selector", Operator: metav1.LabelSelectorOperator(fmt.Sprintf("larger than %d bytes", maxSelector)),
}}}

// Strip removes from a policy what no process reads, so that the memory of a cached policy is bounded: its
// labels, annotations and managedFields, and sources that exceed a limit of package evaluator. Such a
// source becomes [evaluator.TooLarge], and so has a problem when it is loaded. Stripping twice changes nothing.
func Strip(object *v1alpha1.ApprovalPolicy) {
	object.ObjectMeta = metav1.ObjectMeta{
		Name: object.Name, UID: object.UID, ResourceVersion: object.ResourceVersion, Generation: object.Generation,
		CreationTimestamp: object.CreationTimestamp, DeletionTimestamp: object.DeletionTimestamp,
	}
	spec := &object.Spec
	if selector := spec.Match.NamespaceSelector; selector != nil && selector.Size() > maxSelector {
		spec.Match.NamespaceSelector = invalidSelector.DeepCopy()
	}
	if candidate := spec.Candidate; candidate != nil {
		parameters := candidate.Parameters
		if parameters == nil {
			parameters = spec.Parameters
		}
		stripSource(&candidate.Rego, parameters)
		candidate.Parameters = stripParameters(candidate.Parameters)
	}
	stripSource(&spec.Rego, spec.Parameters)
	spec.Parameters = stripParameters(spec.Parameters)
}

// stripSource replaces the modules of a source that exceeds a limit.
func stripSource(rego *v1alpha1.RegoSource, parameters *apiextensionsv1.JSON) {
	problems := evaluator.Source{Modules: rego.Modules}.CheckSize()
	if len(problems) == 0 && tooLarge(parameters) {
		problems = evaluator.Errors{{Message: fmt.Sprintf("the parameters have %d bytes, the maximum is %d", len(parameters.Raw), evaluator.MaxRules)}}
	}
	if len(problems) > 0 {
		*rego = v1alpha1.RegoSource{Package: rego.Package, Modules: map[string]string{evaluator.TooLarge: problems[0].Message}}
	}
}

func stripParameters(parameters *apiextensionsv1.JSON) *apiextensionsv1.JSON {
	if tooLarge(parameters) {
		return nil
	}
	return parameters
}

func tooLarge(parameters *apiextensionsv1.JSON) bool {
	return parameters != nil && len(parameters.Raw) > evaluator.MaxRules
}

// MaxCached is the maximum of the sum of [CachedSize], in bytes. The webhook rejects policies beyond it.
const MaxCached = 32 << 20

// perPolicy is about what a cached policy takes besides its texts, in bytes: fields, conditions, replicas.
const perPolicy = 4 << 10

// CachedSize returns about what a policy takes in a cache, in bytes. It is at most 700 KiB.
func CachedSize(object *v1alpha1.ApprovalPolicy) int {
	stripped := *object
	stripped.Spec = *object.Spec.DeepCopy()
	Strip(&stripped)
	spec := &stripped.Spec
	size := perPolicy + spec.Match.NamespaceSelector.Size()
	for _, name := range spec.Match.SignerNames {
		size += len(name)
	}
	size += sizeOf(spec.Rego, spec.Parameters)
	if spec.Candidate != nil {
		size += sizeOf(spec.Candidate.Rego, spec.Candidate.Parameters)
	}
	return size
}

func sizeOf(rego v1alpha1.RegoSource, parameters *apiextensionsv1.JSON) int {
	size := evaluator.Source{Modules: rego.Modules}.TotalSize()
	if parameters != nil {
		size += len(parameters.Raw)
	}
	return size
}
