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

	// spec is the desired state of the signer.
	// +required
	Spec SignerSpec `json:"spec"`
	// status is the state of the signer that the signer process reports.
	// +optional
	Status SignerStatus `json:"status,omitempty"`
}

// SignerSpec is the desired state of a Signer.
//
// +kubebuilder:validation:XValidation:rule="!has(self.ca.managed) || !has(self.ca.managed.renewBefore) || !has(self.trust) || !has(self.trust.propagation) || duration(self.trust.propagation) < duration(self.ca.managed.renewBefore)",message="spec.ca.managed.renewBefore must be longer than spec.trust.propagation"
type SignerSpec struct {
	// signerName is the exact spec.signerName of the requests to sign, such as
	// "example.com/serving". Immutable. Signers of the domain kubernetes.io are
	// not allowed. The signer process requires the RBAC verb "sign" on it.
	// +required
	// +kubebuilder:validation:MaxLength=571
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec.signerName is immutable: create another Signer"
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('kubernetes.io/')",message="spec.signerName must not be in the domain kubernetes.io, which Kubernetes reserves for its own signers"
	SignerName string `json:"signerName"`

	// ca is the source of the CA: exactly one of secretRef, managed and file.
	// +required
	CA SignerCA `json:"ca"`

	// certificate limits the certificates that are issued. The limits apply to
	// every approved request.
	// +optional
	// +kubebuilder:default={}
	Certificate CertificateProfile `json:"certificate,omitempty"`

	// maxApprovalAge is the period after its approval in which a request is
	// signed. Defaults to 1h. Must be at least 1m. The signer does not sign an
	// older request, because the facts that justified its approval can be
	// outdated. It sets the condition ApprovalTooOld on the request and emits an
	// Event.
	// +optional
	// +kubebuilder:default="1h"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m')",message="spec.maxApprovalAge must be at least 1m"
	MaxApprovalAge *metav1.Duration `json:"maxApprovalAge,omitempty"`

	// trust configures where the CA certificates are published. They are not
	// published by default. The published certificates are the CA that signs, the
	// next CA of a rotation, and earlier CAs until the certificates that they
	// issued have expired.
	// +optional
	Trust Trust `json:"trust,omitempty"`
}

// SignerCA is the source of the CA of a Signer.
//
// +kubebuilder:validation:XValidation:rule="[has(self.secretRef), has(self.managed), has(self.file)].filter(x, x).size() == 1",message="exactly one of spec.ca.secretRef, spec.ca.managed and spec.ca.file must be set"
type SignerCA struct {
	// secretRef names a Secret of type kubernetes.io/tls in the namespace of the
	// signer process. Its tls.crt is the CA certificate, followed by its issuers
	// if it is an intermediate. Its tls.key is the private key. The signer reloads
	// the Secret when it changes.
	// +optional
	SecretRef *LocalObjectReference `json:"secretRef,omitempty"`

	// managed is a CA that Countersign creates, stores in a Secret and rotates
	// before it expires. Changes take effect at the next rotation. To rotate
	// immediately, set the annotation countersign.dev/rotate=now on the Signer.
	// +optional
	Managed *ManagedCA `json:"managed,omitempty"`

	// file is a CA in files that are mounted into the Pod of the signer process.
	// +optional
	File *FileCA `json:"file,omitempty"`
}

