// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/policy"
)

// policyReconciler loads all ApprovalPolicies into a [policy.Set] when one of them changes, or a
// ConfigMap. It runs in every replica, so that a standby replica has the policies loaded.
type policyReconciler struct {
	client   client.Client
	policies *policy.Set
	loader   policy.Loader
	// status writes the status of policies. Nil in a process that writes none.
	status *statusWriter
	// changed is called when requests can be decided differently than before.
	changed func(context.Context) error

	// Only Reconcile uses these, and never concurrently.
	lastGood map[types.UID]policy.Policy  // the last usable revision of each policy
	results  map[string]policy.LoadResult // of every source that a policy names, by policy.Source.Key
}

// Reconcile loads every policy, replaces the set and writes the statuses. A problem of one policy,
// or an error while reading its source, does not affect the others.
func (r *policyReconciler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	var list v1alpha1.ApprovalPolicyList
	if err := r.client.List(ctx, &list); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing policies: %w", err)
	}
	slices.SortFunc(list.Items, func(a, b v1alpha1.ApprovalPolicy) int { return cmp.Compare(a.Name, b.Name) })

	loads := r.loadAll(ctx, list.Items)
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
	for _, load := range loads {
		if r.status != nil && load.err == nil {
			errs = append(errs, r.status.write(ctx, load))
		}
	}
	return reconcile.Result{}, errors.Join(errs...)
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

// loadAll loads the policies, and remembers the last usable revision of each and the results.
func (r *policyReconciler) loadAll(ctx context.Context, objects []v1alpha1.ApprovalPolicy) []*policyLoad {
	lastGood, results := map[types.UID]policy.Policy{}, map[string]policy.LoadResult{}
	loads := make([]*policyLoad, len(objects))
	for i := range objects {
		load := &policyLoad{object: &objects[i]}
		loads[i] = load
		if before, ok := r.lastGood[load.object.UID]; ok {
			load.lastGood = &before
		}
		if load.err = r.load(ctx, load, results); load.err == nil {
			if load.result.Usable() {
				load.lastGood = &load.desired
			} else {
				problem := load.result.Problem()
				log.FromContext(ctx).Info("policy is not usable", "policy", load.object.Name, "reason", problem.Reason, "error", problem.Message)
			}
		}
		if load.lastGood != nil {
			lastGood[load.object.UID] = *load.lastGood
		}
	}
	r.lastGood, r.results = lastGood, results
	return loads
}

// load loads the source of a policy and of its candidate. The error is an error of the API server.
func (r *policyReconciler) load(ctx context.Context, load *policyLoad, results map[string]policy.LoadResult) error {
	object := load.object
	source, err := r.loader.Source(ctx, object)
	if err != nil {
		return err
	}
	if load.result, err = r.loadSource(ctx, source, object.Spec.MinCoverage, results); err != nil {
		return err
	}
	load.desired = policy.New(object, load.result.Policy(), nil)
	if object.Spec.Candidate == nil {
		return nil
	}
	if source, err = r.loader.CandidateSource(ctx, object); err != nil {
		return err
	}
	candidate, err := r.loadSource(ctx, source, object.Spec.MinCoverage, results)
	if err != nil {
		return err
	}
	load.candidate = &candidate
	if c := candidate.Policy(); c != nil && (load.desired.Active == nil || c.Revision() != load.desired.Active.Revision()) {
		load.desired.Candidate = c
	}
	return nil
}

// loadSource loads a source. It reuses the result of the same source in this reconciliation or the
// previous one.
func (r *policyReconciler) loadSource(ctx context.Context, source policy.Source, minCoverage int32, results map[string]policy.LoadResult) (policy.LoadResult, error) {
	key := source.Key(minCoverage)
	result, ok := results[key]
	if !ok {
		result, ok = r.results[key]
	}
	if !ok {
		var err error
		if result, err = r.loader.Load(ctx, source, minCoverage); err != nil {
			return policy.LoadResult{}, err
		}
	}
	if source.NotFound == "" {
		results[key] = result
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
