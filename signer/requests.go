// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	certificatesv1client "k8s.io/client-go/kubernetes/typed/certificates/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/internal/certreq"
	"countersign.dev/countersign/internal/text"
	"countersign.dev/countersign/internal/watchset"
	"countersign.dev/countersign/pkcs10"
)

// requests keeps the requests that are due, reduced by [dueOnly]: approved and not yet signed. Each signerName has its own
// watch, so the API server sends no requests for signerNames without a Signer. Callers must not modify
// what it returns.
type requests struct {
	*watchset.Set[*certificatesv1.CertificateSigningRequest, certificatesv1.CertificateSigningRequest]
	handler atomic.Pointer[func(*certificatesv1.CertificateSigningRequest)]
}

// newRequests returns a requests that reads from source, such as that of [requestsBySignerName].
func newRequests(source func(signerName string) cache.ListerWatcher) *requests {
	r := &requests{}
	r.Set = watchset.New(watchset.Options[*certificatesv1.CertificateSigningRequest, certificatesv1.CertificateSigningRequest]{
		Object: &certificatesv1.CertificateSigningRequest{}, Source: source, Keep: dueOnly,
		Changed: func(_ context.Context, _ string, changes []watchset.Change[certificatesv1.CertificateSigningRequest]) {
			handle := r.handler.Load()
			for _, c := range changes {
				if c.After != nil && handle != nil {
					(*handle)(c.After)
				}
			}
		},
	})
	return r
}

// requestsBySignerName returns a function that lists and watches the requests for one signerName.
func requestsBySignerName(cfg *rest.Config, http *http.Client) (func(signerName string) cache.ListerWatcher, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.ContentType = runtime.ContentTypeProtobuf
	client, err := certificatesv1client.NewForConfigAndClient(cfg, http)
	if err != nil {
		return nil, fmt.Errorf("creating a client for certificate requests: %w", err)
	}
	return func(signerName string) cache.ListerWatcher {
		return cache.NewListWatchFromClient(client.RESTClient(), "certificatesigningrequests", metav1.NamespaceAll,
			fields.OneTermEqualSelector("spec.signerName", signerName))
	}, nil
}

// Limits of what is kept of a request.
const (
	maxConditions    = 16 // further ones are dropped; the API server and Countersign set at most 3
	maxConditionType = 64 // bytes

	// maxObject is the limit of a request in bytes, with its metadata. The API server cannot store a certificate in an
	// object near the limit of etcd, 1.5 MiB, and returns an internal error, which would be retried.
	maxObject = 1 << 20

	// objectSize is an annotation of requests that are kept, and not on the API server: the KiB of an object that
	// exceeds maxObject.
	objectSize = "size"
)

// dueOnly drops requests that are not due, and returns the part of a due request that the signer reads. A requester
// chooses all metadata, up to 1.5 MiB, and the size of spec.request. The write is a patch, so that metadata and the
// conditions of others survive without being kept.
func dueOnly(csr *certificatesv1.CertificateSigningRequest) *certificatesv1.CertificateSigningRequest {
	if certreq.StateOf(csr) != certreq.Due {
		return nil
	}
	reduced := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{
			Name: csr.Name, UID: csr.UID, ResourceVersion: csr.ResourceVersion, CreationTimestamp: csr.CreationTimestamp,
		},
		Spec: csr.Spec,
	}
	if size := csr.Size(); size > maxObject {
		reduced.Annotations = map[string]string{objectSize: strconv.Itoa(size >> 10)}
	}
	reduced.Spec.Request = reduceRequest(csr.Spec.Request)
	conditions := csr.Status.Conditions
	for i := range conditions[:min(len(conditions), maxConditions)] {
		reduced.Status.Conditions = append(reduced.Status.Conditions, reduceCondition(&conditions[i]))
	}
	return reduced
}

// reduceRequest returns the PEM of a request without the line ends that a requester added to it, and any other text up to
// the first byte above the limit. The signer refuses the result for the same reason as the request.
func reduceRequest(text []byte) []byte {
	if len(text) > pkcs10.MaxSize { // one byte more is refused as well
		return bytes.Clone(text[:pkcs10.MaxSize+1])
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return text
	}
	shortest := pem.EncodeToMemory(block)
	if len(shortest) >= len(text) {
		return text // as clients write it
	}
	if _, err := pkcs10.Parse(text); err != nil { // pem.Decode accepts more
		return text
	}
	return shortest
}

// reduceCondition returns the part of a condition that the signer reads.
func reduceCondition(c *certificatesv1.CertificateSigningRequestCondition) certificatesv1.CertificateSigningRequestCondition {
	reduced := certificatesv1.CertificateSigningRequestCondition{
		Type:   certificatesv1.RequestConditionType(strings.Clone(text.Shorten(string(c.Type), maxConditionType))),
		Status: c.Status, LastUpdateTime: c.LastUpdateTime, LastTransitionTime: c.LastTransitionTime,
	}
	if c.Type == v1alpha1.ConditionApprovalTooOld {
		reduced.Message = strings.Clone(text.Shorten(c.Message, maxRequestCondition))
	}
	return reduced
}

// notify calls handle with each request that is due, now and after each change of it. handle must not
// block.
func (r *requests) notify(handle func(*certificatesv1.CertificateSigningRequest)) {
	r.handler.Store(&handle)
	for _, csr := range r.List() {
		handle(csr)
	}
}

// get returns the request of a name if it is due, or else nil.
func (r *requests) get(name string) *certificatesv1.CertificateSigningRequest {
	var found *certificatesv1.CertificateSigningRequest
	for _, csr := range r.Get(types.NamespacedName{Name: name}) {
		// There are two if the request was deleted and created again for another Signer, whose watch is ahead.
		if found == nil || newer(csr, found) {
			found = csr
		}
	}
	return found
}

func newer(a, b *certificatesv1.CertificateSigningRequest) bool {
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err == nil && order > 0
}
