// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net/netip"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/internal/certreq"
)

// Names of the cache indexes.
const (
	servicesByIP        = "countersign.clusterIPs"
	nodesByAddress      = "countersign.nodeAddresses"
	requestsByKey       = "countersign.keySHA256"
	keySHA256Annotation = "countersign.dev/key-sha256" // in the cache only, see stripRequest
)

// CacheByObject returns the options of the cache. The cache stores only the fields that facts need,
// so that its memory grows slowly with the cluster, and hardly at all with requests for other
// signers. managed reports whether a policy matches a signerName. Pods have a store of their own:
// see [Pods].
//
// The cache stores no labels and annotations of requests. It does not store the PKCS#10 of a request
// that is decided, not managed, or larger than 4 KiB. Read such a request live: see [IsStripped].
func CacheByObject(managed func(signerName string) bool) map[client.Object]cache.ByObject {
	return map[client.Object]cache.ByObject{
		&corev1.Service{}:   {Transform: transform(stripService)},
		&corev1.Node{}:      {Transform: transform(stripNode)},
		&corev1.Namespace{}: {Transform: transform(stripNamespace)},
		&certificatesv1.CertificateSigningRequest{}: {Transform: transform(func(csr *certificatesv1.CertificateSigningRequest) {
			stripRequest(csr, managed)
		})},
	}
}

func transform[T any](strip func(T)) func(any) (any, error) {
	return func(obj any) (any, error) {
		if t, ok := obj.(T); ok { // a tombstone is not changed
			strip(t)
		}
		return obj, nil
	}
}

func stripMeta(m *metav1.ObjectMeta) {
	*m = metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion,
		CreationTimestamp: m.CreationTimestamp, DeletionTimestamp: m.DeletionTimestamp,
		Labels: m.Labels, OwnerReferences: m.OwnerReferences,
	}
}

func stripService(service *corev1.Service) {
	stripMeta(&service.ObjectMeta)
	service.Status = corev1.ServiceStatus{}
}

func stripNode(node *corev1.Node) {
	stripMeta(&node.ObjectMeta)
	node.Labels = nil
	node.Spec = corev1.NodeSpec{}
	node.Status = corev1.NodeStatus{Addresses: node.Status.Addresses}
}

func stripNamespace(namespace *corev1.Namespace) {
	stripMeta(&namespace.ObjectMeta)
	namespace.Spec, namespace.Status = corev1.NamespaceSpec{}, corev1.NamespaceStatus{}
}

// maxRequest is the maximum size of an undecided request that is stored completely, in bytes. A request
// with an RSA key of 4096 bits, by a Pod, takes 2.5 KiB. Larger requests are read live, see [IsStripped].
const maxRequest = 4 << 10

// stripRequest removes all metadata that the requester chooses. It reduces a request that is decided,
// not managed or large to its identity, its requester and a digest of its key. The digest is in an
// annotation. The annotations of the requester are removed, so the digest cannot be forged.
func stripRequest(csr *certificatesv1.CertificateSigningRequest, managed func(string) bool) {
	digest := csr.Annotations[keySHA256Annotation]
	csr.ObjectMeta = metav1.ObjectMeta{
		Name: csr.Name, UID: csr.UID, ResourceVersion: csr.ResourceVersion,
		CreationTimestamp: csr.CreationTimestamp, DeletionTimestamp: csr.DeletionTimestamp,
	}
	if !IsStripped(csr) {
		if !certreq.IsDecided(csr) && managed(csr.Spec.SignerName) && requestSize(csr) <= maxRequest {
			return
		}
		digest = keySHA256(csr.Spec.Request)
	}
	csr.Annotations = map[string]string{keySHA256Annotation: digest}
	csr.Status.Certificate = nil
	csr.Spec.Request, csr.Spec.Usages, csr.Spec.Groups = nil, nil, nil
	pod := csr.Spec.Extra[certreq.PodUIDExtra]
	csr.Spec.Extra = nil
	if pod != nil {
		csr.Spec.Extra = map[string]certificatesv1.ExtraValue{certreq.PodUIDExtra: pod}
	}
	conditions := make([]certificatesv1.CertificateSigningRequestCondition, 0, len(csr.Status.Conditions))
	for _, c := range csr.Status.Conditions {
		switch c.Type {
		case certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
			conditions = append(conditions, certificatesv1.CertificateSigningRequestCondition{Type: c.Type, Status: c.Status, LastUpdateTime: c.LastUpdateTime})
		}
	}
	csr.Status.Conditions = conditions
}

