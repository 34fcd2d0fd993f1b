// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package facts gathers the input of policies.
//
// [Facts] is the document that Rego sees as `input`. Only this package creates it. Every key is always
// present, and unknown values are null or empty, so that a policy does not refer to an undefined
// value by accident. The JSON Schema of the document is generated from these types
// (policies/schema/input.json).
//
// Nothing in the document comes from the labels or annotations of a request, which the requester can
// choose and change. request.name is for messages only.
package facts

import (
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// MaxSize is the maximum size of the facts that policies evaluate, in bytes of JSON. Most requests have a
// few thousand, and 64 names of Services with long names take about 60,000. Facts are never shortened,
// since a policy can depend on what is absent: see [Gathered.TooLarge].
const MaxSize = 128 << 10

// Facts is the input document of a policy.
type Facts struct {
	// Request is the certificate request as the API server stores it.
	Request Request `json:"request"`
	// Requester is the user that created the request, from spec.username, uid, groups and extra. The API server sets these fields.
	Requester Requester `json:"requester"`
	// PKCS10 is the content of the PKCS#10 request. Its self-signature has been verified.
	PKCS10 PKCS10 `json:"pkcs10"`
	// Cluster is the state of the live cluster: the subject, and the objects that have the requested names.
	Cluster Cluster `json:"cluster"`
	// Parameters are spec.parameters of the ApprovalPolicy.
	Parameters map[string]any `json:"parameters"`
	// Now is the time of the evaluation, RFC 3339 in UTC.
	Now time.Time `json:"now"`
}

// Request is the certificate request as the API server stores it.
type Request struct {
	// Kind is "CertificateSigningRequest".
	Kind string `json:"kind"`
	// Name of the object: chosen by the requester, for messages only.
	Name string `json:"name"`
	// Namespace of the object; empty for a CertificateSigningRequest.
	Namespace string `json:"namespace"`
	// UID of the object.
	UID types.UID `json:"uid"`
	// SignerName is the requested signer.
	SignerName string `json:"signerName"`
	// Usages that are requested, by their Kubernetes names, such as "server auth".
	Usages []certificatesv1.KeyUsage `json:"usages"`
	// ExpirationSeconds is the requested lifetime; null means the default of the signer.
	ExpirationSeconds *int32 `json:"expirationSeconds"`
	// CreatedAt is the creation time of the object, RFC 3339, to the second.
	CreatedAt time.Time `json:"createdAt"`
}

// Requester is the user that created the request.
type Requester struct {
	// Username as authenticated.
	Username string `json:"username"`
	// UID as authenticated; can be empty.
	UID string `json:"uid"`
	// Groups as authenticated.
	Groups []string `json:"groups"`
	// ServiceAccount of the username, or null.
	ServiceAccount *ServiceAccountRef `json:"serviceAccount"`
	// Pod that the requester's token is bound to, or null. It existed when the request was created: compare cluster.subject.pod.
	Pod *ObjectRef `json:"pod"`
	// Node that the requester's token is bound to, or null.
	Node *ObjectRef `json:"node"`
	// CredentialID of the token, or empty.
	CredentialID string `json:"credentialID"`
}

// ServiceAccountRef names a ServiceAccount.
type ServiceAccountRef struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// ObjectRef identifies an object by its name and UID.
type ObjectRef struct {
	Name string    `json:"name"`
	UID  types.UID `json:"uid"`
}

// PKCS10 is the content of a PKCS#10 request (RFC 2986).
type PKCS10 struct {
	Subject Subject `json:"subject"`
	// DNSNames of the subject alternative name extension, as written.
	DNSNames []string `json:"dnsNames"`
	// IPAddresses of the subject alternative name extension, in their canonical text form.
	IPAddresses []string `json:"ipAddresses"`
	// URIs of the subject alternative name extension.
	URIs []string `json:"uris"`
	// EmailAddresses of the subject alternative name extension.
	EmailAddresses []string `json:"emailAddresses"`
	// Usages in the extensions of the PKCS#10 request itself; often empty.
	Usages []certificatesv1.KeyUsage `json:"usages"`
	Key    Key                       `json:"key"`
}

// Subject is the requested distinguished name.
type Subject struct {
	CommonName          string      `json:"commonName"`
	Organizations       []string    `json:"organizations"`
	OrganizationalUnits []string    `json:"organizationalUnits"`
	Other               []Attribute `json:"other"`
}

// Attribute is an attribute of a distinguished name without a field of its own.
type Attribute struct {
	// OID is the attribute's type, dotted.
	OID   string `json:"oid"`
	Value string `json:"value"`
}

// Key describes the public key of the request.
type Key struct {
	// Algorithm is RSA, ECDSA or Ed25519.
	Algorithm string `json:"algorithm"`
	// Bits is the length of the modulus or of the curve's field.
	Bits int `json:"bits"`
	// SHA256 of the DER SubjectPublicKeyInfo, in lower-case hex.
	SHA256 string `json:"sha256"`
}

// Cluster is the state of the live cluster.
type Cluster struct {
	// Domain is the cluster's DNS domain, such as "cluster.local".
	Domain string `json:"domain"`
	// Subject is the Pod or Node that the request is for.
	Subject ClusterSubject `json:"subject"`
	// Resolved lists, for each requested DNS name and address, the objects in the cluster that have it.
	Resolved map[string][]Resolved `json:"resolved"`
	// Delegation reports whether a requester that is not the subject is allowed to act for it.
	Delegation Delegation `json:"delegation"`
	// SameKey are requests with this public key by other requesters that were created before this request, or possibly before. Later copies are omitted.
	SameKey []SameKey `json:"sameKey"`
}

// ClusterSubject is the subject of the request: the requester's own Pod, the Node of a kubelet or, for a delegate, the only Pod that the names resolve to.
type ClusterSubject struct {
	// Pod with the name that the requester's token is bound to. Its UID can differ from requester.pod.uid, if the Pod was replaced. Null if there is none.
	Pod *Pod `json:"pod"`
	// ServiceAccount of the Pod, or null.
	ServiceAccount *ServiceAccountRef `json:"serviceAccount"`
	// Namespace of the Pod, or null.
	Namespace *Namespace `json:"namespace"`
	// Node of a requester with the identity of a kubelet, or null.
	Node *Node `json:"node"`
	// Services of that namespace whose selector selects the Pod.
	Services []Service `json:"services"`
	// Candidates is the number of Pods that the names of a delegate's request resolve to; 0 for the request of a Pod.
	Candidates int `json:"candidates"`
}

// Pod contains the fields of a Pod that policies can use.
type Pod struct {
	Name               string            `json:"name"`
	Namespace          string            `json:"namespace"`
	UID                types.UID         `json:"uid"`
	Labels             map[string]string `json:"labels"`
	PodIPs             []string          `json:"podIPs"`
	Phase              corev1.PodPhase   `json:"phase"`
	Deleting           bool              `json:"deleting"`
	HostNetwork        bool              `json:"hostNetwork"`
	Hostname           string            `json:"hostname"`
	Subdomain          string            `json:"subdomain"`
	ServiceAccountName string            `json:"serviceAccountName"`
	NodeName           string            `json:"nodeName"`
	Ready              bool              `json:"ready"`
	Owners             []Owner           `json:"owners"`
}

// Node contains the fields of a Node that policies can use.
type Node struct {
	Name     string            `json:"name"`
	UID      types.UID         `json:"uid"`
	Labels   map[string]string `json:"labels"`
	Deleting bool              `json:"deleting"`
	// Addresses that the kubelet or a cloud provider reports; empty until then.
	Addresses []NodeAddress `json:"addresses"`
}

// NodeAddress is one name or address of a Node.
type NodeAddress struct {
	// Type is Hostname, InternalDNS, ExternalDNS, InternalIP or ExternalIP.
	Type corev1.NodeAddressType `json:"type"`
	// Address is a DNS name as reported, or an IP address in its canonical text form.
	Address string `json:"address"`
}

// Owner is an owner reference.
type Owner struct {
	Kind       string    `json:"kind"`
	Name       string    `json:"name"`
	UID        types.UID `json:"uid"`
	Controller bool      `json:"controller"`
}

// Namespace contains the fields of a Namespace that policies can use.
type Namespace struct {
	Name     string            `json:"name"`
	UID      types.UID         `json:"uid"`
	Labels   map[string]string `json:"labels"`
	Deleting bool              `json:"deleting"`
}

// Service contains the fields of a Service that policies can use.
type Service struct {
	Name       string             `json:"name"`
	Namespace  string             `json:"namespace"`
	UID        types.UID          `json:"uid"`
	Labels     map[string]string  `json:"labels"`
	Type       corev1.ServiceType `json:"type"`
	Selector   map[string]string  `json:"selector"`
	ClusterIPs []string           `json:"clusterIPs"`
	Ports      []int32            `json:"ports"`
	Deleting   bool               `json:"deleting"`
}

// Resolved is an object in the cluster that has a requested name or address.
type Resolved struct {
	// Kind is Pod, Service or Node.
	Kind      string    `json:"kind"`
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	UID       types.UID `json:"uid"`
	// SelectsSubject is true if it is a Service that selects the subject's Pod, or that Pod itself.
	SelectsSubject bool `json:"selectsSubject"`
	// Detail is a clause for messages, such as "selects app=web; my-pod has app=api".
	Detail string `json:"detail"`
}

// Delegation is the answer to a SubjectAccessReview: whether the requester is allowed to `create`
// certificatesigningrequests/delegated in the namespace of the subject.
type Delegation struct {
	Allowed bool `json:"allowed"`
	// Reason of the answer, or the reason that no review was necessary.
	Reason string `json:"reason"`
}

// SameKey is a request with the same public key by another requester.
type SameKey struct {
	Name     string `json:"name"`
	Username string `json:"username"`
	// CreatedAt is the creation time of that request, RFC 3339, to the second.
	CreatedAt time.Time `json:"createdAt"`
	// Earlier is true if that request was created before this one, and false if that is unknown.
	Earlier bool `json:"earlier"`
}
