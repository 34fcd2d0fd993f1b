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
	"slices"

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

// Bounds of an object in the cache. The API server accepts objects of 1.5 MiB.
const (
	// maxSelector is the maximum size of the selector of a Service, in bytes. A Service with a larger one selects
	// no Pod in the cache: cached Services explain, and select what to read, but never allow.
	maxSelector = 4 << 10
	// maxClusterIPs is the maximum number of cluster IPs of a Service. The API server accepts one of each family.
	maxClusterIPs = 2
	// maxAddresses is the maximum number of addresses of a Node, and maxAddress the maximum size of each, in bytes.
	maxAddresses = 64
	maxAddress   = 253
)

func stripMeta(m *metav1.ObjectMeta) {
	*m = metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion, DeletionTimestamp: m.DeletionTimestamp,
	}
}

// stripService keeps the names, the cluster IPs and the selector of a Service. It stores the size of the
// whole Service: see [sizeInStore]. An informer can strip an object twice.
func stripService(service *corev1.Service) {
	if service.Generation < 0 { // it is stripped: the API server rejects a negative generation
		return
	}
	size := service.Size()
	stripMeta(&service.ObjectMeta)
	service.Generation = -int64(size)
	ips := service.Spec.ClusterIPs
	spec := corev1.ServiceSpec{
		Type: service.Spec.Type, ClusterIP: service.Spec.ClusterIP,
		ClusterIPs: slices.Clone(ips[:min(len(ips), maxClusterIPs)]), // a part of ips would keep all of it
	}
	if sizeOfMap(service.Spec.Selector) <= maxSelector {
		spec.Selector = service.Spec.Selector
	}
	service.Spec, service.Status = spec, corev1.ServiceStatus{}
}

// sizeInStore returns the size of a cached Service in the store of the API server, in bytes. The
// generation of a cached Service has it, negated: no user can set a negative one.
func sizeInStore(service *corev1.Service) int { return -int(service.Generation) }

// perEntry is about what an entry of a map or a list takes besides its texts, in bytes.
const perEntry = 32

func sizeOfMap(m map[string]string) int {
	size := 0
	for key, value := range m {
		size += perEntry + len(key) + len(value)
	}
	return size
}

func stripNode(node *corev1.Node) {
	stripMeta(&node.ObjectMeta)
	var addresses []corev1.NodeAddress
	for _, address := range node.Status.Addresses {
		if len(address.Address) <= maxAddress && len(addresses) < maxAddresses {
			addresses = append(addresses, corev1.NodeAddress{Address: address.Address})
		}
	}
	node.Spec, node.Status = corev1.NodeSpec{}, corev1.NodeStatus{Addresses: addresses}
}

// stripNamespace keeps only the name: the labels that policies select are read live.
func stripNamespace(namespace *corev1.Namespace) {
	stripMeta(&namespace.ObjectMeta)
	namespace.Spec, namespace.Status = corev1.NamespaceSpec{}, corev1.NamespaceStatus{}
}

// maxRequest is the maximum size of an undecided request that is stored completely, in bytes. A request
// with an RSA key of 4096 bits and 16 names, by a Pod, takes 3.6 KiB. Larger requests are read live, see [IsStripped].
const maxRequest = 4 << 10

// otherCondition stands for all conditions of other types in the cache: a request with one was changed
// since its creation.
const otherCondition certificatesv1.RequestConditionType = "Other"

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
	csr.Status.Conditions = stripConditions(csr.Status.Conditions)
}

// stripConditions returns the conditions without their texts.
func stripConditions(conditions []certificatesv1.CertificateSigningRequestCondition) []certificatesv1.CertificateSigningRequestCondition {
	var out []certificatesv1.CertificateSigningRequestCondition
	for _, c := range conditions {
		switch c.Type {
		case certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
		default:
			c = certificatesv1.CertificateSigningRequestCondition{Type: otherCondition}
		}
		if !slices.ContainsFunc(out, func(other certificatesv1.CertificateSigningRequestCondition) bool { return other.Type == c.Type }) {
			out = append(out, certificatesv1.CertificateSigningRequestCondition{Type: c.Type, Status: c.Status, LastUpdateTime: c.LastUpdateTime})
		}
	}
	return out
}

// requestSize returns about what the parts of a request take that vary, in bytes.
func requestSize(csr *certificatesv1.CertificateSigningRequest) int {
	spec := &csr.Spec
	size := len(spec.Request) + len(spec.Username) + len(spec.UID) + len(csr.Status.Certificate)
	for _, usage := range spec.Usages {
		size += perEntry + len(usage)
	}
	for _, group := range spec.Groups {
		size += perEntry + len(group)
	}
	for key, values := range spec.Extra {
		size += perEntry + len(key)
		for _, value := range values {
			size += perEntry + len(value)
		}
	}
	for i := range csr.Status.Conditions {
		c := &csr.Status.Conditions[i]
		size += perEntry + len(c.Type) + len(c.Reason) + len(c.Message)
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
