// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ApprovalPolicy approves or denies the certificate requests of some signers
// with a Rego policy.
//
// A request is approved only if every policy that matches it and applies to it
// allows it. Adding a policy therefore only narrows what is approved. Requests
// that no policy matches are ignored.
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

	// spec is the desired state of the policy.
	// +required
	Spec ApprovalPolicySpec `json:"spec"`
	// status is the state of the policy that the approver reports.
	// +optional
	Status ApprovalPolicyStatus `json:"status,omitempty"`
}

// ApprovalPolicySpec is the desired state of an ApprovalPolicy.
type ApprovalPolicySpec struct {
	// match selects the requests that the policy decides.
	// +required
	Match ApprovalPolicyMatch `json:"match"`

	// rego is the source of the policy: a ConfigMap, inline modules, or a built-in
	// policy.
	// +required
	Rego RegoSource `json:"rego"`

	// parameters is an object that the policy reads as input.parameters. Defaults
	// to the empty object. If the source has a file parameters.schema.json,
	// parameters must match that schema. At most 1024 properties.
	// +optional
	// +kubebuilder:validation:MaxProperties=1024
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Type=object
	Parameters *apiextensionsv1.JSON `json:"parameters,omitempty"`

	// mode is the effect of the policy. Defaults to "Enforce".
	//
	// - "Enforce": the policy decides requests.
	//
	// - "Audit": the policy is evaluated beside the enforcing policies. Its result
	// is recorded with the decision and does not change it. Requests that only
	// policies in this mode match are ignored.
	//
	// - "Disabled": the policy is compiled and tested, and not evaluated.
	// +optional
	// +kubebuilder:default=Enforce
	// +kubebuilder:validation:Enum=Enforce;Audit;Disabled
	Mode PolicyMode `json:"mode,omitempty"`

	// minCoverage is the percentage of the lines of the policy's rules that its
	// tests must cover, from 0 to 100. Defaults to 0, which requires no tests. A
	// revision with less coverage does not become active.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	MinCoverage int32 `json:"minCoverage,omitempty"`

	// candidate is a second revision, evaluated beside the active revision on
	// every request that is decided. It changes no decision. status.candidate
	// counts the requests on which the two disagree. To promote the candidate, set
	// spec.rego and spec.parameters to those of the candidate.
	// +optional
	Candidate *Candidate `json:"candidate,omitempty"`

	// holdFor is the total time for which this policy holds a request whose
	// violations are all retryable, such as a Pod that has no address yet. The
	// request is denied afterwards. Defaults to 30s. Must be between 0s and 24h;
	// 0s denies immediately. Each policy counts its own time, from when the
	// leader first holds the request because of it. Time during which the request
	// could not be evaluated is not counted: at most 10s count between two
	// evaluations, and the first evaluation after more than 10s does not end the
	// hold.
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('24h')",message="spec.holdFor must be between 0s and 24h. The cluster deletes pending requests after 24 hours"
	HoldFor *metav1.Duration `json:"holdFor,omitempty"`
}

// PolicyMode is the effect of a policy.
type PolicyMode string

// The modes of a policy.
const (
	// ModeEnforce policies decide requests.
	ModeEnforce PolicyMode = "Enforce"
	// ModeAudit policies are shadow policies: they are evaluated and decide nothing.
	ModeAudit PolicyMode = "Audit"
	// ModeDisabled policies are compiled and tested, and not evaluated.
	ModeDisabled PolicyMode = "Disabled"
)

// Candidate is a revision that is compared with the active one and decides
// nothing.
type Candidate struct {
	// rego is the source of the candidate: a ConfigMap, inline modules, or a
	// built-in policy.
	// +required
	Rego RegoSource `json:"rego"`

	// parameters is an object that the candidate reads as input.parameters.
	// Defaults to spec.parameters. At most 1024 properties.
	// +optional
	// +kubebuilder:validation:MaxProperties=1024
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Type=object
	Parameters *apiextensionsv1.JSON `json:"parameters,omitempty"`
}

