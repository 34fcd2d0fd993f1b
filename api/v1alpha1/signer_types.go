// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
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
// +kubebuilder:printcolumn:name="Published",type=string,JSONPath=`.status.conditions[?(@.type=="TrustPublished")].status`
// +kubebuilder:printcolumn:name="Rotation",type=string,JSONPath=`.status.conditions[?(@.type=="Rotating")].reason`
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
//
// +kubebuilder:validation:XValidation:rule="!has(self.ca.managed) || !has(self.ca.managed.renewBefore) || !has(self.trust) || !has(self.trust.propagation) || duration(self.trust.propagation) < duration(self.ca.managed.renewBefore)",message="ca.managed.renewBefore must be longer than trust.propagation"
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

	// MaxApprovalAge is how long after its approval a request is still signed: what was true of the
	// requester then may not be any more. An older one is left as it is, with the condition
	// ApprovalTooOld and an Event.
	// +optional
	// +kubebuilder:default="1h"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m')",message="must be at least 1m"
	MaxApprovalAge *metav1.Duration `json:"maxApprovalAge,omitempty"`

	// Trust says where the CA certificates are published.
	// +optional
	Trust Trust `json:"trust,omitempty"`
}

// SignerCA says where the CA of a Signer comes from.
//
// +kubebuilder:validation:XValidation:rule="[has(self.secretRef), has(self.managed), has(self.file)].filter(x, x).size() == 1",message="exactly one of secretRef, managed and file must be set"
type SignerCA struct {
	// SecretRef names a Secret of type kubernetes.io/tls in the signer's namespace: tls.crt
	// holds the CA certificate, followed by its issuers if it is an intermediate, and tls.key its
	// private key. It is loaded again whenever it changes.
	// +optional
	SecretRef *LocalObjectReference `json:"secretRef,omitempty"`

	// Managed has Countersign make the CA, keep it in a Secret, and replace it in time.
	// +optional
	Managed *ManagedCA `json:"managed,omitempty"`

	// File is a CA that is mounted into the signer's Pod.
	// +optional
	File *FileCA `json:"file,omitempty"`
}

