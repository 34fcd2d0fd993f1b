// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"slices"
	"strconv"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/internal/certreq"
)

// maxSameKey is the maximum number of requests with the same key that are examined. Each costs at most two
// reads, as do the request itself and an earlier one of its requester.
const maxSameKey = 8

type signingRequest = certificatesv1.CertificateSigningRequest

// sameKey returns requests by other requesters that used the key before this request, and those whose
// order is unknown. Later requests do not count, however many there are.
//
// Facts from caches can only lead to live facts: every request counts as earlier that is not certainly
// later. With live facts, a request counts if its self-signature proves that its creator had the key,
// and no older request of the same requester exists.
func (r resolver) sameKey(ctx context.Context, this *signingRequest, digest string) ([]SameKey, error) {
	var list certificatesv1.CertificateSigningRequestList
	if err := r.cache.List(ctx, &list, client.UnsafeDisableDeepCopy, client.MatchingFields{requestsByKey: digest}); err != nil {
		return nil, err
	}
	others := slices.DeleteFunc(slices.Clone(list.Items), func(other signingRequest) bool {
		return other.UID == this.UID || isLater(&other, this)
	})
	slices.SortStableFunc(others, func(a, b signingRequest) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(revision(&a), revision(&b)))
	})
	own := slices.IndexFunc(others, func(other signingRequest) bool { return certreq.SameRequester(&other.Spec, &this.Spec) })
	var first *signingRequest
	if own >= 0 {
		first = &others[own]
	}
	others = slices.DeleteFunc(slices.Clone(others), func(other signingRequest) bool { return certreq.SameRequester(&other.Spec, &this.Spec) })
	if !r.onlyLive {
		same := []SameKey{}
		for i := range others[:min(len(others), maxSameKey)] {
			same = append(same, sameKeyOf(&others[i], true))
		}
		return same, nil
	}
	return r.liveSameKey(ctx, this, first, others, digest)
}

// liveSameKey examines others, the oldest first, up to the first one that is earlier than this. own is
// the oldest other request of the same requester, or nil.
func (r resolver) liveSameKey(ctx context.Context, this, own *signingRequest, others []signingRequest, digest string) ([]SameKey, error) {
	same := []SameKey{}
	if own != nil && len(others) > 0 {
		own, err := r.withKey(ctx, own, digest)
		if err != nil {
			return nil, err
		}
		others = notAfter(own, others)
	}
	for i := range others {
		if i == maxSameKey {
			return append(same, sameKeyOf(&others[i], false)), nil
		}
		order, err := r.liveOrder(ctx, &others[i], this, digest)
		switch {
		case err != nil:
			return nil, err
		case order == earlier:
			return append(same, sameKeyOf(&others[i], true)), nil
		case order == unknown:
			same = append(same, sameKeyOf(&others[i], false))
		}
	}
	return same, nil
}

// notAfter returns the requests that are not younger than a request of the same requester as this one.
// The requester used the key before all requests that follow. Nil stands for no such request.
func notAfter(own *signingRequest, others []signingRequest) []signingRequest {
	if own == nil {
		return others
	}
	return slices.DeleteFunc(others, func(other signingRequest) bool {
		return own.CreationTimestamp.Time.Before(other.CreationTimestamp.Time)
	})
}

// liveOrder returns the order of another request and this one. A request that was deleted, or does not
// prove possession of the key, counts as later.
func (r resolver) liveOrder(ctx context.Context, cached, this *signingRequest, digest string) (order, error) {
	other, err := r.withKey(ctx, cached, digest)
	if err != nil {
		return unknown, err
	}
	if other == nil {
		return later, nil
	}
	return r.order(ctx, other, this)
}

func sameKeyOf(other *signingRequest, earlier bool) SameKey {
	return SameKey{Name: other.Name, Username: other.Spec.Username, CreatedAt: other.CreationTimestamp.UTC(), Earlier: earlier}
}

// withKey reads a request. It returns nil if the request was deleted, or if its
// self-signature does not prove the possession of the key.
func (r resolver) withKey(ctx context.Context, cached *signingRequest, digest string) (*signingRequest, error) {
	var live signingRequest
	if ok, err := found(r.live.Get(ctx, types.NamespacedName{Name: cached.Name}, &live)); !ok {
		return nil, err
	}
	if live.UID != cached.UID || !provesKey(live.Spec.Request, digest) {
		return nil, nil
	}
	return &live, nil
}

// provesKey reports whether a PKCS#10 request is signed with the key of this digest. The API server
// has checked that when the request was created.
func provesKey(request []byte, digest string) bool {
	block, _ := pem.Decode(request)
	if block == nil {
		return false
	}
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || parsed.CheckSignature() != nil {
		return false
	}
	sum := sha256.Sum256(parsed.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:]) == digest
}

type order int

const (
	unknown order = iota
	earlier
	later
)

// isLater reports whether a request from the cache was certainly created after this. Creation times are in seconds.
// Within a second, the resource version of an undecided request is that of its creation: changing a request
// before its decision requires the verb "update".
func isLater(other, this *signingRequest) bool {
	if at := revision(this); at == 0 || revision(other) <= at {
		return false
	}
	switch other.CreationTimestamp.Compare(this.CreationTimestamp.Time) {
	case 0:
		return len(other.Status.Conditions) == 0
	case 1:
		return true
	}
	return false
}

// order reports whether a live request was created before this. Resource versions are revisions of the
// store. At the revision at which this was created, an earlier request exists, and a later one does
// not, whatever changed since. Creation times decide only if the store no longer has that revision: it
// keeps revisions for at least 5 minutes.
func (r resolver) order(ctx context.Context, other, this *signingRequest) (order, error) {
	before := other.CreationTimestamp.Time.Before(this.CreationTimestamp.Time)
	at := revision(this)
	if before && revision(other) < at {
		return earlier, nil
	}
	existed, known, err := r.existedAt(ctx, other, at)
	switch {
	case err != nil:
		return unknown, err
	case known && !existed:
		return later, nil
	case before:
		return earlier, nil
	}
	changed, stillKnown, err := r.existedAt(ctx, this, at-1) // if so, this was created at an earlier revision
	if err != nil || !known || !stillKnown || changed {
		return unknown, err
	}
	return earlier, nil
}

// existedAt reports whether a request existed at a revision of the store, if the store still has it.
func (r resolver) existedAt(ctx context.Context, request *signingRequest, at uint64) (existed, known bool, err error) {
	if at == 0 {
		return false, false, nil
	}
	var list certificatesv1.CertificateSigningRequestList
	err = r.live.List(ctx, &list, client.MatchingFields{"metadata.name": request.Name}, &client.ListOptions{Raw: &metav1.ListOptions{
		ResourceVersion: strconv.FormatUint(at, 10), ResourceVersionMatch: metav1.ResourceVersionMatchExact,
	}})
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return false, false, nil
	}
	return slices.ContainsFunc(list.Items, func(item signingRequest) bool { return item.UID == request.UID }), err == nil, err
}

// revision returns the resource version of a request, or 0 if it is not a number.
func revision(request *signingRequest) uint64 {
	revision, err := strconv.ParseUint(request.ResourceVersion, 10, 64)
	if err != nil {
		return 0
	}
	return revision
}
