// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"context"
	"fmt"
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

	"countersign.dev/countersign/internal/text"
	"countersign.dev/countersign/pkcs10"
)

// MaxAge bounds the age of the Namespace and the Services that an approval is based on. It counts
// from the start of the read.
const MaxAge = time.Second

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

	mu     sync.Mutex
	cached map[string]surroundings // by namespace
	epoch  int                     // incremented by Forget
	reads  singleflight.Group
}

// surroundings are the Namespace and the Services of a Pod.
type surroundings struct {
	namespace *corev1.Namespace // nil if it does not exist
	services  []corev1.Service
	readAt    time.Time // when the read started
}

// NewGatherer returns a Gatherer. It finds objects in cached, which needs the transforms of
// [CacheByObject] and the indexes of [AddIndexes], and Pods in pods. It reads them from live, and
// creates SubjectAccessReviews with c. domain is the DNS domain of the cluster.
func NewGatherer(cached client.Reader, pods PodFinder, live client.Reader, c client.Writer, domain string) *Gatherer {
	return &Gatherer{
		cache: cached, pods: pods, live: live, domain: domain, cached: map[string]surroundings{},
		review: func(ctx context.Context, r *authorizationv1.SubjectAccessReview) error { return c.Create(ctx, r) },
	}
}

// Recent gathers facts that can approve or hold a request, as of now.
//
// The subject, a Pod or a Node, is read live. Its Namespace, and the Services there, are at most
// [MaxAge] old. Requests with the same key come from the cache that contains the request itself:
// it also contains every earlier request with the key. cluster.resolved comes from caches of
// unknown age: it explains a violation, and a policy must not allow a request because of it.
//
// request is the parsed PKCS#10 of csr. Parameters stay nil. An error is an error of the API
// server; an object that does not exist is not an error.
func (g *Gatherer) Recent(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, request *pkcs10.Request, now time.Time) (Facts, error) {
	return g.gather(ctx, csr, request, now, false)
}

// Live gathers facts that can deny a request, as Recent does, but reads everything from the API
// server. The caches only select the objects to read. If an object is missing in them, its name is
// unknown, and the request is held, not denied.
func (g *Gatherer) Live(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, request *pkcs10.Request, now time.Time) (Facts, error) {
	return g.gather(ctx, csr, request, now, true)
}

func (g *Gatherer) gather(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, request *pkcs10.Request, now time.Time, live bool) (Facts, error) {
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
	r := resolver{Gatherer: g, onlyLive: live, resolved: map[string][]Resolved{}}
	var err error
	if f.Cluster.Subject, err = r.subject(ctx, &f.Requester, names); err != nil {
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
	if f.Cluster.Delegation, err = g.delegation(ctx, csr, &f); err != nil {
		return Facts{}, fmt.Errorf("reviewing delegation: %w", err)
	}
	if f.Cluster.SameKey, err = r.sameKey(ctx, csr, request.Key.SHA256); err != nil {
		return Facts{}, fmt.Errorf("finding requests with the same key: %w", err)
	}
	return f, nil
}

// subject finds the Node or the Pod that the request is for, and the surroundings of the Pod.
func (r resolver) subject(ctx context.Context, requester *Requester, names []string) (ClusterSubject, error) {
	s := ClusterSubject{Services: []Service{}}
	if name, ok := nodeOf(requester); ok {
		var node corev1.Node
		ok, err := found(r.live.Get(ctx, types.NamespacedName{Name: name}, &node))
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
	var pod corev1.Pod
	if ok, err := found(r.live.Get(ctx, key, &pod)); !ok {
		return s, err
	}
	s.Pod = podOf(&pod)
	s.ServiceAccount = &ServiceAccountRef{Namespace: pod.Namespace, Name: pod.Spec.ServiceAccountName}
	return s, r.addSurroundings(ctx, &s)
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

// addSurroundings adds the Namespace of the subject's Pod, and the Services that select the Pod.
func (r resolver) addSurroundings(ctx context.Context, s *ClusterSubject) error {
	read := r.recentSurroundings
	if r.onlyLive {
		read = r.readSurroundings
	}
	around, err := read(ctx, s.Pod.Namespace)
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

// recentSurroundings returns surroundings that are younger than [MaxAge]. All requests that come in
// this time share one read. After half of it the next request starts another read and does not wait
// for it.
func (g *Gatherer) recentSurroundings(ctx context.Context, namespace string) (surroundings, error) {
	for ctx.Err() == nil {
		g.mu.Lock()
		cached, ok := g.cached[namespace]
		epoch := g.epoch
		g.mu.Unlock()
		age := time.Since(cached.readAt)
		if ok && age < MaxAge/2 {
			return cached, nil
		}
		read := g.shareRead(ctx, namespace, epoch)
		if ok && age < MaxAge {
			return cached, nil
		}
		around, err := await(ctx, read)
		// A request that joined a read late, or waited for long, can get surroundings that are too old.
		if err != nil || time.Since(around.readAt) < MaxAge {
			return around, err
		}
	}
	return surroundings{}, ctx.Err()
}

// await returns the result of a shared read.
func await(ctx context.Context, read <-chan singleflight.Result) (surroundings, error) {
	select {
	case result := <-read:
		around, _ := result.Val.(surroundings)
		return around, result.Err
	case <-ctx.Done():
		return surroundings{}, ctx.Err()
	}
}

// shareRead reads surroundings, or joins a read of the same epoch. The read does not end when the
// context of one request does. A consistent list takes up to 100 ms: the cache of the API server
// waits for etcd.
func (g *Gatherer) shareRead(ctx context.Context, namespace string, epoch int) <-chan singleflight.Result {
	ctx = context.WithoutCancel(ctx)
	return g.reads.DoChan(fmt.Sprintf("%s %d", namespace, epoch), func() (any, error) {
		ctx, cancel := context.WithTimeout(ctx, Timeout)
		defer cancel()
		around, err := g.readSurroundings(ctx, namespace)
		if err == nil {
			g.store(namespace, around, epoch)
		}
		return around, err
	})
}

// store caches surroundings, unless Forget was called since the read started. It evicts expired ones.
func (g *Gatherer) store(namespace string, around surroundings, epoch int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, cached := range g.cached {
		if around.readAt.Sub(cached.readAt) >= MaxAge {
			delete(g.cached, name)
		}
	}
	if g.epoch == epoch {
		g.cached[namespace] = around
	}
}

// readSurroundings reads the Namespace and its Services from the API server.
func (g *Gatherer) readSurroundings(ctx context.Context, name string) (surroundings, error) {
	around := surroundings{readAt: time.Now()}
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

// Forget evicts the cached facts about a namespace. Call it when an object there changes that a
// request awaits.
func (g *Gatherer) Forget(namespace string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.epoch++
	delete(g.cached, namespace)
}

// delegation reviews whether a requester without a Pod is allowed to act for the subject, with a
// SubjectAccessReview.
func (g *Gatherer) delegation(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, f *Facts) (Delegation, error) {
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
	if err := g.review(ctx, review); err != nil {
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

// found returns false, and no error, for the error "not found".
func found(err error) (bool, error) {
	if apierrors.IsNotFound(err) {
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
