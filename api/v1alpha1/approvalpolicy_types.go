// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ApprovalPolicy decides the certificate requests of some signers by a Rego policy.
//
// Of the policies that match a request every one must allow it: adding a policy
// can only narrow what is approved. A request that no policy matches is not touched.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,categories=countersign
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Signers",type=string,JSONPath=`.spec.match.signerNames`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Revision",type=string,JSONPath=`.status.revision`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ApprovalPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is the policy as the cluster admin wants it.
	// +required
	Spec ApprovalPolicySpec `json:"spec"`
	// Status says whether, and since when, the approver decides by it.
	// +optional
	Status ApprovalPolicyStatus `json:"status,omitempty"`
}

// ApprovalPolicySpec says which requests a policy decides, and by which Rego.
type ApprovalPolicySpec struct {
	// Match selects the requests this policy decides.
	// +required
	Match ApprovalPolicyMatch `json:"match"`

	// Rego names the policy's source.
	// +required
	Rego RegoSource `json:"rego"`

	// Parameters is handed to the policy as input.parameters. Absent means the empty object.
	// +optional
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Type=object
	Parameters *apiextensionsv1.JSON `json:"parameters,omitempty"`

	// HoldFor is how long a request stays pending while all that stands in its way
	// is something that time may mend, such as a Pod that has no address yet.
	// After that it is denied. It counts from the creation of the request, or from
	// the moment the approver took up its work if that is later.
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('24h')",message="must be between 0s and 24h: the cluster deletes pending requests after 24 hours"
	HoldFor *metav1.Duration `json:"holdFor,omitempty"`
}

// ApprovalPolicyMatch selects certificate requests.
type ApprovalPolicyMatch struct {
	// SignerNames are the signers whose requests the policy decides: an exact name
	// such as "example.com/serving", or "example.com/*" for every signer of a domain.
	// The approver also needs the RBAC verb "approve" on each of them.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=571
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)$`
	SignerNames []string `json:"signerNames"`
}

// RegoSource names the Rego of a policy: its package, and exactly one place its modules come from.
//
// +kubebuilder:validation:XValidation:rule="(has(self.configMapRef) ? 1 : 0) + (has(self.modules) ? 1 : 0) + (has(self.builtin) ? 1 : 0) == 1",message="set exactly one of configMapRef, modules and builtin"
// +kubebuilder:validation:XValidation:rule="has(self.builtin) || has(self.__package__)",message="package is required with configMapRef and modules"
type RegoSource struct {
	// Package holds the rules subject_controls_key, subject_is_authorized and violations,
	// such as "countersign.pod_serving". With builtin it may be left out.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*$`
	Package string `json:"package,omitempty"`

	// ConfigMapRef names a ConfigMap in the approver's namespace whose keys are module file
	// names ending in .rego. Keys ending in _test.rego are not part of the policy. Give every
	// revision a ConfigMap of its own, immutable: kustomize's configMapGenerator does.
	// +optional
	ConfigMapRef *LocalObjectReference `json:"configMapRef,omitempty"`

	// Modules holds the modules themselves, by file name ending in .rego.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=32
	Modules map[string]string `json:"modules,omitempty"`

	// Builtin names a policy compiled into the approver: "pod-serving".
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Builtin string `json:"builtin,omitempty"`
}

// LocalObjectReference names an object in the namespace Countersign runs in.
type LocalObjectReference struct {
	// Name of the object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// ApprovalPolicyStatus says what the approver made of a policy.
type ApprovalPolicyStatus struct {
	// ObservedGeneration is the generation of the spec that Conditions and Errors speak of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Revision is the SHA-256, in hex, of the modules and parameters by which requests are
	// decided now. It differs from the spec's own while that does not compile.
	// +optional
	Revision string `json:"revision,omitempty"`

	// Conditions: "Compiled" is about the source the spec names; "Ready" is true while the
	// policy, in this or an earlier revision, decides requests.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Errors are the faults of the source the spec names, at most 16.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Errors []RegoError `json:"errors,omitempty"`
}

// RegoError is one fault in the source of a policy.
type RegoError struct {
	// File is the module's file name; empty if the fault is not in one module.
	// +optional
	File string `json:"file,omitempty"`
	// Row counts from 1; 0 if unknown.
	// +optional
	Row int32 `json:"row,omitempty"`
	// Col counts from 1; 0 if unknown.
	// +optional
	Col int32 `json:"col,omitempty"`
	// Message says what is wrong.
	// +required
	Message string `json:"message"`
}

// ApprovalPolicyList is a list of ApprovalPolicies.
//
// +kubebuilder:object:root=true
type ApprovalPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ApprovalPolicy `json:"items"`
}

// Condition types of an ApprovalPolicy.
const (
	// ConditionCompiled is true if the source the spec names compiles.
	ConditionCompiled = "Compiled"
	// ConditionReady is true, on an ApprovalPolicy, if requests are decided by it, and, on
	// a Signer, if certificates are issued by it.
	ConditionReady = "Ready"
)

// Condition reasons of an ApprovalPolicy.
const (
	// ReasonCompiled: the source compiles. Example: "3 modules, package countersign.pod_serving".
	ReasonCompiled = "Compiled"
	// ReasonInvalidRego: the source does not compile, or breaks a rule for policies; see status.errors.
	ReasonInvalidRego = "InvalidRego"
	// ReasonSourceNotFound: the ConfigMap or the builtin that the spec names does not exist.
	ReasonSourceNotFound = "SourceNotFound"
	// ReasonPolicyLoaded: requests are decided by the source the spec names.
	ReasonPolicyLoaded = "PolicyLoaded"
	// ReasonLastGoodActive: the source the spec names cannot be used; requests are decided by the revision before it.
	ReasonLastGoodActive = "LastGoodActive"
	// ReasonNotLoaded: no revision can be used; requests that the policy matches stay pending.
	ReasonNotLoaded = "NotLoaded"
)