// ApprovalPolicyMatch selects certificate requests.
type ApprovalPolicyMatch struct {
	// signerNames lists the signers whose requests the policy decides, from 1 to
	// 64. An entry is an exact name such as "example.com/serving", or
	// "example.com/*" for all signers of a domain. The approver requires the RBAC
	// verb "approve" on each signer.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=571
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)$`
	SignerNames []string `json:"signerNames"`

	// namespaceSelector restricts the policy to requests whose subject is a Pod in
	// a namespace with matching labels. Requests without a Pod, such as those of
	// kubelets, match only if the selector is absent or empty. Defaults to all
	// requests.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
}

// RegoSource is the source of a policy: a package, and exactly one of
// configMapRef, modules and builtin.
//
// +kubebuilder:validation:XValidation:rule="(has(self.configMapRef) ? 1 : 0) + (has(self.modules) ? 1 : 0) + (has(self.builtin) ? 1 : 0) == 1",message="exactly one of configMapRef, modules and builtin must be set"
// +kubebuilder:validation:XValidation:rule="has(self.builtin) || has(self.__package__)",message="package must be set with configMapRef and modules"
type RegoSource struct {
	// package is the Rego package with the rules subject_controls_key,
	// subject_is_authorized and violations, such as "countersign.pod_serving".
	// Required with configMapRef and modules. Defaults to the package of the
	// built-in policy with builtin.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*$`
	Package string `json:"package,omitempty"`

	// configMapRef names a ConfigMap in the namespace of the approver. Each key is
	// the file name of a module and ends in ".rego". Keys ending in "_test.rego"
	// are the tests of the policy. The optional key "parameters.schema.json" is a
	// JSON Schema that validates spec.parameters. Use one immutable ConfigMap for
	// each revision, as the configMapGenerator of kustomize creates them.
	// +optional
	ConfigMapRef *LocalObjectReference `json:"configMapRef,omitempty"`

	// modules maps file names to file contents, from 1 to 32 files, with the same
	// names as the keys of a ConfigMap in configMapRef. A file has at most 262144
	// characters, and its name at most 253.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(name, size(name) <= 253 && size(self[name]) <= 262144)",message="a file must have at most 262144 characters, and its name at most 253"
	Modules map[string]string `json:"modules,omitempty"`

	// builtin is the name of a policy that is compiled into the approver:
	// "kubelet-serving", "pod-client", "pod-serving" or "spiffe".
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Builtin string `json:"builtin,omitempty"`
}