// FileCA names a folder with a CA.
type FileCA struct {
	// Directory is the name of a folder below the one that the signer's flag --ca-dir names. It
	// holds tls.crt and tls.key, as a Secret of type kubernetes.io/tls does. They are loaded
	// again whenever they change.
	// +required
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$`
	Directory string `json:"directory"`
}

// KeyAlgorithm is a kind of private key, with its size.
//
// +kubebuilder:validation:Enum=ECDSA-P256;ECDSA-P384;Ed25519;RSA-2048;RSA-3072;RSA-4096
type KeyAlgorithm string

// The kinds of private key that a managed CA can have.
const (
	KeyECDSAP256 KeyAlgorithm = "ECDSA-P256"
	KeyECDSAP384 KeyAlgorithm = "ECDSA-P384"
	KeyEd25519   KeyAlgorithm = "Ed25519"
	KeyRSA2048   KeyAlgorithm = "RSA-2048"
	KeyRSA3072   KeyAlgorithm = "RSA-3072"
	KeyRSA4096   KeyAlgorithm = "RSA-4096"
)

// ManagedCA describes a CA that Countersign makes. What is changed here counts from the next CA on,
// which the annotation countersign.dev/rotate=now has made at once.
//
// +kubebuilder:validation:XValidation:rule="!has(self.duration) || !has(self.renewBefore) || duration(self.renewBefore) < duration(self.duration)",message="renewBefore must be shorter than duration"
type ManagedCA struct {
	// SecretName is the Secret, in the signer's namespace, that the CA is kept in. The signer
	// creates it, of type countersign.dev/managed-ca, and needs RBAC for this name. A Secret of
	// another type is never written to, and no two Signers can share one.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SecretName string `json:"secretName"`

	// CommonName of the CA certificate.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	CommonName string `json:"commonName"`

	// KeyAlgorithm of the CA's private key.
	// +optional
	// +kubebuilder:default="ECDSA-P256"
	KeyAlgorithm KeyAlgorithm `json:"keyAlgorithm,omitempty"`

	// Duration is the lifetime of a CA certificate. An intermediate never outlives its root.
	// +optional
	// +kubebuilder:default="8760h"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m')",message="must be at least 1m"
	Duration *metav1.Duration `json:"duration,omitempty"`

	// RenewBefore is how long before the end of its lifetime a CA is replaced: a third of it, if
	// left out. It must be longer than trust.propagation and certificate.minDuration together, and
	// should be longer than that and certificate.maxDuration, since no certificate outlives its CA.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="must be more than 0s"
	RenewBefore *metav1.Duration `json:"renewBefore,omitempty"`

	// RootRef names a Secret like that of secretRef, by whose CA the managed one is issued as an
	// intermediate; without it, the managed one is a root. It is needed only while a CA is made.
	// +optional
	RootRef *LocalObjectReference `json:"rootRef,omitempty"`

	// NameConstraints limit the names of all that the CA issues (RFC 5280, section 4.2.1.10).
	// +optional
	NameConstraints *NameConstraints `json:"nameConstraints,omitempty"`
}

// NameConstraints are those of a CA certificate: a name must be within one that is permitted, if
// any of its kind is, and within none that is excluded.
type NameConstraints struct {
	// PermittedDNSDomains: a name and all below it, such as "svc.cluster.local".
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	PermittedDNSDomains []string `json:"permittedDNSDomains,omitempty"`
	// ExcludedDNSDomains: likewise.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	ExcludedDNSDomains []string `json:"excludedDNSDomains,omitempty"`
	// PermittedIPRanges are in CIDR notation, such as "10.0.0.0/8".
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	PermittedIPRanges []string `json:"permittedIPRanges,omitempty"`
	// ExcludedIPRanges: likewise.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	ExcludedIPRanges []string `json:"excludedIPRanges,omitempty"`
	// PermittedURIDomains: hosts of URIs, or with a leading dot all below, such as ".example.com".
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	PermittedURIDomains []string `json:"permittedURIDomains,omitempty"`
	// ExcludedURIDomains: likewise.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	ExcludedURIDomains []string `json:"excludedURIDomains,omitempty"`
}

// CertificateProfile limits the certificates of a Signer.
//
// +kubebuilder:validation:XValidation:rule="!has(self.minDuration) || !has(self.maxDuration) || duration(self.minDuration) <= duration(self.maxDuration)",message="minDuration must not be longer than maxDuration"
type CertificateProfile struct {
	// MaxDuration is the longest time from now to a certificate's notAfter. It is also what a
	// request without expirationSeconds gets. A certificate never outlives its CA. A request asks
	// for 10m at least, and gets less where this is less.
	// +optional
	// +kubebuilder:default="24h"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10s')",message="must be at least 10s"
	MaxDuration *metav1.Duration `json:"maxDuration,omitempty"`

	// MinDuration is the shortest time from now to a certificate's notAfter. A request for less is
	// marked Failed; a CA that ends sooner does not sign. If left out, it is 10m, the shortest that
	// a request can ask for, or maxDuration where that is less.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s')",message="must be at least 1s"
	MinDuration *metav1.Duration `json:"minDuration,omitempty"`

	// Backdate is how long before now a certificate's notBefore lies, for clocks that are late.
	// +optional
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('1h')",message="must be between 0s and 1h"
	Backdate *metav1.Duration `json:"backdate,omitempty"`

	// Usages are those a request may have, key usages and extended ones; a request with another one
	// is marked Failed.
	// +optional
	// +listType=set
	// +kubebuilder:default={"digital signature","key encipherment","server auth"}
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=9
	// +kubebuilder:validation:items:Enum="digital signature";"content commitment";"key encipherment";"data encipherment";"key agreement";"server auth";"client auth";"code signing";"email protection"
	Usages []certificatesv1.KeyUsage `json:"usages,omitempty"`

	// KeyAlgorithms are those that the key of a request may have; a request with another one is marked Failed.
	// +optional
	// +listType=set
	// +kubebuilder:default={"RSA","ECDSA","Ed25519"}
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=3
	// +kubebuilder:validation:items:Enum="RSA";"ECDSA";"Ed25519"
	KeyAlgorithms []string `json:"keyAlgorithms,omitempty"`

	// Subject lists the attributes of a request's subject that its certificate has too; others are
	// left out of it.
	// +optional
	// +listType=set
	// +kubebuilder:default={"commonName","organization","organizationalUnit"}
	// +kubebuilder:validation:MaxItems=3
	// +kubebuilder:validation:items:Enum="commonName";"organization";"organizationalUnit"
	Subject []SubjectAttribute `json:"subject,omitempty"`

	// CRLDistributionPoints are URLs, in each certificate, of the CA's list of revoked certificates.
	// Countersign makes no such list (RFC 5280, section 4.2.1.13).
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:MaxLength=2048
	// +kubebuilder:validation:items:Pattern=`^https?://`
	CRLDistributionPoints []string `json:"crlDistributionPoints,omitempty"`

	// OCSPServers are URLs, in each certificate, of who tells whether it is revoked (RFC 5280, section 4.2.2.1).
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:MaxLength=2048
	// +kubebuilder:validation:items:Pattern=`^https?://`
	OCSPServers []string `json:"ocspServers,omitempty"`

	// IssuingCertificateURLs are URLs, in each certificate, of the CA certificate (RFC 5280, section 4.2.2.1).
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:MaxLength=2048
	// +kubebuilder:validation:items:Pattern=`^https?://`
	IssuingCertificateURLs []string `json:"issuingCertificateURLs,omitempty"`
}