// FileCA is a CA in files.
type FileCA struct {
	// directory is the name of a subdirectory of the directory in the flag
	// --ca-dir of the signer process. It contains the files tls.crt and tls.key,
	// with the contents that secretRef describes. The signer reloads the files
	// when they change.
	// +required
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$`
	Directory string `json:"directory"`
}

// KeyAlgorithm is the algorithm and the size of a private key.
//
// +kubebuilder:validation:Enum=ECDSA-P256;ECDSA-P384;Ed25519;RSA-2048;RSA-3072;RSA-4096
type KeyAlgorithm string

// The algorithms of the private key of a managed CA.
const (
	KeyECDSAP256 KeyAlgorithm = "ECDSA-P256"
	KeyECDSAP384 KeyAlgorithm = "ECDSA-P384"
	KeyEd25519   KeyAlgorithm = "Ed25519"
	KeyRSA2048   KeyAlgorithm = "RSA-2048"
	KeyRSA3072   KeyAlgorithm = "RSA-3072"
	KeyRSA4096   KeyAlgorithm = "RSA-4096"
)

// ManagedCA is a CA that Countersign creates and rotates.
//
// Changes take effect at the next rotation. To rotate immediately, set the
// annotation countersign.dev/rotate=now on the Signer.
//
// +kubebuilder:validation:XValidation:rule="!has(self.duration) || !has(self.renewBefore) || duration(self.renewBefore) < duration(self.duration)",message="spec.ca.managed.renewBefore must be shorter than spec.ca.managed.duration"
type ManagedCA struct {
	// secretName is the name of the Secret that stores the CA, in the namespace of
	// the signer process. The signer creates it with type
	// countersign.dev/managed-ca and requires RBAC for this name. The signer never
	// writes to a Secret of another type. Two Signers cannot share a Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SecretName string `json:"secretName"`

	// commonName is the common name in the subject of the CA certificate, from 1
	// to 64 characters.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	CommonName string `json:"commonName"`

	// keyAlgorithm is the algorithm and the size of the private key of the CA.
	// Defaults to "ECDSA-P256".
	// +optional
	// +kubebuilder:default="ECDSA-P256"
	KeyAlgorithm KeyAlgorithm `json:"keyAlgorithm,omitempty"`

	// duration is the lifetime of the CA certificate. Defaults to 8760h, one year.
	// Must be at least 1m. An intermediate expires no later than its root.
	// +optional
	// +kubebuilder:default="8760h"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m')",message="spec.ca.managed.duration must be at least 1m"
	Duration *metav1.Duration `json:"duration,omitempty"`

	// renewBefore is the period before the CA certificate expires in which the CA
	// is rotated. Defaults to one third of duration. Must be shorter than
	// duration, and longer than the sum of spec.trust.propagation and
	// spec.certificate.minDuration. Set it to more than the sum of
	// spec.trust.propagation and spec.certificate.maxDuration. Certificates that
	// are issued shortly before a rotation otherwise expire early, because none
	// outlives its CA.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="spec.ca.managed.renewBefore must be more than 0s"
	RenewBefore *metav1.Duration `json:"renewBefore,omitempty"`

	// rootRef names a Secret with the format of spec.ca.secretRef. Its CA signs
	// the managed CA, which is then an intermediate. Without rootRef the managed
	// CA is a self-signed root. The Secret is required only when a CA is created.
	// +optional
	RootRef *LocalObjectReference `json:"rootRef,omitempty"`

	// nameConstraints restricts the names in all certificates below the CA (RFC
	// 5280, section 4.2.1.10). Defaults to no restriction.
	// +optional
	NameConstraints *NameConstraints `json:"nameConstraints,omitempty"`
}

// NameConstraints are the name constraints of a CA certificate. If a list of
// permitted names of a kind is not empty, each name of that kind must match
// one entry. No name can match an excluded entry.
type NameConstraints struct {
	// permittedDNSDomains lists DNS names, at most 64. An entry such as
	// "svc.cluster.local" matches the name and all names below it.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	PermittedDNSDomains []string `json:"permittedDNSDomains,omitempty"`
	// excludedDNSDomains lists DNS names, at most 64, with the format of
	// permittedDNSDomains.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	ExcludedDNSDomains []string `json:"excludedDNSDomains,omitempty"`
	// permittedIPRanges lists ranges in CIDR notation, at most 64, such as
	// "10.0.0.0/8".
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	PermittedIPRanges []string `json:"permittedIPRanges,omitempty"`
	// excludedIPRanges lists ranges in CIDR notation, at most 64.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	ExcludedIPRanges []string `json:"excludedIPRanges,omitempty"`
	// permittedURIDomains lists hosts of URIs, at most 64. An entry with a leading
	// dot, such as ".example.com", matches all hosts below it.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	PermittedURIDomains []string `json:"permittedURIDomains,omitempty"`
	// excludedURIDomains lists hosts of URIs, at most 64, with the format of
	// permittedURIDomains.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	ExcludedURIDomains []string `json:"excludedURIDomains,omitempty"`
}

// CertificateProfile limits the certificates of a Signer.
//
// +kubebuilder:validation:XValidation:rule="!has(self.minDuration) || !has(self.maxDuration) || duration(self.minDuration) <= duration(self.maxDuration)",message="spec.certificate.minDuration must not be longer than spec.certificate.maxDuration"
type CertificateProfile struct {
	// maxDuration is the longest lifetime of a certificate, from the time of
	// signing to notAfter. Defaults to 24h. Must be between 10s and 876000h, 100
	// years. Requests without spec.expirationSeconds receive this lifetime. A
	// longer requested lifetime is shortened to it. A certificate expires no later
	// than its CA.
	// +optional
	// +kubebuilder:default="24h"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10s') && duration(self) <= duration('876000h')",message="spec.certificate.maxDuration must be between 10s and 876000h"
	MaxDuration *metav1.Duration `json:"maxDuration,omitempty"`

	// minDuration is the shortest lifetime of a certificate, from the time of
	// signing to notAfter. Defaults to 10m, the minimum of spec.expirationSeconds,
	// or to maxDuration if that is shorter. Must be at least 1s and no longer than
	// maxDuration. A request for a shorter lifetime is marked Failed. A CA that
	// expires sooner does not sign.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s')",message="spec.certificate.minDuration must be at least 1s"
	MinDuration *metav1.Duration `json:"minDuration,omitempty"`

	// backdate is the period by which notBefore precedes the time of signing, for
	// clients whose clock is slow. Defaults to 5m. Must be between 0s and 1h.
	// +optional
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('1h')",message="spec.certificate.backdate must be between 0s and 1h"
	Backdate *metav1.Duration `json:"backdate,omitempty"`

	// usages lists the key usages and extended key usages that a request can have.
	// Defaults to "digital signature", "key encipherment" and "server auth". A
	// request with another usage is marked Failed.
	// +optional
	// +listType=set
	// +kubebuilder:default={"digital signature","key encipherment","server auth"}
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=9
	// +kubebuilder:validation:items:Enum="digital signature";"content commitment";"key encipherment";"data encipherment";"key agreement";"server auth";"client auth";"code signing";"email protection"
	Usages []certificatesv1.KeyUsage `json:"usages,omitempty"`

	// keyAlgorithms lists the algorithms that the public key of a request can
	// have. Defaults to "RSA", "ECDSA" and "Ed25519". A request with another
	// algorithm is marked Failed.
	// +optional
	// +listType=set
	// +kubebuilder:default={"RSA","ECDSA","Ed25519"}
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=3
	// +kubebuilder:validation:items:Enum="RSA";"ECDSA";"Ed25519"
	KeyAlgorithms []string `json:"keyAlgorithms,omitempty"`

	// subject lists the attributes that are copied from the subject of the request
	// to the certificate. Defaults to "commonName", "organization" and
	// "organizationalUnit". Other attributes are omitted. The empty list omits all
	// attributes.
	// +optional
	// +listType=set
	// +kubebuilder:default={"commonName","organization","organizationalUnit"}
	// +kubebuilder:validation:MaxItems=3
	// +kubebuilder:validation:items:Enum="commonName";"organization";"organizationalUnit"
	Subject []SubjectAttribute `json:"subject,omitempty"`

	// crlDistributionPoints lists the URLs of the certificate revocation list of
	// the CA, at most 4. They are set in each certificate (RFC 5280, section
	// 4.2.1.13). Countersign does not publish revocation lists. Defaults to none.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:MaxLength=2048
	// +kubebuilder:validation:items:Pattern=`^https?://`
	CRLDistributionPoints []string `json:"crlDistributionPoints,omitempty"`

	// ocspServers lists the URLs of the OCSP responders of the CA, at most 4. They
	// are set in each certificate (RFC 5280, section 4.2.2.1). Countersign does
	// not run a responder. Defaults to none.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:MaxLength=2048
	// +kubebuilder:validation:items:Pattern=`^https?://`
	OCSPServers []string `json:"ocspServers,omitempty"`

	// issuingCertificateURLs lists the URLs of the CA certificate, at most 4. They
	// are set in each certificate (RFC 5280, section 4.2.2.1). Defaults to none.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:MaxLength=2048
	// +kubebuilder:validation:items:Pattern=`^https?://`
	IssuingCertificateURLs []string `json:"issuingCertificateURLs,omitempty"`
}

