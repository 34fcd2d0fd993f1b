// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/policy"
)

// retryLoad is the delay before a source is loaded again after an error of this process.
const retryLoad = 5 * time.Second

// policyReconciler keeps a [policy.Set] of all ApprovalPolicies, and loads their sources. It runs in
// every replica, so that a standby replica has the policies loaded.
//
// A policy is in the set, and holds the requests that it matches, before its source is loaded. A source
// is loaded at once if it was tested before. Other sources are compiled and tested in the background, one
// at a time: the one that waits longest, and the smallest of those. A change of a source ends its wait, and starts a new
// one. Each load is followed by another reconciliation.
type policyReconciler struct {
	client   client.Client
	policies *policy.Set
	loader   policy.Loader
	// status writes the status of policies. Nil in a process that writes none.
	status *statusWriter
	// changed is called when requests can be decided differently than before.
	changed func(context.Context) error
	// start runs a function in the background.
	start func(func())
	// requeue requests another reconciliation after a delay.
	requeue func(time.Duration)

	// Only Reconcile uses lastGood, and never concurrently.
	lastGood map[types.UID]policy.Policy // the last usable revision of each policy

	mu       sync.Mutex
	results  map[string]policy.LoadResult // of every source that a policy names, by policy.Source.Key
	failures map[string]int               // of sources whose load failed with an error, by key
	since    map[string]int               // the round in which a source became pending, by key
	rounds   int
	loading  bool
}

// Reconcile loads the sources that were tested before, replaces the set, writes the statuses and starts
// to load another source. A problem of one policy, or an error while reading its source, does not affect
// the others.
func (r *policyReconciler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	var list v1alpha1.ApprovalPolicyList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing policies: %w", err)
	}
	for i := range list.Items { // only statuses are changed
		list.Items[i].Status = *list.Items[i].Status.DeepCopy()
	}
	slices.SortFunc(list.Items, func(a, b v1alpha1.ApprovalPolicy) int { return cmp.Compare(a.Name, b.Name) })

	loads, pending := r.loadAll(ctx, list.Items)
	observePolicies(loads)
	var errs []error
	var effective []policy.Policy
	for _, load := range loads {
		effective = append(effective, load.effective()...)
		if load.err != nil {
			errs = append(errs, fmt.Errorf("loading policy %s: %w", load.object.Name, load.err))
		}
	}
	if r.policies.Replace(effective) {
		if err := r.changed(ctx); err != nil {
			errs = append(errs, fmt.Errorf("requeueing pending requests: %w", err))
		}
	}
	r.loadNext(ctx, pending)
	for _, load := range loads {
		if r.status != nil && load.err == nil {
			errs = append(errs, r.status.write(ctx, load))
		}
	}
	return reconcile.Result{}, errors.Join(errs...)
}

// pendingSource is a source that is not loaded.
type pendingSource struct {
	policy.Source
	policy      string
	minCoverage int32
}

// loadNext starts to load a source if none is being loaded: of those with the fewest errors, the one that
// waits longest, so that changes of one source do not delay the others. The smallest decides a tie.
func (r *policyReconciler) loadNext(ctx context.Context, pending []pendingSource) {
	r.mu.Lock()
	if r.loading || len(pending) == 0 {
		r.mu.Unlock()
		return
	}
	next := slices.MinFunc(pending, func(a, b pendingSource) int {
		keyA, keyB := a.Key(a.minCoverage), b.Key(b.minCoverage)
		return cmp.Or(cmp.Compare(r.failures[keyA], r.failures[keyB]), cmp.Compare(r.since[keyA], r.since[keyB]), cmp.Compare(a.TotalSize(), b.TotalSize()))
	})
	r.loading = true
	r.mu.Unlock()
	ctx = context.WithoutCancel(ctx) // of this reconciliation
	r.start(func() { r.loadPending(ctx, next) })
}

// loadPending loads a source and stores the result.
func (r *policyReconciler) loadPending(ctx context.Context, next pendingSource) {
	result, err := r.loader.Load(ctx, next.Source, next.minCoverage)
	key, delay := next.Key(next.minCoverage), time.Duration(0)
	r.mu.Lock()
	r.loading = false
	if err != nil {
		r.failures[key]++
		delay = retryLoad
	} else {
		r.results[key] = result
	}
	r.mu.Unlock()
	if err != nil {
		log.FromContext(ctx).Error(err, "loading a policy failed, it is retried", "policy", next.policy)
	}
	r.requeue(delay)
}

// policyLoad is the outcome of loading one ApprovalPolicy.
type policyLoad struct {
	object *v1alpha1.ApprovalPolicy
	// err is an error of the API server. desired and result are not set then.
	err error
	// desired is the policy that the spec defines. Active is set only if its source is usable.
	desired policy.Policy
	result  policy.LoadResult
	// candidate is the result of spec.candidate; nil if there is none.
	candidate *policy.LoadResult
	// lastGood is the last usable revision, which can be desired; nil if no revision was usable.
	lastGood *policy.Policy
}

// effective returns the policies that decide requests.
func (l *policyLoad) effective() []policy.Policy {
	switch {
	case l.err == nil:
		return policy.Effective(l.desired, l.lastGood)
	case l.lastGood != nil:
		return []policy.Policy{*l.lastGood}
	default:
		return []policy.Policy{policy.New(l.object, nil, nil)}
	}
}

// active returns the revision that evaluates requests, or nil.
func (l *policyLoad) active() *evaluator.Policy {
	if l.lastGood == nil {
		return nil
	}
	return l.lastGood.Active
}