// LocalObjectReference names an object in the namespace in which Countersign
// runs.
type LocalObjectReference struct {
	// name is the name of the object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// ApprovalPolicyStatus is the state of an ApprovalPolicy that the approver
// reports.
type ApprovalPolicyStatus struct {
	// observedGeneration is the metadata.generation to which conditions and errors
	// refer.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// revision is the SHA-256, in hex, of the modules and parameters of the active
	// revision. The active revision stays the last usable one if the source in
	// spec.rego cannot be used.
	// +optional
	Revision string `json:"revision,omitempty"`

	// conditions has "Compiled", "TestsPassed" and "Ready". "Compiled" and
	// "TestsPassed" report on the source in spec.rego. "Ready" is true if this or
	// an earlier revision of the policy is active.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// errors lists the errors in the source in spec.rego, at most 16.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Errors []RegoError `json:"errors,omitempty"`

	// coverage is the test coverage of the source in spec.rego.
	// +optional
	Coverage *Coverage `json:"coverage,omitempty"`

	// tested lists the sources in spec whose tests passed. The approver and the
	// webhook load such a source without running its tests again.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2
	Tested []TestedSource `json:"tested,omitempty"`

	// candidate reports how the revision in spec.candidate compares with the
	// active revision.
	// +optional
	Candidate *CandidateStatus `json:"candidate,omitempty"`

	// replicas lists the approver replicas and the revision that each has loaded,
	// at most 16. Only the leader decides requests.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	Replicas []ReplicaStatus `json:"replicas,omitempty"`
}

// Coverage is the test coverage of a policy.
type Coverage struct {
	// percent is the percentage of the lines of the policy's rules that tests
	// cover, rounded down.
	Percent int32 `json:"percent"`
	// notCovered lists lines that no test covers, at most 16, each as file:row.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	NotCovered []string `json:"notCovered,omitempty"`
}

// TestedSource is a source whose tests passed.
type TestedSource struct {
	// digest is the SHA-256, in hex, of the modules, the tests, the parameters,
	// spec.minCoverage, and the versions of what compiled and tested them.
	Digest string `json:"digest"`
	// tests is the number of tests.
	Tests int32 `json:"tests"`
	// percent is the percentage of the lines of the policy's rules that tests
	// cover, rounded down.
	Percent int32 `json:"percent"`
	// notCovered lists lines that no test covers, at most 16, each as file:row.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	NotCovered []string `json:"notCovered,omitempty"`
}

// ReplicaStatus is the revision that one approver replica has loaded.
type ReplicaStatus struct {
	// name is the name of the replica's Pod.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// revision is the revision that the replica has loaded. Empty if it has no
	// usable revision.
	// +optional
	Revision string `json:"revision,omitempty"`
}

// CandidateStatus is the comparison of a candidate with the active revision.
type CandidateStatus struct {
	// revision is the SHA-256, in hex, of the modules and parameters of the
	// candidate. Empty if the candidate cannot be used.
	// +optional
	Revision string `json:"revision,omitempty"`
	// message is the reason why the candidate is not compared. Empty if it is
	// compared.
	// +optional
	Message string `json:"message,omitempty"`
	// evaluations is the number of decisions on which this candidate was compared.
	// +optional
	Evaluations int64 `json:"evaluations,omitempty"`
	// disagreements is the number of evaluations in which the candidate and the
	// active revision have different results.
	// +optional
	Disagreements int64 `json:"disagreements,omitempty"`
	// samples lists the latest disagreements, at most 8, in the order of their
	// time.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	Samples []Disagreement `json:"samples,omitempty"`
}

// Disagreement is one request for which the candidate and the active revision
// have different results.
type Disagreement struct {
	// time is the time of the decision.
	Time metav1.Time `json:"time"`
	// request is the name of the CertificateSigningRequest.
	Request string `json:"request"`
	// active is the result of the active revision: "allow", "deny", "hold" or
	// "abstain".
	Active string `json:"active"`
	// candidate is the result of the candidate: "allow", "deny", "hold", "abstain"
	// or "error".
	Candidate string `json:"candidate"`
	// message lists the violations that the candidate found, or those of the
	// active revision if the candidate found none.
	// +optional
	Message string `json:"message,omitempty"`
}

// RegoError is one error in the source of a policy.
type RegoError struct {
	// file is the file name of the module. Empty if the error is not in a single
	// module.
	// +optional
	File string `json:"file,omitempty"`
	// row is the line in the file, from 1. 0 if unknown.
	// +optional
	Row int32 `json:"row,omitempty"`
	// col is the column in the line, from 1. 0 if unknown.
	// +optional
	Col int32 `json:"col,omitempty"`
	// message describes the error.
	// +required
	Message string `json:"message"`
	// suggestions lists valid names to use in place of an undefined one, at most
	// 16.
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
	// ConditionCompiled is true if the source in spec.rego compiles.
	ConditionCompiled = "Compiled"
	// ConditionTestsPassed is true if the tests of the source pass with the coverage that
	// spec.minCoverage requires. It is unknown if the source has no tests or does not compile.
	ConditionTestsPassed = "TestsPassed"
	// ConditionReady is true on an ApprovalPolicy if a revision of the policy is active, and on a
	// Signer if it issues certificates.
	ConditionReady = "Ready"
)

// Condition reasons of an ApprovalPolicy. Each example is a message with that
// reason; tests compare the examples with the messages that the approver
// writes.
const (
	// ReasonCompiled: the source compiles.
	// Example: "the source compiles"
	ReasonCompiled = "Compiled"
	// ReasonInvalidRego: the source does not compile, or it breaks a rule for policies. status.errors
	// lists each error.
	// Example: "policy.rego:11:1: applies is a function: write it as a rule, without arguments"
	ReasonInvalidRego = "InvalidRego"
	// ReasonInvalidParameters: spec.parameters does not match the parameters.schema.json of the source.
	// Example: "spec.parameters: maxNames: Invalid type. Expected: integer, given: string"
	ReasonInvalidParameters = "InvalidParameters"
	// ReasonTestsPassed: all tests of the source pass.
	// Example: "3 tests, 100% covered"
	ReasonTestsPassed = "TestsPassed"
	// ReasonTestsFailed: a test fails or times out. status.errors lists each failure.
	// Example: "policy_test.rego:7:1: test_allows_own_address fails"
	ReasonTestsFailed = "TestsFailed"
	// ReasonCoverageTooLow: the tests pass and cover less than spec.minCoverage.
	// Example: "the tests cover 33% of the policy, spec.minCoverage is 90: add tests for policy.rego:7, policy.rego:9"
	ReasonCoverageTooLow = "CoverageTooLow"
	// ReasonNoTests: the source has no tests, and spec.minCoverage requires none.
	// Example: "the source has no tests, and spec.minCoverage requires none"
	ReasonNoTests = "NoTests"
	// ReasonNotCompiled: the tests were not run.
	// Example: "the tests were not run, because the source does not compile"
	ReasonNotCompiled = "NotCompiled"
	// ReasonDisabled: spec.mode is Disabled, and the policy is not evaluated.
	// Example: "spec.mode is Disabled: the policy is not evaluated"
	ReasonDisabled = "Disabled"
	// ReasonSourceNotFound: the ConfigMap or the built-in policy in spec.rego does not exist.
	// Example: "ConfigMap countersign-system/team does not exist: create it, or name another in spec.rego.configMapRef"
	ReasonSourceNotFound = "SourceNotFound"
	// ReasonTooManySources: the source exceeds a limit of all policies together.
	// Example: "older policies have 48 sources, the maximum: delete policies or candidates"
	ReasonTooManySources = "TooManySources"
	// ReasonLoading: the source is not compiled and tested yet.
	// Example: "the source has not been compiled and tested yet; requests that the policy matches stay pending"
	ReasonLoading = "Loading"
	// ReasonEvaluationTooExpensive: evaluations exceeded their limits repeatedly. The policy is not evaluated
	// until its spec changes.
	// Example: "evaluations exceeded 100ms of CPU time 3 times: change spec.rego or spec.parameters; requests that the policy matches stay pending"
	ReasonEvaluationTooExpensive = "EvaluationTooExpensive"
	// ReasonPolicyLoaded: the source in spec.rego is the active revision.
	// Example: "the source in spec.rego is active"
	ReasonPolicyLoaded = "PolicyLoaded"
	// ReasonLastGoodActive: the source in spec.rego cannot be used, and the last usable revision
	// remains active.
	// Example: "revision 3f1c0a9d5b7e remains active for its signers; requests for other signers stay pending"
	ReasonLastGoodActive = "LastGoodActive"
	// ReasonNotLoaded: the policy has no usable revision, and the requests that it matches stay pending.
	// Example: "requests that the policy matches stay pending"
	ReasonNotLoaded = "NotLoaded"
)
