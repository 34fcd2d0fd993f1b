// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"net/netip"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"countersign.dev/countersign/internal/certreq"
	"countersign.dev/countersign/pkcs10"
)

func requestOf(csr *certificatesv1.CertificateSigningRequest) Request {
	return Request{
		Kind: "CertificateSigningRequest", Name: csr.Name, UID: csr.UID,
		SignerName: csr.Spec.SignerName, Usages: list(csr.Spec.Usages),
		ExpirationSeconds: csr.Spec.ExpirationSeconds, CreatedAt: csr.CreationTimestamp.UTC(),
	}
}

// requesterOf returns the requester of a request. Only the token of a ServiceAccount can be bound to a
// Pod: the extras of other users are ignored, as are extras with several values.
func requesterOf(spec *certificatesv1.CertificateSigningRequestSpec) Requester {
	r := Requester{Username: spec.Username, UID: spec.UID, Groups: list(spec.Groups)}
	namespace, name, ok := certreq.ServiceAccount(spec.Username)
	if !ok {
		return r
	}
	r.ServiceAccount = &ServiceAccountRef{Namespace: namespace, Name: name}
	r.Pod = boundTo(spec, certreq.PodNameExtra, certreq.PodUIDExtra)
	r.Node = boundTo(spec, certreq.NodeNameExtra, certreq.NodeUIDExtra)
	r.CredentialID = certreq.SingleExtra(spec, certreq.CredentialIDExtra)
	return r
}

// nodeOf returns the name of the Node of a requester with the username and the group of a kubelet
// (KEP-0279, the Node authorizer).
func nodeOf(r *Requester) (string, bool) {
	name, ok := strings.CutPrefix(r.Username, "system:node:")
	return name, ok && isSubdomain(name) && slices.Contains(r.Groups, "system:nodes")
}

func boundTo(spec *certificatesv1.CertificateSigningRequestSpec, nameKey, uidKey string) *ObjectRef {
	name, uid := certreq.SingleExtra(spec, nameKey), certreq.SingleExtra(spec, uidKey)
	if name == "" || uid == "" {
		return nil
	}
	return &ObjectRef{Name: name, UID: types.UID(uid)}
}

func pkcs10Of(r *pkcs10.Request) PKCS10 {
	p := PKCS10{
		Subject: Subject{
			CommonName:          r.Subject.CommonName,
			Organizations:       list(r.Subject.Organizations),
			OrganizationalUnits: list(r.Subject.OrganizationalUnits),
			Other:               []Attribute{},
		},
		DNSNames: list(r.DNSNames), IPAddresses: []string{}, URIs: list(r.URIs),
		EmailAddresses: list(r.EmailAddresses), Usages: list(r.Usages),
		Key: Key{Algorithm: r.Key.Algorithm, Bits: r.Key.Bits, SHA256: r.Key.SHA256},
	}
	for _, a := range r.Subject.Other {
		p.Subject.Other = append(p.Subject.Other, Attribute{OID: a.OID, Value: a.Value})
	}
	for _, ip := range r.IPAddresses {
		p.IPAddresses = append(p.IPAddresses, ip.String())
	}
	return p
}

func podOf(pod *corev1.Pod) *Pod {
	p := &Pod{
		Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID, Labels: labelsOf(pod.Labels),
		PodIPs: podIPs(pod), Phase: pod.Status.Phase, Deleting: pod.DeletionTimestamp != nil,
		HostNetwork: pod.Spec.HostNetwork, Hostname: pod.Spec.Hostname, Subdomain: pod.Spec.Subdomain,
		ServiceAccountName: pod.Spec.ServiceAccountName, NodeName: pod.Spec.NodeName,
		Owners: []Owner{},
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			p.Ready = c.Status == corev1.ConditionTrue
		}
	}
	for _, o := range pod.OwnerReferences {
		p.Owners = append(p.Owners, Owner{Kind: o.Kind, Name: o.Name, UID: o.UID, Controller: o.Controller != nil && *o.Controller})
	}
	return p
}

func namespaceOf(n *corev1.Namespace) *Namespace {
	return &Namespace{Name: n.Name, UID: n.UID, Labels: labelsOf(n.Labels), Deleting: n.DeletionTimestamp != nil}
}

func nodeFacts(node *corev1.Node) *Node {
	out := &Node{
		Name: node.Name, UID: node.UID, Labels: labelsOf(node.Labels), Deleting: node.DeletionTimestamp != nil,
		Addresses: []NodeAddress{},
	}
	for _, reported := range node.Status.Addresses {
		address := reported.Address
		if ip, err := netip.ParseAddr(address); err == nil {
			address = ip.Unmap().String()
		}
		out.Addresses = append(out.Addresses, NodeAddress{Type: reported.Type, Address: address})
	}
	return out
}

func serviceOf(s *corev1.Service) Service {
	out := Service{
		Name: s.Name, Namespace: s.Namespace, UID: s.UID, Labels: labelsOf(s.Labels),
		Type: s.Spec.Type, Selector: labelsOf(s.Spec.Selector),
		ClusterIPs: clusterIPs(s), Ports: []int32{}, Deleting: s.DeletionTimestamp != nil,
	}
	for _, port := range s.Spec.Ports {
		out.Ports = append(out.Ports, port.Port)
	}
	return out
}

// list and labelsOf return an empty value for nil: JSON null is for unknown values only.
func list[S ~[]E, E any](s S) S {
	if s == nil {
		return S{}
	}
	return s
}

func labelsOf(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