// loadAll loads the policies as far as their sources are loaded or were tested before, and remembers the
// last usable revision of each. It returns the other sources as well.
func (r *policyReconciler) loadAll(ctx context.Context, objects []v1alpha1.ApprovalPolicy) (loads []*policyLoad, pending []pendingSource) {
	round := &loadRound{policyReconciler: r, results: map[string]policy.LoadResult{}, failures: map[string]int{}}
	loads = make([]*policyLoad, len(objects))
	for i := range objects {
		loads[i] = &policyLoad{object: &objects[i]}
	}
	// Policies beyond a limit are the latest ones, so that a new policy does not affect the others.
	oldest := slices.Clone(loads)
	slices.SortStableFunc(oldest, func(a, b *policyLoad) int {
		return a.object.CreationTimestamp.Compare(b.object.CreationTimestamp.Time)
	})
	lastGood := map[types.UID]policy.Policy{}
	for _, load := range oldest {
		round.loadPolicy(ctx, load)
		if load.lastGood != nil {
			lastGood[load.object.UID] = *load.lastGood
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range round.failures { // a result can have been stored meanwhile
		if result, ok := r.results[key]; ok {
			round.results[key] = result
		}
	}
	r.rounds++
	pendingSince := map[string]int{}
	for key := range round.failures { // of every pending source
		since, ok := r.since[key]
		if !ok {
			since = r.rounds
		}
		pendingSince[key] = since
	}
	r.lastGood, r.results, r.failures, r.since = lastGood, round.results, round.failures, pendingSince
	return loads, round.pending
}

// loadRound is the state of one reconciliation.
type loadRound struct {
	*policyReconciler
	results  map[string]policy.LoadResult // of sources that are loaded
	failures map[string]int               // of sources that are pending
	pending  []pendingSource
	budget   policy.Budget
}

// loadPolicy loads a policy and sets its last usable revision.
func (r *loadRound) loadPolicy(ctx context.Context, load *policyLoad) {
	if before, ok := r.lastGood[load.object.UID]; ok && !before.Active.TooExpensive() {
		load.lastGood = &before
	}
	if load.err = r.load(ctx, load); load.err != nil {
		return
	}
	if load.result.Usable() {
		load.lastGood = &load.desired
	} else if problem := load.result.Problem(); problem.Reason != v1alpha1.ReasonLoading {
		log.FromContext(ctx).Info("policy is not usable", "policy", load.object.Name, "reason", problem.Reason, "error", problem.Message)
	}
}

// load loads the source of a policy and of its candidate. The error is an error of the API server.
func (r *loadRound) load(ctx context.Context, load *policyLoad) error {
	object := load.object
	if takenOut(object) {
		load.result, load.desired, load.lastGood = policy.TakenOut(), policy.New(object, nil, nil), nil
		return nil
	}
	source, err := r.loader.Source(ctx, object)
	if err != nil {
		return err
	}
	if load.result, err = r.loadSource(ctx, object, source); err != nil {
		return err
	}
	load.desired = policy.New(object, load.result.Policy(), nil)
	if object.Spec.Candidate == nil {
		return nil
	}
	if source, err = r.loader.CandidateSource(ctx, object); err != nil {
		return err
	}
	candidate, err := r.loadSource(ctx, object, source)
	if err != nil {
		return err
	}
	load.candidate = &candidate
	if c := candidate.Policy(); c != nil && (load.desired.Active == nil || c.Revision() != load.desired.Active.Revision()) {
		load.desired.Candidate = c
	}
	return nil
}

// takenOut reports whether the policy was taken out, and its spec has not changed since. The status says
// so, since the policy can have ended the process before.
func takenOut(object *v1alpha1.ApprovalPolicy) bool {
	c := meta.FindStatusCondition(object.Status.Conditions, v1alpha1.ConditionReady)
	return c != nil && c.Reason == v1alpha1.ReasonEvaluationTooExpensive && c.ObservedGeneration == object.Generation
}

// loadSource returns the result of the same source in this reconciliation or the previous one. Otherwise,
// it loads a source that was tested before, and adds others to the pending ones.
func (r *loadRound) loadSource(ctx context.Context, object *v1alpha1.ApprovalPolicy, source policy.Source) (policy.LoadResult, error) {
	key := source.Key(object.Spec.MinCoverage)
	if result, ok := r.results[key]; ok {
		return result, nil
	}
	if problem := r.budget.Add(source); problem != nil {
		return *problem, nil
	}
	r.mu.Lock()
	result, ok := r.policyReconciler.results[key]
	failures := r.policyReconciler.failures[key]
	r.mu.Unlock()
	if !ok {
		var err error
		if result, ok, err = r.loader.LoadTested(ctx, source, object); err != nil {
			return policy.LoadResult{}, err
		}
	}
	if !ok {
		if _, added := r.failures[key]; !added {
			r.pending = append(r.pending, pendingSource{Source: source, policy: object.Name, minCoverage: object.Spec.MinCoverage})
			r.failures[key] = failures
		}
		return policy.Loading(), nil
	}
	if source.NotFound == "" {
		r.results[key] = result
	}
	return result, nil
}

// observePolicies sets the metric of loaded policies.
func observePolicies(loads []*policyLoad) {
	policyLoaded.Reset()
	for _, load := range loads {
		name := load.object.Name
		switch {
		case load.object.Spec.Mode == v1alpha1.ModeDisabled:
		case load.err == nil && load.result.Usable():
			policyLoaded.WithLabelValues(name, v1alpha1.ReasonPolicyLoaded).Set(1)
		case load.lastGood != nil:
			policyLoaded.WithLabelValues(name, v1alpha1.ReasonLastGoodActive).Set(0)
		default:
			policyLoaded.WithLabelValues(name, v1alpha1.ReasonNotLoaded).Set(0)
		}
	}
}
