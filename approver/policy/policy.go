// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/facts"
)

// defaultHoldFor is the default of spec.holdFor, for objects that were stored without it.
const defaultHoldFor = 30 * time.Second

// Policy is an ApprovalPolicy that has been loaded. It is immutable.
type Policy struct {
	Name string
	UID  types.UID
	Mode v1alpha1.PolicyMode
	// SignerNames are exact names, or patterns such as "example.com/*".
	SignerNames []string
	// Namespaces selects the namespace of the subject. Nil selects every request.
	Namespaces labels.Selector
	HoldFor    time.Duration
	// Active evaluates requests. It is nil if no revision of the policy is usable: requests
	// that the policy matches stay pending.
	Active *evaluator.Policy
	// Candidate is compared with Active and never decides. Nil if there is none.
	Candidate *evaluator.Policy
}

// New returns the policy that the spec of object defines. active is nil if the source is not
// usable; candidate is nil if there is none.
func New(object *v1alpha1.ApprovalPolicy, active, candidate *evaluator.Policy) Policy {
	p := Policy{
		Name: object.Name, UID: object.UID, Mode: object.Spec.Mode, SignerNames: object.Spec.Match.SignerNames,
		HoldFor: defaultHoldFor, Active: active, Candidate: candidate,
	}
	if object.Spec.HoldFor != nil {
		p.HoldFor = object.Spec.HoldFor.Duration
	}
	if selector := object.Spec.Match.NamespaceSelector; selector != nil && len(selector.MatchLabels)+len(selector.MatchExpressions) > 0 {
		var err error
		if p.Namespaces, err = metav1.LabelSelectorAsSelector(selector); err != nil {
			// Loader.Source rejects such a selector. Fail closed: the policy is not loaded for any request.
			p.Namespaces, p.Active = nil, nil
		}
	}
	return p
}

// Shadow reports whether the policy is evaluated and never decides: spec.mode is Audit.
func (p *Policy) Shadow() bool { return p.Mode == v1alpha1.ModeAudit }

// Selects reports whether the policy is for requests with this subject.
func (p *Policy) Selects(subject *facts.ClusterSubject) bool {
	return p.Namespaces == nil || subject.Namespace != nil && p.Namespaces.Matches(labels.Set(subject.Namespace.Labels))
}

// digest changes if requests can be decided differently.
func (p *Policy) digest() string {
	revision, namespaces := "", ""
	if p.Active != nil {
		revision = p.Active.Revision()
	}
	if p.Namespaces != nil {
		namespaces = p.Namespaces.String()
	}
	return fmt.Sprintf("%s %s %s %q %q %s %s\n", p.Name, p.UID, p.Mode, p.SignerNames, namespaces, p.HoldFor, revision)
}

// Effective returns the policies that decide requests for desired, the policy that the spec
// defines. The result is desired itself if it has an active revision.
//
// Otherwise lastGood, the last usable revision, decides for the signers that both match; mode
// and holdFor come from the spec. It never decides for other signers or namespaces, since it was
// not loaded for them: their requests stay pending. lastGood is nil if no revision was usable.
func Effective(desired Policy, lastGood *Policy) []Policy {
	if desired.Active != nil || lastGood == nil || desired.Mode == v1alpha1.ModeDisabled || !sameNamespaces(desired, *lastGood) {
		return []Policy{desired}
	}
	loaded, pending := *lastGood, desired
	loaded.Mode, loaded.HoldFor, loaded.Candidate = desired.Mode, desired.HoldFor, desired.Candidate
	loaded.SignerNames, pending.SignerNames = nil, nil
	for _, name := range desired.SignerNames {
		if slices.Contains(lastGood.SignerNames, name) {
			loaded.SignerNames = append(loaded.SignerNames, name)
		} else {
			pending.SignerNames = append(pending.SignerNames, name)
		}
	}
	return slices.DeleteFunc([]Policy{loaded, pending}, func(p Policy) bool { return p.SignerNames == nil })
}

func sameNamespaces(a, b Policy) bool {
	if a.Namespaces == nil || b.Namespaces == nil {
		return a.Namespaces == nil && b.Namespaces == nil
	}
	return a.Namespaces.String() == b.Namespaces.String()
}
