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
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Tests",type=string,JSONPath=`.status.conditions[?(@.type=="TestsPassed")].status`
// +kubebuilder:printcolumn:name="Coverage",type=integer,JSONPath=`.status.coverage.percent`
// +kubebuilder:printcolumn:name="Disagreements",type=integer,JSONPath=`.status.candidate.disagreements`,priority=1
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

	// Mode says what becomes of the policy's answers. "Enforce": they decide. "Audit": they
	// are recorded beside each decision, and decide nothing; a request that only such policies
	// match is not touched. "Disabled": the policy is compiled and tested, and never evaluated.
	// +optional
	// +kubebuilder:default=Enforce
	// +kubebuilder:validation:Enum=Enforce;Audit;Disabled
	Mode PolicyMode `json:"mode,omitempty"`

	// MinCoverage is how many percent of the lines of the policy's rules its own tests must
	// reach. A revision that stays below does not become active. 0 asks for no tests.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	MinCoverage int32 `json:"minCoverage,omitempty"`

	// Candidate is a second revision, evaluated beside the active one on every request that is
	// decided. What it would have decided otherwise is told in the status, and changes nothing.
	// To promote it, let spec.rego name its source.
	// +optional
	Candidate *Candidate `json:"candidate,omitempty"`

	// HoldFor is how long a request stays pending while all that stands in its way
	// is something that time may mend, such as a Pod that has no address yet.
	// After that it is denied. It counts from the moment the approver that leads first
	// found that the request has to wait: time in which it could not tell does not count.
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('24h')",message="must be between 0s and 24h: the cluster deletes pending requests after 24 hours"
	HoldFor *metav1.Duration `json:"holdFor,omitempty"`
}

// PolicyMode says what becomes of a policy's answers.
type PolicyMode string

// The modes of a policy.
const (
	ModeEnforce  PolicyMode = "Enforce"
	ModeAudit    PolicyMode = "Audit"
	ModeDisabled PolicyMode = "Disabled"
)

// Candidate is a revision that is tried and decides nothing.
type Candidate struct {
	// Rego names its source.
	// +required
	Rego RegoSource `json:"rego"`

	// Parameters of the candidate. Absent means those of the policy itself.
	// +optional
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Type=object
	Parameters *apiextensionsv1.JSON `json:"parameters,omitempty"`
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

	// NamespaceSelector narrows the requests to those that speak for a Pod in a namespace with
	// such labels. Absent or empty it also matches requests that speak for no Pod, such as a
	// kubelet's; otherwise it does not.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
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
	// names ending in .rego. Keys ending in _test.rego hold the policy's tests. A key
	// parameters.schema.json may hold a JSON Schema of spec.parameters. Give every revision a
	// ConfigMap of its own, immutable: kustomize's configMapGenerator does.
	// +optional
	ConfigMapRef *LocalObjectReference `json:"configMapRef,omitempty"`

	// Modules holds the same as such a ConfigMap, by the same names.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=32
	Modules map[string]string `json:"modules,omitempty"`

	// Builtin names a policy compiled into the approver: "kubelet-serving", "pod-client",
	// "pod-serving" or "spiffe".
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

	// Conditions: "Compiled" and "TestsPassed" are about the source the spec names; "Ready" is
	// true while the policy, in this or an earlier revision, is evaluated.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Errors are the faults of the source the spec names, at most 16.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Errors []RegoError `json:"errors,omitempty"`

	// Coverage is what the policy's own tests reach of the source the spec names.
	// +optional
	Coverage *Coverage `json:"coverage,omitempty"`

	// Candidate is what became of spec.candidate.
	// +optional
	Candidate *CandidateStatus `json:"candidate,omitempty"`

	// Replicas are the approvers that have the policy loaded, each with the revision by which
	// it decides, or would if it led.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	Replicas []ReplicaStatus `json:"replicas,omitempty"`
}

// Coverage is what the tests of a policy reach.
type Coverage struct {
	// Percent of the lines of the policy's rules, rounded down.
	Percent int32 `json:"percent"`
	// NotCovered are lines that no test reaches, at most 16, each as file:row.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	NotCovered []string `json:"notCovered,omitempty"`
}

// ReplicaStatus says what one approver has loaded.
type ReplicaStatus struct {
	// Name of the replica: that of its Pod.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Revision that it has loaded; empty if there is none it can use.
	// +optional
	Revision string `json:"revision,omitempty"`
}

// CandidateStatus says how a candidate compares.
type CandidateStatus struct {
	// Revision of the candidate; empty if it cannot be used.
	// +optional
	Revision string `json:"revision,omitempty"`
	// Message says why the candidate cannot be used; empty if it can.
	// +optional
	Message string `json:"message,omitempty"`
	// Evaluations is how many decisions it was compared on, since it became the candidate.
	// +optional
	Evaluations int64 `json:"evaluations,omitempty"`
	// Disagreements is on how many of them it answers otherwise than the active revision.
	// +optional
	Disagreements int64 `json:"disagreements,omitempty"`
	// Samples are the latest disagreements, at most 8, the newest last.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	Samples []Disagreement `json:"samples,omitempty"`
}

// Disagreement is one request on which the candidate answers otherwise.
type Disagreement struct {
	// Time of the decision.
	Time metav1.Time `json:"time"`
	// Request is the name of the CertificateSigningRequest.
	Request string `json:"request"`
	// Active is what the active revision answers: "allow", "deny", "hold" or "abstain".
	Active string `json:"active"`
	// Candidate is what the candidate answers: one of the same, or "error".
	Candidate string `json:"candidate"`
	// Message names what the candidate has against the request, or the active revision has if the candidate has nothing.
	// +optional
	Message string `json:"message,omitempty"`
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
	// Suggestions are the names that there are in place of one that is not, at most 16.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Suggestions []string `json:"suggestions,omitempty"`
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
	// ConditionTestsPassed is true if the policy's own tests pass, and reach enough of it;
	// unknown if it has none, or they were not run because it does not compile.
	ConditionTestsPassed = "TestsPassed"
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
	// ReasonInvalidParameters: spec.parameters are not what the policy's parameters.schema.json asks for.
	ReasonInvalidParameters = "InvalidParameters"
	// ReasonTestsPassed: all tests pass. Example: "42 tests, 100% covered".
	ReasonTestsPassed = "TestsPassed"
	// ReasonTestsFailed: a test fails, or the tests could not be run to their end; see status.errors.
	ReasonTestsFailed = "TestsFailed"
	// ReasonCoverageTooLow: the tests pass, and reach less than spec.minCoverage.
	ReasonCoverageTooLow = "CoverageTooLow"
	// ReasonNoTests: the source has no tests, and spec.minCoverage asks for none.
	ReasonNoTests = "NoTests"
	// ReasonNotCompiled: the tests were not run, because the source does not compile.
	ReasonNotCompiled = "NotCompiled"
	// ReasonDisabled: spec.mode is Disabled: no request is decided by the policy.
	ReasonDisabled = "Disabled"
	// ReasonSourceNotFound: the ConfigMap or the builtin that the spec names does not exist.
	ReasonSourceNotFound = "SourceNotFound"
	// ReasonPolicyLoaded: requests are decided by the source the spec names.
	ReasonPolicyLoaded = "PolicyLoaded"
	// ReasonLastGoodActive: the source the spec names cannot be used; requests are decided by the revision before it.
	ReasonLastGoodActive = "LastGoodActive"
	// ReasonNotLoaded: no revision can be used; requests that the policy matches stay pending.
	ReasonNotLoaded = "NotLoaded"
)
