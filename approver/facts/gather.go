// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/internal/certreq"
	"countersign.dev/countersign/pkcs10"
)

// Freshness says how fresh facts must be.
type Freshness bool

const (
	// Recent is enough to approve, to hold, and to look whether to deny. The subject, a Pod or
	// a Node, is read live. Its Namespace, and the Services there, are at most [MaxAge] old.
	// Requests with the same key come from the cache that the request itself came from, which is
	// therefore at least as new as the request: whoever showed the key before is in it.
	// cluster.resolved comes from caches of no certain age: it explains, and must not allow.
	Recent Freshness = false
	// Live is needed to deny: everything is read from the API server. The caches only say
	// where to look; what they miss makes a name unknown, which is held and not denied.
	Live Freshness = true
)

// MaxAge bounds the age of the Namespace and the Services that an approval rests on, counted
// from the moment the API server was asked for them.
const MaxAge = time.Second

// Timeout bounds the gathering of the facts of one request.
const Timeout = 10 * time.Second

// A Gatherer gathers facts. Make one with [NewGatherer].
type Gatherer struct {
	cache  client.Reader
	pods   *Pods
	live   client.Reader
	review func(context.Context, *authorizationv1.SubjectAccessReview) error
	domain string

	mu    sync.Mutex
	known map[string]surroundings // by namespace
	epoch int                     // counts what was forgotten
	asks  singleflight.Group
}

// surroundings are what surrounds the Pods of a namespace.
type surroundings struct {
	namespace *corev1.Namespace // nil if it does not exist
	services  []corev1.Service
	asked     time.Time
}

// NewGatherer makes a Gatherer that finds things in cached, which must be kept as
// [CacheByObject] and [AddIndexes] say, and Pods in pods, reads them from live, and asks for
// SubjectAccessReviews by c. domain is the cluster's DNS domain.
func NewGatherer(cached client.Reader, pods *Pods, live client.Reader, c client.Writer, domain string) *Gatherer {
	return &Gatherer{
		cache: cached, pods: pods, live: live, domain: domain, known: map[string]surroundings{},
		review: func(ctx context.Context, r *authorizationv1.SubjectAccessReview) error { return c.Create(ctx, r) },
	}
}

// Gather gathers the facts of one request, whose PKCS#10 has been parsed, as of now.
// Parameters stay nil. An error is a fault of the API server or the way to it, and no
// finding: what does not exist is not an error.
func (g *Gatherer) Gather(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, request *pkcs10.Request, fresh Freshness, now time.Time) (Facts, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	f := Facts{
		Request:   requestOf(csr),
		Requester: requesterOf(&csr.Spec),
		PKCS10:    pkcs10Of(request),
		Cluster:   Cluster{Domain: g.domain},
		Now:       now.UTC().Truncate(time.Second),
	}
	names := append(append([]string{}, f.PKCS10.DNSNames...), f.PKCS10.IPAddresses...)
	r := resolver{Gatherer: g, fresh: fresh, seen: map[string][]Resolved{}}
	if err := g.subject(ctx, &f, r, names); err != nil {
		return Facts{}, fmt.Errorf("finding the subject: %w", err)
	}
	f.Cluster.Resolved = make(map[string][]Resolved, len(names))
	for _, name := range names {
		found, err := r.resolve(ctx, name, f.Cluster.Subject.Pod)
		if err != nil {
			return Facts{}, fmt.Errorf("resolving %q: %w", name, err)
		}
		f.Cluster.Resolved[name] = found
	}
	var err error
	if f.Cluster.Delegation, err = g.delegation(ctx, csr, &f); err != nil {
		return Facts{}, fmt.Errorf("reviewing delegation: %w", err)
	}
	if f.Cluster.SameKey, err = g.sameKey(ctx, csr, request.Key.SHA256, fresh); err != nil {
		return Facts{}, fmt.Errorf("looking for requests with the same key: %w", err)
	}
	return f, nil
}