// requestSize returns the number of bytes of a request that vary.
func requestSize(csr *certificatesv1.CertificateSigningRequest) int {
	spec := &csr.Spec
	size := len(spec.Request) + len(spec.Username) + len(spec.UID) + len(csr.Status.Certificate)
	for _, usage := range spec.Usages {
		size += len(usage)
	}
	for _, group := range spec.Groups {
		size += len(group)
	}
	for key, values := range spec.Extra {
		size += len(key)
		for _, value := range values {
			size += len(value)
		}
	}
	for i := range csr.Status.Conditions {
		c := &csr.Status.Conditions[i]
		size += len(c.Type) + len(c.Reason) + len(c.Message)
	}
	return size
}

// digestOf returns the digest of the key of a cached request. The annotation is trusted only if the
// PKCS#10 was removed.
func digestOf(csr *certificatesv1.CertificateSigningRequest) string {
	if IsStripped(csr) {
		return csr.Annotations[keySHA256Annotation]
	}
	return keySHA256(csr.Spec.Request)
}

// IsStripped reports whether the PKCS#10 of a cached request was removed. Read the request live then.
func IsStripped(csr *certificatesv1.CertificateSigningRequest) bool {
	return len(csr.Spec.Request) == 0
}

// keySHA256 returns the SHA-256 of the SubjectPublicKeyInfo of a PEM PKCS#10 request, or "" if there is
// none. It does not validate the rest: a malformed request can be the first one with a key.
func keySHA256(request []byte) string {
	block, _ := pem.Decode(request)
	if block == nil {
		return ""
	}
	// CertificationRequest ::= SEQUENCE { SEQUENCE { version, subject, subjectPKInfo, ... } ... }, RFC 2986 section 4.
	der := cryptobyte.String(block.Bytes)
	var outer, info, spki cryptobyte.String
	if !der.ReadASN1(&outer, asn1.SEQUENCE) || !outer.ReadASN1(&info, asn1.SEQUENCE) ||
		!info.SkipASN1(asn1.INTEGER) || !info.SkipASN1(asn1.SEQUENCE) || !info.ReadASN1Element(&spki, asn1.SEQUENCE) {
		return ""
	}
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// AddIndexes adds the indexes that [Gatherer] needs.
func AddIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	return errors.Join(
		indexer.IndexField(ctx, &corev1.Service{}, servicesByIP, func(obj client.Object) []string {
			service, ok := obj.(*corev1.Service)
			if !ok {
				return nil
			}
			return clusterIPs(service)
		}),
		indexer.IndexField(ctx, &corev1.Node{}, nodesByAddress, func(obj client.Object) []string {
			node, ok := obj.(*corev1.Node)
			if !ok {
				return nil
			}
			return nodeAddresses(node)
		}),
		indexer.IndexField(ctx, &certificatesv1.CertificateSigningRequest{}, requestsByKey, func(obj client.Object) []string {
			if csr, ok := obj.(*certificatesv1.CertificateSigningRequest); ok {
				if digest := digestOf(csr); digest != "" {
					return []string{digest}
				}
			}
			return nil
		}),
	)
}

func finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func podIPs(pod *corev1.Pod) []string {
	ips := make([]string, 0, len(pod.Status.PodIPs))
	for _, ip := range pod.Status.PodIPs {
		ips = append(ips, ip.IP)
	}
	return canonical(ips)
}

func clusterIPs(service *corev1.Service) []string {
	if len(service.Spec.ClusterIPs) > 0 {
		return canonical(service.Spec.ClusterIPs)
	}
	return canonical([]string{service.Spec.ClusterIP})
}

// nodeAddresses returns the name of a Node, and the names and addresses that it reports.
func nodeAddresses(node *corev1.Node) []string {
	out := make([]string, 0, 1+len(node.Status.Addresses))
	out = append(out, node.Name)
	for _, address := range node.Status.Addresses {
		if ip, err := netip.ParseAddr(address.Address); err == nil {
			out = append(out, ip.Unmap().String())
		} else {
			out = append(out, foldName(address.Address))
		}
	}
	return out
}

// canonical returns the IP addresses in their canonical text form, without other strings such as "None".
func canonical(ips []string) []string {
	out := make([]string, 0, len(ips))
	for _, s := range ips {
		if ip, err := netip.ParseAddr(s); err == nil {
			out = append(out, ip.Unmap().String())
		}
	}
	return out
}
