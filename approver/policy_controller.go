// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/evaluator"
)

// defaultHoldFor is the default of spec.holdFor, for objects that were stored without it.
const defaultHoldFor = 30 * time.Second

// timedOutDelay is how soon tests are run again that did not end in time, for which a busy machine
// may be to blame.
const timedOutDelay = time.Minute

// policyLoader loads all ApprovalPolicies at once into a PolicySet, whichever of them, or
// of the ConfigMaps they name, has changed. It runs in every replica, so that a standby has
// them loaded.
type policyLoader struct {
	client client.Client
	set    *PolicySet
	load   Loader
	// status writes what became of each policy; nil in a process that does not.
	status *statusWriter
	// changed is called when requests may be decided otherwise than before.
	changed func(context.Context) error

	// Only Reconcile uses these, and one at a time.
	loaded   map[types.UID]loadedPolicy // what is in force of each policy that could ever be used
	attempts map[string]Attempt         // of every source that a policy names now, by attemptKey
}

// Reconcile loads every policy, replaces the set, and writes what became of each into its
// status. What is wrong with one policy, or with the way to its source, does not keep back
// the others.
func (l *policyLoader) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	var list v1alpha1.ApprovalPolicyList
	if err := l.client.List(ctx, &list); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing policies: %w", err)
	}
	slices.SortFunc(list.Items, func(a, b v1alpha1.ApprovalPolicy) int { return cmp.Compare(a.Name, b.Name) })

	var errs []error
	var set []loadedPolicy
	loaded, attempts := map[types.UID]loadedPolicy{}, map[string]Attempt{}
	reports := make([]*loadReport, len(list.Items))
	for i := range list.Items {
		policy := &list.Items[i]
		active, wasLoaded := l.loaded[policy.UID]
		report, err := l.loadOne(ctx, policy, attempts)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("loading policy %s: %w", policy.Name, err))
		case report.attempt.Usable():
			active, wasLoaded = report.wanted, true
		default:
			log.FromContext(ctx).Info("policy cannot be loaded", "policy", policy.Name, "reason", report.attempt.Reason(), "error", report.attempt.Error())
		}
		if wasLoaded {
			loaded[policy.UID] = active
		}
		if report != nil {
			set = append(set, inForce(report.wanted, active, wasLoaded)...)
			if wasLoaded {
				report.active = active.compiled
			}
			reports[i] = report
		} else if wasLoaded { // its source could not be read: what was in force stays so
			set = append(set, active)
		} else {
			set = append(set, wantedOf(policy, nil))
		}
	}
	l.loaded, l.attempts = loaded, attempts
	notePolicies(list.Items, reports, loaded)
	if l.set.replace(set) {
		if err := l.changed(ctx); err != nil {
			errs = append(errs, fmt.Errorf("taking up pending requests: %w", err))
		}
	}
	if l.status != nil {
		for i, report := range reports {
			if report != nil {
				errs = append(errs, l.status.write(ctx, &list.Items[i], report))
			}
		}
	}
	var result reconcile.Result
	for _, attempt := range attempts {
		if attempt.tests.TimedOut {
			result.RequeueAfter = timedOutDelay
		}
	}
	return result, errors.Join(errs...)
}

// notePolicies sets the metric of what became of each policy. A report is nil if the source could not be read.
func notePolicies(policies []v1alpha1.ApprovalPolicy, reports []*loadReport, loaded map[types.UID]loadedPolicy) {
	policyLoaded.Reset()
	for i := range policies {
		policy, report := &policies[i], reports[i]
		_, wasLoaded := loaded[policy.UID]
		switch {
		case policy.Spec.Mode == v1alpha1.ModeDisabled:
		case report != nil && report.attempt.Usable():
			policyLoaded.WithLabelValues(policy.Name, v1alpha1.ReasonPolicyLoaded).Set(1)
		case wasLoaded:
			policyLoaded.WithLabelValues(policy.Name, v1alpha1.ReasonLastGoodActive).Set(0)
		default:
			policyLoaded.WithLabelValues(policy.Name, v1alpha1.ReasonNotLoaded).Set(0)
		}
	}
}