// SubjectAttribute is an attribute of a distinguished name (RFC 5280, section
// 4.1.2.4).
type SubjectAttribute string

// The subject attributes that a certificate can have.
const (
	SubjectCommonName         SubjectAttribute = "commonName"
	SubjectOrganization       SubjectAttribute = "organization"
	SubjectOrganizationalUnit SubjectAttribute = "organizationalUnit"
)

// Trust configures where the CA certificates of a Signer are published.
//
// The published certificates are the CA that signs, the next CA of a rotation,
// and earlier CAs until the certificates that they issued have expired.
type Trust struct {
	// clusterTrustBundle publishes the CA certificates in a ClusterTrustBundle.
	// Defaults to false. Its name is signerName with "/" replaced by ":", followed
	// by ":" and the name of the Signer, such as "example.com:serving:serving".
	// The signer process requires RBAC for this name, and the verb "attest" on
	// signerName.
	// +optional
	ClusterTrustBundle bool `json:"clusterTrustBundle,omitempty"`

	// configMap publishes the CA certificates in a ConfigMap in each selected
	// namespace.
	// +optional
	ConfigMap *TrustConfigMap `json:"configMap,omitempty"`

	// propagation is the period between the publication of a new CA and its first
	// signature. Defaults to 10m. Must be between 0s and 876000h. Set it to the
	// time in which all clients reload the published certificates. The kubelet
	// updates a ConfigMap in running Pods within about 2 minutes, and a
	// ClusterTrustBundle that is mounted by name within about 7 minutes. The next
	// CA signs earlier if the current CA expires too soon to issue a certificate
	// of spec.certificate.minDuration.
	// +optional
	// +kubebuilder:default="10m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('876000h')",message="spec.trust.propagation must be between 0s and 876000h"
	Propagation *metav1.Duration `json:"propagation,omitempty"`

	// distrusted lists SHA-256 fingerprints of CA certificates, at most 64, in
	// lower-case hex without colons. A listed CA does not sign and is removed from
	// what is published, even if certificates that it issued are still valid. A
	// listed managed CA is replaced immediately.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:Pattern=`^[0-9a-f]{64}$`
	Distrusted []string `json:"distrusted,omitempty"`
}