// SubjectAttribute is an attribute of a distinguished name (RFC 5280, section 4.1.2.4).
type SubjectAttribute string

// The attributes of a subject that can be issued.
const (
	SubjectCommonName         SubjectAttribute = "commonName"
	SubjectOrganization       SubjectAttribute = "organization"
	SubjectOrganizationalUnit SubjectAttribute = "organizationalUnit"
)

// Trust says where the CA certificates of a Signer are published: the one that signs, the next one,
// and those before it, as long as certificates of theirs are valid.
type Trust struct {
	// ClusterTrustBundle publishes them in the ClusterTrustBundle of the Signer, whose name is
	// signerName with ":" for "/", ":" and the name of the Signer. The signer needs RBAC for this
	// name, and the verb "attest" on signerName.
	// +optional
	ClusterTrustBundle bool `json:"clusterTrustBundle,omitempty"`

	// ConfigMap publishes them in ConfigMaps.
	// +optional
	ConfigMap *TrustConfigMap `json:"configMap,omitempty"`

	// Propagation is how long after it was published a new CA begins to sign in place of the one
	// before: long enough for every client to have read it. A kubelet brings a ConfigMap into
	// running Pods within some 2 minutes.
	// +optional
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s')",message="must not be negative"
	Propagation *metav1.Duration `json:"propagation,omitempty"`

	// Distrusted are SHA-256 fingerprints of CA certificates, in lower-case hex without colons, that
	// are not published any more, and do not sign, whatever is valid of what they issued. A managed
	// CA among them is replaced at once.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:Pattern=`^[0-9a-f]{64}$`
	Distrusted []string `json:"distrusted,omitempty"`
}

// TrustConfigMap names a ConfigMap, one in each of some namespaces, that holds the CA certificates.
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

	// TrustAnchors are the CA certificates that are published, the one that signs before the others.
	// It is the record by which a rotation goes on after a restart.
	// +optional
	// +listType=map
	// +listMapKey=fingerprint
	TrustAnchors []TrustAnchor `json:"trustAnchors,omitempty"`

	// BundleSHA256 is the SHA-256, in lower-case hex, of the PEM that is published.
	// +optional
	BundleSHA256 string `json:"bundleSHA256,omitempty"`

	// Published names what has been written, so that it can be removed when it is not wanted any more.
	// +optional
	Published *PublishedTrust `json:"published,omitempty"`

	// Conditions: "Ready" is true while certificates are issued; "TrustPublished" while the CA
	// certificates are wherever the spec wants them; "Rotating" while a next CA waits to sign.
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

// TrustAnchorPhase is how far a CA has come.
type TrustAnchorPhase string

// The phases of a CA, in their order.
const (
	// TrustAnchorNext is published, or about to be, and does not sign yet.
	TrustAnchorNext TrustAnchorPhase = "Next"
	// TrustAnchorCurrent signs, itself or through an intermediate.
	TrustAnchorCurrent TrustAnchorPhase = "Current"
	// TrustAnchorRetiring does not sign any more, and is published while certificates below it are valid.
	TrustAnchorRetiring TrustAnchorPhase = "Retiring"
)

// TrustAnchor is a CA certificate that relying parties are to trust.
type TrustAnchor struct {
	// Fingerprint is the SHA-256 of the certificate's DER, in lower-case hex.
	Fingerprint string `json:"fingerprint"`
	// Subject of the certificate, as an RFC 2253 string.
	Subject string `json:"subject"`
	// NotAfter is the end of the certificate's validity.
	NotAfter metav1.Time `json:"notAfter"`
	// Phase is Next, Current or Retiring.
	// +kubebuilder:validation:Enum=Next;Current;Retiring
	Phase TrustAnchorPhase `json:"phase"`
	// PublishedAt is when the certificate was first wherever the spec wants it; absent before.
	// +optional
	PublishedAt *metav1.Time `json:"publishedAt,omitempty"`
	// MaxDuration is the certificate.maxDuration by which it signs, or last signed.
	// +optional
	MaxDuration *metav1.Duration `json:"maxDuration,omitempty"`
	// LeavesUntil is when the last certificate below it expires that was issued while MaxDuration
	// was longer, or by a CA that has retired.
	// +optional
	LeavesUntil *metav1.Time `json:"leavesUntil,omitempty"`
	// Certificate in PEM.
	Certificate string `json:"certificate"`
}