// loadReport is what became of a policy.
type loadReport struct {
	wanted    loadedPolicy // as the spec has it; compiled only if its source can be used
	attempt   Attempt
	candidate *Attempt          // nil if there is no candidate
	active    *evaluator.Policy // by which requests are decided; nil if there is none
}

// loadOne tries the source of a policy, and that of its candidate. The error is a fault of the API server.
func (l *policyLoader) loadOne(ctx context.Context, policy *v1alpha1.ApprovalPolicy, attempts map[string]Attempt) (*loadReport, error) {
	try := func(candidate bool) (Attempt, error) {
		source, err := l.load.Source(ctx, policy, candidate)
		if err != nil {
			return Attempt{}, err
		}
		// Policies that name the same source share one attempt, and what was compiled.
		key := attemptKey(source, policy.Spec.MinCoverage)
		attempt, ok := attempts[key]
		if !ok {
			attempt, ok = l.attempts[key]
		}
		if !ok || attempt.tests.TimedOut {
			attempt, err = l.load.Try(ctx, source, policy.Spec.MinCoverage)
		}
		if err == nil && source.Missing == "" {
			attempts[key] = attempt
		}
		return attempt, err
	}
	attempt, err := try(false)
	if err != nil {
		return nil, err
	}
	report := &loadReport{attempt: attempt, wanted: wantedOf(policy, attempt.policy())}
	if policy.Spec.Candidate != nil {
		candidate, err := try(true)
		if err != nil {
			return nil, err
		}
		report.candidate = &candidate
		if compiled := candidate.policy(); compiled != nil && (report.wanted.compiled == nil || compiled.Revision() != report.wanted.compiled.Revision()) {
			report.wanted.candidate = compiled
		}
	}
	return report, nil
}

// wantedOf is a policy as its spec has it.
func wantedOf(policy *v1alpha1.ApprovalPolicy, compiled *evaluator.Policy) loadedPolicy {
	p := loadedPolicy{
		name: policy.Name, uid: policy.UID, mode: policy.Spec.Mode, signerNames: policy.Spec.Match.SignerNames,
		holdFor: defaultHoldFor, compiled: compiled,
	}
	if policy.Spec.HoldFor != nil {
		p.holdFor = policy.Spec.HoldFor.Duration
	}
	if selector := policy.Spec.Match.NamespaceSelector; selector != nil && len(selector.MatchLabels)+len(selector.MatchExpressions) > 0 {
		var err error
		if p.namespaces, err = metav1.LabelSelectorAsSelector(selector); err != nil {
			// Selectors are checked before: see Loader.Source. For every request, and not loaded, is the safe reading.
			p.namespaces, p.compiled = nil, nil
		}
	}
	return p
}

// inForce is how a policy decides: as its spec has it or, while that cannot be used, by what was
// in force before, for what both are about. What only the spec is about stays pending: the
// revision before was never meant for it.
func inForce(wanted, before loadedPolicy, wasLoaded bool) []loadedPolicy {
	if wanted.compiled != nil || !wasLoaded {
		return []loadedPolicy{wanted}
	}
	if wanted.mode == v1alpha1.ModeDisabled || !sameNamespaces(wanted, before) {
		return []loadedPolicy{wanted}
	}
	kept, rest := before, wanted
	kept.mode, kept.holdFor, kept.candidate = wanted.mode, wanted.holdFor, wanted.candidate
	kept.signerNames, rest.signerNames = nil, nil
	for _, name := range wanted.signerNames {
		if slices.Contains(before.signerNames, name) {
			kept.signerNames = append(kept.signerNames, name)
		} else {
			rest.signerNames = append(rest.signerNames, name)
		}
	}
	var out []loadedPolicy
	for _, p := range []loadedPolicy{kept, rest} {
		if p.signerNames != nil {
			out = append(out, p)
		}
	}
	return out
}

func sameNamespaces(a, b loadedPolicy) bool {
	if a.namespaces == nil || b.namespaces == nil {
		return a.namespaces == nil && b.namespaces == nil
	}
	return equality.Semantic.DeepEqual(a.namespaces.String(), b.namespaces.String())
}