// TrustConfigMap is a ConfigMap with the CA certificates, in each selected
// namespace.
type TrustConfigMap struct {
	// name is the name of the ConfigMap in each namespace. The signer process
	// requires RBAC for this name.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// key is the key of the PEM certificates in the ConfigMap. Defaults to
	// "ca.crt".
	// +optional
	// +kubebuilder:default="ca.crt"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key,omitempty"`

	// namespaceSelector selects the namespaces by their labels. The empty selector
	// selects all namespaces.
	// +required
	NamespaceSelector metav1.LabelSelector `json:"namespaceSelector"`
}

// SignerStatus is the state of a Signer that the signer process reports.
type SignerStatus struct {
	// observedGeneration is the metadata.generation to which conditions refer.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// ca describes the CA certificate that signs. Absent if no CA can sign.
	// +optional
	CA *CAStatus `json:"ca,omitempty"`

	// trustAnchors lists the published CA certificates. The CA that signs is the
	// first entry. A rotation continues from this list after a restart.
	// +optional
	// +listType=map
	// +listMapKey=fingerprint
	TrustAnchors []TrustAnchor `json:"trustAnchors,omitempty"`

	// bundleSHA256 is the SHA-256, in lower-case hex, of the published PEM.
	// +optional
	BundleSHA256 string `json:"bundleSHA256,omitempty"`

	// published names the objects that the signer wrote. The signer removes them
	// when spec.trust no longer requests them.
	// +optional
	Published *PublishedTrust `json:"published,omitempty"`

	// conditions has "Ready", "TrustPublished" and "Rotating". "Ready" is true if
	// the Signer issues certificates. "TrustPublished" is true if all objects in
	// spec.trust have the CA certificates. "Rotating" is true from the creation of
	// the next CA to its first signature.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// CAStatus describes a CA certificate.
type CAStatus struct {
	// subject is the subject of the certificate, as an RFC 2253 string.
	Subject string `json:"subject"`
	// fingerprint is the SHA-256 of the DER of the certificate, in lower-case hex.
	Fingerprint string `json:"fingerprint"`
	// notAfter is the time at which the certificate expires.
	NotAfter metav1.Time `json:"notAfter"`
}

// TrustAnchorPhase is the phase of a CA in a rotation.
type TrustAnchorPhase string

// The phases of a CA, in their order.
const (
	// TrustAnchorNext is a CA that does not sign yet. It is published, or is about to be.
	TrustAnchorNext TrustAnchorPhase = "Next"
	// TrustAnchorCurrent is the CA that signs, itself or through an intermediate.
	TrustAnchorCurrent TrustAnchorPhase = "Current"
	// TrustAnchorRetiring is a CA that no longer signs. It is published until the certificates below
	// it have expired.
	TrustAnchorRetiring TrustAnchorPhase = "Retiring"
)

// TrustAnchor is a CA certificate that clients must trust.
type TrustAnchor struct {
	// fingerprint is the SHA-256 of the DER of the certificate, in lower-case hex.
	Fingerprint string `json:"fingerprint"`
	// subject is the subject of the certificate, as an RFC 2253 string.
	Subject string `json:"subject"`
	// notAfter is the time at which the certificate expires.
	NotAfter metav1.Time `json:"notAfter"`
	// phase is the phase of the CA. "Next": it does not sign yet. "Current": it
	// signs. "Retiring": it no longer signs, and certificates below it are still
	// valid.
	// +kubebuilder:validation:Enum=Next;Current;Retiring
	Phase TrustAnchorPhase `json:"phase"`
	// publishedAt is the time at which all objects in spec.trust first had the
	// certificate. Absent until then.
	// +optional
	PublishedAt *metav1.Time `json:"publishedAt,omitempty"`
	// maxDuration is the spec.certificate.maxDuration with which the CA signs, or
	// last signed.
	// +optional
	MaxDuration *metav1.Duration `json:"maxDuration,omitempty"`
	// leavesUntil is the time at which the last leaf certificate below the CA
	// expires. Set if the CA is retiring or maxDuration was longer before.
	// +optional
	LeavesUntil *metav1.Time `json:"leavesUntil,omitempty"`
	// certificate is the certificate in PEM.
	Certificate string `json:"certificate"`
}

// PublishedTrust names the objects that contain the CA certificates of a
// Signer.
type PublishedTrust struct {
	// clusterTrustBundle is the name of the ClusterTrustBundle.
	// +optional
	ClusterTrustBundle string `json:"clusterTrustBundle,omitempty"`
	// configMap is the name of the ConfigMap in each namespace.
	// +optional
	ConfigMap string `json:"configMap,omitempty"`
}

// RotateAnnotation requests a rotation of the managed CA of a Signer if its
// value is "now". The signer removes the annotation when it creates the next
// CA.
const RotateAnnotation = "countersign.dev/rotate"

// ManagedCASecretType is the type of the Secret of a managed CA.
const ManagedCASecretType corev1.SecretType = "countersign.dev/managed-ca" //nolint:gosec // the name of a type, not a secret

// SignerList is a list of Signers.
//
// +kubebuilder:object:root=true
type SignerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Signer `json:"items"`
}

