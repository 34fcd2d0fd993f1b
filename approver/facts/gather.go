// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/internal/text"
	"countersign.dev/countersign/pkcs10"
)

// MaxAge bounds the age of the Namespace and the Services that requests share. It counts from the start
// of the read.
const MaxAge = time.Second

// MaxDecisionAge bounds the age of every fact that an approval is based on, at the time of the decision.
// It counts from the start of the read. It is longer than MaxAge, so that an API server that takes most
// of a second to answer does not stop all approvals.
const MaxDecisionAge = 2 * time.Second

// Timeout bounds the gathering of the facts of one request.
const Timeout = 10 * time.Second

// PodFinder finds Pods by the names and addresses that a request can contain. [Pods] finds them in
// a store of all Pods of the cluster, [LivePods] reads them from the API server.
type PodFinder interface {
	// named returns the Pod of this name, or nothing.
	named(ctx context.Context, key types.NamespacedName) ([]*knownPod, error)
	// withIP returns at most maxResolved Pods with an address. An empty namespace means all.
	withIP(ctx context.Context, ip, namespace string) ([]*knownPod, error)
	// withHostname returns at most maxResolved Pods of a namespace with "<hostname>.<subdomain>".
	withHostname(ctx context.Context, hostname, namespace string) ([]*knownPod, error)
}

// Gatherer gathers facts. [NewGatherer] returns one. It is safe for concurrent use.
type Gatherer struct {
	cache  client.Reader
	pods   PodFinder
	live   client.Reader
	review func(context.Context, *authorizationv1.SubjectAccessReview) error
	domain string

	surroundings surroundingsCache
}

// NewGatherer returns a Gatherer. It finds objects in cached, which needs the transforms of
// [CacheByObject] and the indexes of [AddIndexes], and Pods in pods. It reads them from live, and
// creates SubjectAccessReviews with c. domain is the DNS domain of the cluster.
func NewGatherer(cached client.Reader, pods PodFinder, live client.Reader, c client.Writer, domain string) *Gatherer {
	return &Gatherer{
		cache: cached, pods: pods, live: live, domain: domain, surroundings: newSurroundingsCache(),
		review: func(ctx context.Context, r *authorizationv1.SubjectAccessReview) error { return c.Create(ctx, r) },
	}
}

// Gathered are the facts of a request.
type Gathered struct {
	Facts
	// ReadAt is when the oldest read started that an approval can be based on. It is zero if there was none.
	ReadAt time.Time
	// Excess says which bound of a request the facts exceed. They are then incomplete: do not decide by them.
	Excess string
}

// Recent gathers facts that can approve or hold a request, as of now.
//
// The subject, a Pod or a Node, is read live. Its Namespace, and the Services there, are at most
// [MaxAge] old when the subject is read. Requests with the same key come from the cache that contains the request
// itself: it also contains every earlier request with the key. cluster.resolved comes from caches of
// unknown age: it explains a violation, and a policy must not allow a request because of it.
//
// request is the parsed PKCS#10 of csr. Parameters stay nil. An error is an error of the API
// server; an object that does not exist is not an error.
func (g *Gatherer) Recent(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, request *pkcs10.Request, now time.Time) (Gathered, error) {
	return g.gather(ctx, csr, request, now, false)
}

// Live gathers facts that can deny a request, as Recent does, but reads everything from the API
// server. The caches only select the objects to read. If an object is missing in them, its name is
// unknown, and the request is held, not denied.
func (g *Gatherer) Live(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, request *pkcs10.Request, now time.Time) (Gathered, error) {
	return g.gather(ctx, csr, request, now, true)
}

func (g *Gatherer) gather(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, request *pkcs10.Request, now time.Time, live bool) (Gathered, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	f := Gathered{Facts: Facts{
		Request:   requestOf(csr),
		Requester: requesterOf(&csr.Spec),
		PKCS10:    pkcs10Of(request),
		Cluster:   Cluster{Domain: g.domain},
		Now:       now.UTC().Truncate(time.Second),
	}}
	r := resolver{Gatherer: g, live: newLiveReader(g.live), onlyLive: live, resolved: map[string][]Resolved{}}
	err := r.addCluster(ctx, csr, request.Key.SHA256, &f.Facts)
	f.ReadAt, f.Excess = r.live.oldest, r.live.excess
	if err != nil && !errors.Is(err, errExcess) {
		return Gathered{}, err
	}
	return f, nil
}

// addCluster adds the state of the cluster.
func (r resolver) addCluster(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, key string, f *Facts) error {
	names := append(append([]string{}, f.PKCS10.DNSNames...), f.PKCS10.IPAddresses...)
	var err error
	if f.Cluster.Subject, err = r.subject(ctx, &f.Requester, names); err != nil {
		return fmt.Errorf("finding the subject: %w", err)
	}
	f.Cluster.Resolved = make(map[string][]Resolved, len(names))
	size := 0
	for _, name := range names {
		found, err := r.resolve(ctx, name, f.Cluster.Subject.Pod)
		if err != nil {
			return fmt.Errorf("resolving %q: %w", name, err)
		}
		f.Cluster.Resolved[name] = found
		for i := range found {
			size += len(found[i].Namespace) + len(found[i].Name) + len(found[i].UID) + len(found[i].Detail)
		}
		if size > MaxSize {
			r.live.excess = fmt.Sprintf("the objects that have the names of the request take more than %d bytes: ask for fewer names", MaxSize)
			return errExcess
		}
	}
	if f.Cluster.Delegation, err = r.delegation(ctx, csr, f); err != nil {
		return fmt.Errorf("reviewing delegation: %w", err)
	}
	if f.Cluster.SameKey, err = r.sameKey(ctx, csr, key); err != nil {
		return fmt.Errorf("finding requests with the same key: %w", err)
	}
	return nil
}