// PublishedTrust names the objects that hold CA certificates of a Signer.
type PublishedTrust struct {
	// ClusterTrustBundle is the name of one.
	// +optional
	ClusterTrustBundle string `json:"clusterTrustBundle,omitempty"`
	// ConfigMap is the name of those in namespaces.
	// +optional
	ConfigMap string `json:"configMap,omitempty"`
}

// RotateAnnotation, with the value "now", has the managed CA of a Signer replaced. The signer takes
// it away when the next CA is made.
const RotateAnnotation = "countersign.dev/rotate"

// ManagedCASecretType is the type of the Secret that a managed CA is kept in.
const ManagedCASecretType corev1.SecretType = "countersign.dev/managed-ca" //nolint:gosec // the name of a type, not a secret

// SignerList is a list of Signers.
//
// +kubebuilder:object:root=true
type SignerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Signer `json:"items"`
}

// Conditions of a Signer, beside Ready.
const (
	// ConditionTrustPublished is true if the CA certificates are wherever the spec wants them.
	ConditionTrustPublished = "TrustPublished"
	// ConditionRotating is true while a next CA waits to sign.
	ConditionRotating = "Rotating"
)

// ConditionApprovalTooOld, on a CertificateSigningRequest, says that it was approved too long ago
// to be signed: see [SignerSpec.MaxApprovalAge].
const ConditionApprovalTooOld = "ApprovalTooOld"

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
	// ReasonInvalidProfile: the spec cannot be used. Most of what may be wrong the API server's own
	// validation refuses before.
	// Example: "maxDuration is 5s: it must be at least 10s".
	ReasonInvalidProfile = "InvalidProfile"
	// ReasonCADistrusted: the CA is listed in spec.trust.distrusted, and does not sign.
	ReasonCADistrusted = "CADistrusted"
	// ReasonCAPropagating: the CA that signed before is gone, and the next one waits until it is known.
	// Example: `"CN=Next" is published, and signs from 2026-02-01T00:05:00Z; requests wait`.
	ReasonCAPropagating = "CAPropagating"
	// ReasonNotManaged: the Secret that ca.managed names is of another type, so it is not Countersign's to write to.
	ReasonNotManaged = "NotManaged"
	// ReasonSecretReadOnly: the Secret of a managed CA cannot be written to: for lack of RBAC, or as it is immutable.
	ReasonSecretReadOnly = "SecretReadOnly"
	// ReasonFileNotFound: the files that ca.file names are not there, or cannot be read.
	ReasonFileNotFound = "FileNotFound"
	// ReasonDuplicateSecret: an older Signer keeps its managed CA in the same Secret; this one issues nothing.
	ReasonDuplicateSecret = "DuplicateSecret"

	// ReasonPublishing: a next CA is made, and is not yet published everywhere.
	ReasonPublishing = "Publishing"
	// ReasonPropagating: a next CA is published, and waits for spec.trust.propagation to pass.
	ReasonPropagating = "Propagating"
	// ReasonOverlapping: the CA that signs is the newest; one before it is still published.
	ReasonOverlapping = "Overlapping"
	// ReasonSettled: there is one CA.
	ReasonSettled = "Settled"
	// ReasonRotationFailed: it is time for a next CA, and it cannot be made; the message says why.
	ReasonRotationFailed = "RotationFailed"

	// ReasonDuplicateSigner: an older Signer has the same signerName; this one issues nothing.
	ReasonDuplicateSigner = "DuplicateSigner"
	// ReasonPublished: the CA certificates are wherever the spec wants them.
	ReasonPublished = "Published"
	// ReasonPublishFailed: something could not be written; the message says what and why.
	ReasonPublishFailed = "PublishFailed"
	// ReasonWithdrawn: what was published is removed, since every CA in it is listed in spec.trust.distrusted.
	ReasonWithdrawn = "Withdrawn"
	// ReasonNotRequested: the spec asks for neither a ConfigMap nor a ClusterTrustBundle.
	ReasonNotRequested = "NotRequested"
)