// Condition types of a Signer, in addition to [ConditionReady].
const (
	// ConditionTrustPublished is true if all objects in spec.trust have the CA certificates.
	ConditionTrustPublished = "TrustPublished"
	// ConditionRotating is true from the creation of the next CA to its first signature.
	ConditionRotating = "Rotating"
)

// ConditionApprovalTooOld is true on a CertificateSigningRequest that was
// approved longer ago than [SignerSpec.MaxApprovalAge]. The signer does not
// sign the request.
const ConditionApprovalTooOld = "ApprovalTooOld"

// Reasons of the condition Ready of a Signer. Each example is a message with
// that reason; tests compare the examples with the messages that the signer
// writes.
const (
	// ReasonCALoaded: the CA is loaded and signs.
	// Example: "CN=My Example Signer, valid until 2036-03-01T12:00:00Z"
	ReasonCALoaded = "CALoaded"
	// ReasonSecretNotFound: the Secret in spec.ca.secretRef does not exist or cannot be read.
	// Example: "Secret countersign-system/serving-ca does not exist: create it with 'kubectl create secret tls serving-ca --namespace=countersign-system --cert=ca.crt --key=ca.key'"
	ReasonSecretNotFound = "SecretNotFound"
	// ReasonFileNotFound: the files in spec.ca.file do not exist or cannot be read.
	// Example: "the signer reads no files: mount the CA, and set --ca-dir to the directory above serving"
	ReasonFileNotFound = "FileNotFound"
	// ReasonInvalidCA: the Secret or the files do not contain a usable CA.
	// Example: "the certificate \"CN=My Example Signer\" is not a CA certificate: its basic constraints must be CA:TRUE"
	ReasonInvalidCA = "InvalidCA"
	// ReasonCAKeyMismatch: the private key does not match the CA certificate.
	// Example: "tls.key does not match the first certificate in tls.crt, \"CN=My Example Signer\": replace both together, and put the CA certificate before its issuers"
	ReasonCAKeyMismatch = "CAKeyMismatch"
	// ReasonCAExpired: the CA certificate has expired, or expires too soon to issue the shortest
	// certificate.
	// Example: "the certificate \"CN=My Example Signer\" expired at 2036-03-01T12:00:00Z: replace the CA with a renewed one"
	ReasonCAExpired = "CAExpired"
	// ReasonCANotYetValid: the CA certificate is not valid yet.
	// Example: "the certificate \"CN=My Example Signer\" is not valid before 2025-03-01T12:00:00Z: wait until then, or correct the clock"
	ReasonCANotYetValid = "CANotYetValid"
	// ReasonCADistrusted: the CA or one of its issuers is listed in spec.trust.distrusted.
	// Example: "\"CN=My Example Signer\", or one of its issuers, is listed in spec.trust.distrusted: use another CA"
	ReasonCADistrusted = "CADistrusted"
	// ReasonCAPropagating: the key of the previous CA is lost, and the next CA does not sign until
	// spec.trust.propagation has passed. Approved requests stay pending.
	// Example: "the key of \"CN=My Example Signer\" (0a1b2c3d) is lost, and clients must trust \"CN=My Example Signer\" (4e5f6a7b) before it signs: it signs from 2026-03-01T12:10:00Z; requests stay pending. If no client trusts the former, list its fingerprint in spec.trust.distrusted"
	ReasonCAPropagating = "CAPropagating"
	// ReasonInvalidProfile: the spec is invalid. The API server already rejects most invalid specs.
	// Example: "maxDuration 5s is invalid: must be at least 10s"
	ReasonInvalidProfile = "InvalidProfile"
	// ReasonNotManaged: the type of the Secret in spec.ca.managed or spec.ca.secretRef does not match
	// the field.
	// Example: "Secret serving-ca has type kubernetes.io/tls, not countersign.dev/managed-ca: set spec.ca.managed.secretName to another name, or use the CA in the Secret with spec.ca.secretRef"
	ReasonNotManaged = "NotManaged"
	// ReasonSecretReadOnly: the signer cannot write the Secret of a managed CA.
	// Example: "the signer is not allowed to write Secret countersign-system/serving-ca: add its name to resourceNames in the signer's Role for secrets, with the verbs create and patch"
	ReasonSecretReadOnly = "SecretReadOnly"
	// ReasonDuplicateSecret: another Signer stores its managed CA in the same Secret. The Signer
	// issues nothing.
	// Example: "the older Signer serving keeps its CA in the same Secret serving-ca: set spec.ca.managed.secretName to another name"
	ReasonDuplicateSecret = "DuplicateSecret"
	// ReasonDuplicateSigner: an older Signer has the same spec.signerName. The Signer issues nothing.
	// Example: "the older Signer serving has the same signerName example.com/serving: this one issues no certificates; delete one of them"
	ReasonDuplicateSigner = "DuplicateSigner"
)