// subject finds the Node or the Pod that the request is for, and the surroundings of the Pod. It reads
// the Pod last: the Services can take long.
func (r resolver) subject(ctx context.Context, requester *Requester, names []string) (ClusterSubject, error) {
	s := ClusterSubject{Services: []Service{}}
	if name, ok := nodeOf(requester); ok {
		var node corev1.Node
		ok, err := found(r.live.GetFull(ctx, types.NamespacedName{Name: name}, &node))
		if ok {
			s.Node = nodeFacts(&node)
		}
		return s, err
	}
	key, candidates, err := r.subjectPod(ctx, requester, names)
	s.Candidates = candidates
	if err != nil || key == (types.NamespacedName{}) {
		return s, err
	}
	around, err := r.surroundingsOf(ctx, key.Namespace)
	if err != nil {
		return s, err
	}
	var pod corev1.Pod
	if ok, err := found(r.live.GetFull(ctx, key, &pod)); !ok {
		return s, err
	}
	s.Pod = podOf(&pod)
	s.ServiceAccount = &ServiceAccountRef{Namespace: pod.Namespace, Name: pod.Spec.ServiceAccountName}
	if around.namespace != nil {
		s.Namespace = namespaceOf(around.namespace)
	}
	s.Services, err = r.selecting(ctx, around, s.Pod, names)
	return s, err
}

// subjectPod returns the name of the Pod that the request is for: the requester's own Pod or, for
// a delegate, the only Pod that the names resolve to. It returns no name if there is no such Pod, and
// the number of Pods that the names of a delegate resolve to.
func (r resolver) subjectPod(ctx context.Context, requester *Requester, names []string) (key types.NamespacedName, candidates int, err error) {
	if requester.Pod != nil {
		key := types.NamespacedName{Namespace: requester.ServiceAccount.Namespace, Name: requester.Pod.Name}
		if !isLabel(key.Namespace) || !isSubdomain(key.Name) {
			return types.NamespacedName{}, 0, nil // forged: not a valid name of a Pod
		}
		return key, 0, nil
	}
	pods, err := r.podsNamed(ctx, names)
	if err != nil || len(pods) != 1 {
		return types.NamespacedName{}, len(pods), err
	}
	for key = range pods {
	}
	return key, 1, nil
}

// delegation reviews whether a requester without a Pod is allowed to act for the subject, with a
// SubjectAccessReview.
func (r resolver) delegation(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, f *Facts) (Delegation, error) {
	switch {
	case f.Requester.Pod != nil:
		return Delegation{Reason: "not reviewed: the requester is a Pod and acts for itself"}, nil
	case f.Cluster.Subject.Node != nil:
		return Delegation{Reason: "not reviewed: the requester is a Node and acts for itself"}, nil
	case f.Cluster.Subject.Pod == nil:
		return Delegation{Reason: "not reviewed: the request does not identify exactly one Pod"}, nil
	}
	extra := make(map[string]authorizationv1.ExtraValue, len(csr.Spec.Extra))
	for key, values := range csr.Spec.Extra {
		extra[key] = authorizationv1.ExtraValue(values)
	}
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: csr.Spec.Username, UID: csr.Spec.UID, Groups: csr.Spec.Groups, Extra: extra,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: "create", Group: certificatesv1.GroupName, Version: "*",
			Resource: "certificatesigningrequests", Subresource: "delegated",
			Namespace: f.Cluster.Subject.Pod.Namespace,
		},
	}}
	r.live.readAt(time.Now())
	if err := r.review(ctx, review); err != nil {
		return Delegation{}, err
	}
	if review.Status.EvaluationError != "" && !review.Status.Allowed {
		return Delegation{}, fmt.Errorf("the authorizer returned an error: %s", review.Status.EvaluationError)
	}
	return Delegation{Allowed: review.Status.Allowed && !review.Status.Denied, Reason: review.Status.Reason}, nil
}

func selects(service *corev1.Service, pod *Pod) bool {
	return pod != nil && service.Namespace == pod.Namespace && len(service.Spec.Selector) > 0 &&
		labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(pod.Labels))
}

// found returns false, and no error, for the error "not found", and for an object that may not be read:
// the facts then have an Excess.
func found(err error) (bool, error) {
	if apierrors.IsNotFound(err) || errors.Is(err, errExcess) {
		return false, nil
	}
	return err == nil, err
}

// maxLabelText bounds the labels in a message, in bytes. An object can have a megabyte of labels, and
// a request can contain many names of such objects.
const maxLabelText = 256

func labelText(set map[string]string) string {
	if len(set) == 0 {
		return "no such labels"
	}
	return text.Shorten(strings.ReplaceAll(labels.Set(set).String(), ",", ", "), maxLabelText)
}

// withKeysOf returns the labels of set whose keys are in other.
func withKeysOf(set, other map[string]string) map[string]string {
	out := map[string]string{}
	for key := range other {
		if value, ok := set[key]; ok {
			out[key] = value
		}
	}
	return out
}