// subject finds the Node or the Pod that the request speaks for and what surrounds it.
func (g *Gatherer) subject(ctx context.Context, f *Facts, r resolver, names []string) error {
	s := &f.Cluster.Subject
	s.Services = []Service{}
	if name, ok := nodeOf(&f.Requester); ok {
		var node corev1.Node
		ok, err := found(g.live.Get(ctx, types.NamespacedName{Name: name}, &node))
		if ok {
			s.Node = nodeFacts(&node)
		}
		return err
	}
	key := types.NamespacedName{}
	if f.Requester.Pod != nil {
		key = types.NamespacedName{Namespace: f.Requester.ServiceAccount.Namespace, Name: f.Requester.Pod.Name}
		if !isLabel(key.Namespace) || !isSubdomain(key.Name) {
			return nil // forged, since no Pod can be called so
		}
	} else {
		candidates, err := r.podsNamed(ctx, names)
		if err != nil {
			return err
		}
		if s.Candidates = len(candidates); s.Candidates != 1 {
			return nil
		}
		for key = range candidates {
		}
	}
	var pod corev1.Pod
	if ok, err := found(g.live.Get(ctx, key, &pod)); !ok {
		return err
	}
	s.Pod = podOf(&pod)
	s.ServiceAccount = &ServiceAccountRef{Namespace: pod.Namespace, Name: pod.Spec.ServiceAccountName}

	around, err := g.surroundings(ctx, pod.Namespace, r.fresh)
	if err != nil {
		return err
	}
	if around.namespace != nil {
		s.Namespace = namespaceOf(around.namespace)
	}
	for i := range around.services {
		if selects(&around.services[i], s.Pod) {
			s.Services = append(s.Services, serviceOf(&around.services[i]))
		}
	}
	return nil
}

// surroundings are those of a namespace, asked of the API server for all requests that come
// within [MaxAge] at once, and again ahead of its end while there are requests.
func (g *Gatherer) surroundings(ctx context.Context, namespace string, fresh Freshness) (surroundings, error) {
	if fresh == Live {
		return g.ask(ctx, namespace)
	}
	for ctx.Err() == nil {
		g.mu.Lock()
		known, ok := g.known[namespace]
		epoch := g.epoch
		g.mu.Unlock()
		age := time.Since(known.asked)
		if ok && age < MaxAge/2 {
			return known, nil
		}
		flight := g.fly(ctx, namespace, epoch)
		if ok && age < MaxAge {
			return known, nil // who comes next has what is asked for now, and need not wait for it
		}
		select {
		case answer := <-flight:
			if answer.Err != nil {
				return surroundings{}, answer.Err
			}
			// Who joined late, or waited long, may have got an answer that is too old.
			if around, ok := answer.Val.(surroundings); ok && time.Since(around.asked) < MaxAge {
				return around, nil
			}
		case <-ctx.Done():
		}
	}
	return surroundings{}, ctx.Err()
}

// fly asks for all who wait, unless somebody does already: a list that is as new as the API server
// itself takes it up to 100 ms, until its cache has heard from etcd. It is not shared with who asked
// before something was forgotten, and ends with nobody's deadline.
func (g *Gatherer) fly(ctx context.Context, namespace string, epoch int) <-chan singleflight.Result {
	ctx = context.WithoutCancel(ctx)
	return g.asks.DoChan(fmt.Sprintf("%s %d", namespace, epoch), func() (any, error) {
		ctx, cancel := context.WithTimeout(ctx, Timeout)
		defer cancel()
		around, err := g.ask(ctx, namespace)
		if err == nil {
			g.keep(namespace, around, epoch)
		}
		return around, err
	})
}

// keep notes what was found for who comes within [MaxAge], unless something was forgotten since it
// was asked for.
func (g *Gatherer) keep(namespace string, around surroundings, epoch int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, known := range g.known { // what no one may use any more
		if around.asked.Sub(known.asked) >= MaxAge {
			delete(g.known, name)
		}
	}
	if g.epoch == epoch {
		g.known[namespace] = around
	}
}