// Reasons of the condition Rotating of a Signer.
const (
	// ReasonPublishing: the next CA exists and is not published everywhere yet.
	// Example: "\"CN=My Example Signer\" (0a1b2c3d): it signs 10m0s after it has been published everywhere, see the condition TrustPublished, and not later than 2036-03-01T11:50:00Z"
	ReasonPublishing = "Publishing"
	// ReasonPropagating: the next CA is published, and spec.trust.propagation has not passed.
	// Example: "\"CN=My Example Signer\" (0a1b2c3d): it signs from 2026-03-01T12:10:00Z"
	ReasonPropagating = "Propagating"
	// ReasonOverlapping: the newest CA signs, and an earlier CA is still published.
	// Example: "\"CN=My Example Signer\" (0a1b2c3d) is published until 2026-03-02T12:10:30Z, when its last certificate expires"
	ReasonOverlapping = "Overlapping"
	// ReasonSettled: one CA is published.
	// Example: "one CA is trusted"
	ReasonSettled = "Settled"
	// ReasonRotationFailed: the CA must be rotated, and the next CA cannot be created.
	// Example: "\"CN=My Example Signer\" expires at 2036-03-01T13:00:00Z, and its root soon after: put a renewed root into Secret root-ca"
	ReasonRotationFailed = "RotationFailed"
)

