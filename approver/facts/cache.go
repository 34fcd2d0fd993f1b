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
	servicesByIP        = "countersign.serviceIPs"
	nodesByAddress      = "countersign.nodeAddresses"
	requestsByKey       = "countersign.keySHA256"
	keySHA256Annotation = "countersign.dev/key-sha256" // in the cache only, see stripRequest
)

// CacheByObject is how the caches of the approver are kept: stripped to what facts
// need, so that memory grows slowly with the cluster and hardly at all with requests
// that are none of ours. managed says of a signerName whether some policy matches it. Pods are
// not among them: see [Pods].
//
// The request bytes of a request that is decided, or not managed, are not kept. Who
// needs them nevertheless, because a policy came later, reads the request live.
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
		if t, ok := obj.(T); ok { // a tombstone passes as it is
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

// stripRequest keeps a request that may still have to be decided by us, since an update writes
// back all of it. Of any other it keeps the identity, who made it, and a digest of its key. The
// digest stands in an annotation: those of the requester are dropped, so nobody else can have
// written it.
func stripRequest(csr *certificatesv1.CertificateSigningRequest, managed func(string) bool) {
	if len(csr.Spec.Request) > 0 && !certreq.IsDecided(csr) && managed(csr.Spec.SignerName) {
		csr.ManagedFields = nil // which the API server takes as no change
		return
	}
	digest := csr.Annotations[keySHA256Annotation]
	if len(csr.Spec.Request) > 0 {
		digest = keySHA256(csr.Spec.Request)
	}
	stripMeta(&csr.ObjectMeta)
	csr.Labels, csr.OwnerReferences = nil, nil
	csr.Annotations = map[string]string{keySHA256Annotation: digest}
	csr.Status.Certificate = nil
	csr.Spec.Request, csr.Spec.Usages, csr.Spec.Groups = nil, nil, nil
	pod := csr.Spec.Extra[certreq.PodUIDExtra]
	csr.Spec.Extra = nil
	if pod != nil {
		csr.Spec.Extra = map[string]certificatesv1.ExtraValue{certreq.PodUIDExtra: pod}
	}
	for i := range csr.Status.Conditions {
		csr.Status.Conditions[i].Message = ""
	}
}

// digestOf is the digest of the key of a request as the cache keeps it. The annotation is ours only
// where the bytes are not kept.
func digestOf(csr *certificatesv1.CertificateSigningRequest) string {
	if IsStripped(csr) {
		return csr.Annotations[keySHA256Annotation]
	}
	return keySHA256(csr.Spec.Request)
}

// IsStripped says that the cache did not keep the bytes of a request: read it live.
func IsStripped(csr *certificatesv1.CertificateSigningRequest) bool {
	return len(csr.Spec.Request) == 0
}

// keySHA256 is the SHA-256 of the SubjectPublicKeyInfo of a PEM PKCS#10 request, found
// without judging the rest of it; empty if there is none. A request may be malformed in
// any other way and still be the first to show a key.
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

// AddIndexes adds the indexes that [Gatherer] looks things up by.
func AddIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	return errors.Join(
		indexer.IndexField(ctx, &corev1.Service{}, servicesByIP, func(obj client.Object) []string {
			service, ok := obj.(*corev1.Service)
			if !ok {
				return nil
			}
			return canonical(append(clusterIPs(service), service.Spec.ExternalIPs...))
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

func nodeAddresses(node *corev1.Node) []string {
	out := make([]string, 0, len(node.Status.Addresses))
	for _, address := range node.Status.Addresses {
		if ip, err := netip.ParseAddr(address.Address); err == nil {
			out = append(out, ip.Unmap().String())
		} else {
			out = append(out, address.Address)
		}
	}
	return out
}

// canonical keeps what is an IP address ("None" is not), in its canonical text form.
func canonical(ips []string) []string {
	out := make([]string, 0, len(ips))
	for _, s := range ips {
		if ip, err := netip.ParseAddr(s); err == nil {
			out = append(out, ip.Unmap().String())
		}
	}
	return out
}