func (g *Gatherer) ask(ctx context.Context, name string) (surroundings, error) {
	around := surroundings{asked: time.Now()}
	var namespace corev1.Namespace
	if ok, err := found(g.live.Get(ctx, types.NamespacedName{Name: name}, &namespace)); err != nil {
		return surroundings{}, err
	} else if ok {
		around.namespace = &namespace
	}
	var list corev1.ServiceList
	if err := g.live.List(ctx, &list, client.InNamespace(name)); err != nil {
		return surroundings{}, err
	}
	around.services = list.Items
	return around, nil
}

// Forget has the next request of a namespace see what is there now: call it when something
// there has changed that a request waits for.
func (g *Gatherer) Forget(namespace string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.epoch++
	delete(g.known, namespace)
}

// delegation asks whether a requester without a Pod of its own may act for the subject.
func (g *Gatherer) delegation(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, f *Facts) (Delegation, error) {
	switch {
	case f.Requester.Pod != nil:
		return Delegation{Reason: "not asked: the requester is a Pod and speaks for itself"}, nil
	case f.Cluster.Subject.Node != nil:
		return Delegation{Reason: "not asked: the requester is a Node and speaks for itself"}, nil
	case f.Cluster.Subject.Pod == nil:
		return Delegation{Reason: "not asked: there is no one Pod that the request speaks for"}, nil
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
	if err := g.review(ctx, review); err != nil {
		return Delegation{}, err
	}
	if review.Status.EvaluationError != "" && !review.Status.Allowed {
		return Delegation{}, fmt.Errorf("the authorizer could not tell: %s", review.Status.EvaluationError)
	}
	return Delegation{Allowed: review.Status.Allowed && !review.Status.Denied, Reason: review.Status.Reason}, nil
}

// maxSameKey bounds how many requests with one key are named.
const maxSameKey = 16

func (g *Gatherer) sameKey(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, digest string, fresh Freshness) ([]SameKey, error) {
	var list certificatesv1.CertificateSigningRequestList
	if err := g.cache.List(ctx, &list, client.UnsafeDisableDeepCopy, client.MatchingFields{requestsByKey: digest}); err != nil {
		return nil, err
	}
	// The eldest first: whoever showed the key before must not be hidden by a crowd that came after.
	slices.SortStableFunc(list.Items, func(a, b certificatesv1.CertificateSigningRequest) int {
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
	same := []SameKey{}
	for i := range list.Items {
		other := &list.Items[i]
		if other.UID == csr.UID || certreq.SameRequester(&other.Spec, &csr.Spec) || len(same) == maxSameKey {
			continue
		}
		if fresh == Live {
			var live certificatesv1.CertificateSigningRequest
			ok, err := found(g.live.Get(ctx, types.NamespacedName{Name: other.Name}, &live))
			if err != nil {
				return nil, err
			}
			if !ok || live.UID != other.UID { // spec is immutable: the same object has the same key
				continue
			}
		}
		same = append(same, SameKey{Name: other.Name, Username: other.Spec.Username, CreatedAt: other.CreationTimestamp.UTC()})
	}
	return same, nil
}

func selects(service *corev1.Service, pod *Pod) bool {
	return pod != nil && service.Namespace == pod.Namespace && len(service.Spec.Selector) > 0 &&
		labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(pod.Labels))
}

// found turns "not found" into false.
func found(err error) (bool, error) {
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// maxLabelText bounds what a message says of labels, in bytes: who makes an object may give it a
// megabyte of them, and a request may ask for many such names.
const maxLabelText = 256

func labelText(set map[string]string) string {
	if len(set) == 0 {
		return "no such labels"
	}
	text := strings.ReplaceAll(labels.Set(set).String(), ",", ", ")
	if len(text) > maxLabelText { // labels are ASCII
		text = text[:maxLabelText] + "…"
	}
	return text
}

// sameKeys are the labels whose keys another set has.
func sameKeys(set, other map[string]string) map[string]string {
	out := map[string]string{}
	for key := range other {
		if value, ok := set[key]; ok {
			out[key] = value
		}
	}
	return out
}