// Reasons of the condition TrustPublished of a Signer.
const (
	// ReasonPublished: all objects in spec.trust have the CA certificates.
	// Example: "ClusterTrustBundle example.com:serving:serving; ConfigMap example-ca in 12 namespaces"
	ReasonPublished = "Published"
	// ReasonPublishFailed: an object cannot be written, because of an error of the API server or a
	// missing permission of the signer. The next CA does not sign until it is fixed.
	// Example: "there is no CA to publish until the Signer is ready; earlier publications stay unchanged"
	ReasonPublishFailed = "PublishFailed"
	// ReasonPublishRefused: the ConfigMap cannot be written in some namespaces, because of an object, a
	// quota or a policy there. A rotation does not wait for them, unless all namespaces refuse.
	// Example: "ConfigMap example-ca in 11 namespaces; not in ns-3/example-ca: the ConfigMap is immutable or has binaryData, and a finalizer prevents its deletion: remove the finalizer"
	ReasonPublishRefused = "PublishRefused"
	// ReasonWithdrawn: the published objects are removed, because all CAs are listed in
	// spec.trust.distrusted.
	// Example: "no CA is published, because every CA is listed in spec.trust.distrusted"
	ReasonWithdrawn = "Withdrawn"
	// ReasonNotRequested: spec.trust requests neither a ConfigMap nor a ClusterTrustBundle.
	// Example: "spec.trust requests neither a ConfigMap nor a ClusterTrustBundle"
	ReasonNotRequested = "NotRequested"
)
