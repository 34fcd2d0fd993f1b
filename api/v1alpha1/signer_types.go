// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Signer issues the approved requests of one signerName.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,categories=countersign
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Signer",type=string,JSONPath=`.spec.signerName`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="CA expires",type=string,JSONPath=`.status.ca.notAfter`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Signer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is the signer as the cluster admin wants it.
	// +required
	Spec SignerSpec `json:"spec"`
	// Status says whether certificates are issued, and under which CA.
	// +optional
	Status SignerStatus `json:"status,omitempty"`
}

// SignerSpec says which requests are issued, by which CA, within which limits, and who learns of the CA.
type SignerSpec struct {
	// SignerName is the spec.signerName of the requests to issue, exactly. It cannot be
	// changed. The signer also needs the RBAC verb "sign" on it.
	// +required
	// +kubebuilder:validation:MaxLength=571
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="signerName cannot be changed: make another Signer"
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('kubernetes.io/')",message="signers of kubernetes.io belong to the cluster itself"
	SignerName string `json:"signerName"`

	// CA is what certificates are signed with.
	// +required
	CA SignerCA `json:"ca"`

	// Certificate limits what is issued, whatever was approved.
	// +optional
	// +kubebuilder:default={}
	Certificate CertificateProfile `json:"certificate,omitempty"`

	// Trust says where the CA certificate is published.
	// +optional
	Trust Trust `json:"trust,omitempty"`
}

// SignerCA names the CA of a Signer.
type SignerCA struct {
	// SecretRef names a Secret of type kubernetes.io/tls in the signer's namespace: tls.crt
	// holds the CA certificate, followed by its issuers if it is an intermediate, and tls.key its
	// private key. It is loaded again whenever it changes.
	// +required
	SecretRef LocalObjectReference `json:"secretRef"`
}

// CertificateProfile limits the certificates of a Signer.
type CertificateProfile struct {
	// MaxDuration is the longest time from now to a certificate's notAfter. It is also what a
	// request without expirationSeconds gets. A certificate never outlives its CA.
	// +optional
	// +kubebuilder:default="24h"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10m')",message="must be at least 10m, the shortest lifetime a request can ask for"
	MaxDuration *metav1.Duration `json:"maxDuration,omitempty"`

	// Backdate is how long before now a certificate's notBefore lies, for clocks that are late.
	// +optional
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('1h')",message="must be between 0s and 1h"
	Backdate *metav1.Duration `json:"backdate,omitempty"`

	// Usages are those a request may have; a request with another one is marked Failed.
	// +optional
	// +listType=set
	// +kubebuilder:default={"digital signature","key encipherment","server auth"}
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:Enum="digital signature";"key encipherment";"server auth";"client auth"
	Usages []certificatesv1.KeyUsage `json:"usages,omitempty"`
}

// Trust says where the CA certificate of a Signer is published.
type Trust struct {
	// ConfigMap publishes the CA certificate in ConfigMaps.
	// +optional
	ConfigMap *TrustConfigMap `json:"configMap,omitempty"`
}

// TrustConfigMap names a ConfigMap, one in each of some namespaces, that holds the CA certificate.
type TrustConfigMap struct {
	// Name of the ConfigMap. The signer needs RBAC for this name.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Key under which the PEM certificates stand.
	// +optional
	// +kubebuilder:default="ca.crt"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key,omitempty"`

	// NamespaceSelector chooses the namespaces by their labels. The empty selector chooses all.
	// +required
	NamespaceSelector metav1.LabelSelector `json:"namespaceSelector"`
}

// SignerStatus says what the signer made of a Signer.
type SignerStatus struct {
	// ObservedGeneration is the generation of the spec that Conditions speak of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// CA describes the CA certificate that signs now; absent if none can.
	// +optional
	CA *CAStatus `json:"ca,omitempty"`

	// Conditions: "Ready" is true while certificates are issued; "TrustPublished" while every
	// chosen namespace has the CA certificate.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// CAStatus describes a CA certificate.
type CAStatus struct {
	// Subject of the certificate, as an RFC 2253 string.
	Subject string `json:"subject"`
	// Fingerprint is the SHA-256 of the certificate's DER, in lower-case hex.
	Fingerprint string `json:"fingerprint"`
	// NotAfter is the end of the certificate's validity.
	NotAfter metav1.Time `json:"notAfter"`
}

// SignerList is a list of Signers.
//
// +kubebuilder:object:root=true
type SignerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Signer `json:"items"`
}

// ConditionTrustPublished is true, on a Signer, if its CA certificate is in every ConfigMap that the spec asks for.
const ConditionTrustPublished = "TrustPublished"

// Condition reasons of a Signer.
const (
	// ReasonCALoaded: the CA is loaded and signs. Example: "CN=My Example Signer, until 2035-02-01T00:00:00Z".
	ReasonCALoaded = "CALoaded"
	// ReasonSecretNotFound: the Secret that ca.secretRef names does not exist, or may not be read.
	ReasonSecretNotFound = "SecretNotFound"
	// ReasonInvalidCA: the Secret does not hold a usable CA; the message says what is wrong and how to mend it.
	ReasonInvalidCA = "InvalidCA"
	// ReasonCAKeyMismatch: the private key is not the one of the CA certificate.
	ReasonCAKeyMismatch = "CAKeyMismatch"
	// ReasonCAExpired: the CA certificate is expired.
	ReasonCAExpired = "CAExpired"
	// ReasonCANotYetValid: the CA certificate is not valid yet.
	ReasonCANotYetValid = "CANotYetValid"
	// ReasonInvalidProfile: spec.certificate cannot be used, which the API server's own validation
	// lets happen only if the custom resource definition is an old one.
	// Example: "maxDuration is 5m0s: it must be at least 10m0s".
	ReasonInvalidProfile = "InvalidProfile"
	// ReasonDuplicateSigner: an older Signer has the same signerName; this one issues nothing.
	ReasonDuplicateSigner = "DuplicateSigner"
	// ReasonPublished: every chosen namespace has the CA certificate.
	ReasonPublished = "Published"
	// ReasonPublishFailed: some namespace could not be written to; the message says which and why.
	ReasonPublishFailed = "PublishFailed"
	// ReasonNotRequested: the spec asks for no ConfigMap.
	ReasonNotRequested = "NotRequested"
)
