// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/policies"
)

// defaultHoldFor is the default of spec.holdFor, for objects that were stored without it.
const defaultHoldFor = 30 * time.Second

// policyLoader loads all ApprovalPolicies at once into a PolicySet, whichever of them, or
// of the ConfigMaps they name, has changed. It runs in every replica, so that a standby has
// them loaded; only the leader writes status.
type policyLoader struct {
	client    client.Client
	namespace string
	set       *PolicySet
	elected   <-chan struct{}
	// changed is called when requests may be decided otherwise than before.
	changed func(context.Context) error

	// lastGood is, by the policy's UID, the revision in force. Only Reconcile uses it, and one at a time.
	lastGood map[types.UID]*evaluator.Policy
}

// Reconcile loads every policy, replaces the set, and writes what became of each into its status.
func (l *policyLoader) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	var list v1alpha1.ApprovalPolicyList
	if err := l.client.List(ctx, &list); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing policies: %w", err)
	}
	slices.SortFunc(list.Items, func(a, b v1alpha1.ApprovalPolicy) int { return cmp.Compare(a.Name, b.Name) })

	loaded := make([]loadedPolicy, 0, len(list.Items))
	good := make(map[types.UID]*evaluator.Policy, len(list.Items))
	faults := make([]error, len(list.Items))
	for i := range list.Items {
		policy := &list.Items[i]
		compiled, err := l.load(ctx, policy)
		if apiFault(err) {
			return reconcile.Result{}, fmt.Errorf("loading policy %s: %w", policy.Name, err)
		}
		if faults[i] = err; err != nil {
			log.FromContext(ctx).Info("policy cannot be loaded", "policy", policy.Name, "error", err.Error())
			compiled = l.lastGood[policy.UID]
		}
		if compiled != nil {
			good[policy.UID] = compiled
		}
		holdFor := defaultHoldFor
		if policy.Spec.HoldFor != nil {
			holdFor = policy.Spec.HoldFor.Duration
		}
		loaded = append(loaded, loadedPolicy{name: policy.Name, signerNames: policy.Spec.Match.SignerNames, holdFor: holdFor, compiled: compiled})
	}
	l.lastGood = good
	l.set.replace(loaded)
	if err := l.changed(ctx); err != nil {
		return reconcile.Result{}, fmt.Errorf("taking up pending requests: %w", err)
	}
	select {
	case <-l.elected:
	default:
		return reconcile.Result{}, nil
	}
	var errs []error
	for i := range list.Items {
		errs = append(errs, l.writeStatus(ctx, &list.Items[i], good[list.Items[i].UID], faults[i]))
	}
	return reconcile.Result{}, errors.Join(errs...)
}

// errSource is a source that is not there.
type errSource struct{ message string }

func (e errSource) Error() string { return e.message }

// apiFault says that an error speaks of the API server and not of the policy.
func apiFault(err error) bool {
	var source errSource
	var rego evaluator.Errors
	return err != nil && !errors.As(err, &source) && !errors.As(err, &rego)
}

func (l *policyLoader) load(ctx context.Context, policy *v1alpha1.ApprovalPolicy) (*evaluator.Policy, error) {
	source, err := l.source(ctx, policy)
	if err != nil {
		return nil, err
	}
	if last := l.lastGood[policy.UID]; last != nil && last.Revision() == source.Revision() {
		return last, nil
	}
	return evaluator.Compile(ctx, source)
}

// source finds the text of a policy.
func (l *policyLoader) source(ctx context.Context, policy *v1alpha1.ApprovalPolicy) (evaluator.Source, error) {
	rego := policy.Spec.Rego
	source := evaluator.Source{Package: rego.Package, Modules: rego.Modules}
	if policy.Spec.Parameters != nil {
		if err := json.Unmarshal(policy.Spec.Parameters.Raw, &source.Parameters); err != nil {
			return source, errSource{fmt.Sprintf("spec.parameters must be an object: %v", err)}
		}
	}
	switch {
	case rego.Builtin != "":
		pkg, modules, ok := policies.Builtin(rego.Builtin)
		if !ok {
			return source, errSource{fmt.Sprintf("there is no builtin policy %q: this approver has pod-serving", rego.Builtin)}
		}
		if source.Modules = modules; source.Package == "" {
			source.Package = pkg
		}
	case rego.ConfigMapRef != nil:
		var configMap corev1.ConfigMap
		key := types.NamespacedName{Namespace: l.namespace, Name: rego.ConfigMapRef.Name}
		if err := l.client.Get(ctx, key, &configMap); apierrors.IsNotFound(err) {
			return source, errSource{fmt.Sprintf("ConfigMap %s does not exist: create it, or name another in spec.rego.configMapRef", key)}
		} else if err != nil {
			return source, err
		}
		source.Modules = configMap.Data
	}
	return source, nil
}

func (l *policyLoader) writeStatus(ctx context.Context, policy *v1alpha1.ApprovalPolicy, active *evaluator.Policy, fault error) error {
	before := policy.DeepCopy()
	status := &policy.Status
	status.ObservedGeneration = policy.Generation
	status.Errors, status.Revision = nil, ""
	if active != nil {
		status.Revision = active.Revision()
	}
	compiled := metav1.Condition{Type: v1alpha1.ConditionCompiled, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonCompiled, Message: "the source compiles"}
	ready := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonPolicyLoaded, Message: "requests are decided by the source that the spec names"}
	if fault != nil {
		compiled.Status, compiled.Reason, compiled.Message = metav1.ConditionFalse, v1alpha1.ReasonSourceNotFound, truncate(fault.Error(), 1024)
		if rego, ok := errors.AsType[evaluator.Errors](fault); ok {
			compiled.Reason = v1alpha1.ReasonInvalidRego
			for _, e := range rego[:min(len(rego), 16)] {
				status.Errors = append(status.Errors, v1alpha1.RegoError{File: e.File, Row: int32(e.Row), Col: int32(e.Col), Message: truncate(e.Message, 1024)}) //nolint:gosec // rows and columns of a file below 3 MiB
			}
		}
		if active != nil {
			ready.Reason, ready.Message = v1alpha1.ReasonLastGoodActive, fmt.Sprintf("requests are still decided by revision %.12s", active.Revision())
		} else {
			ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, v1alpha1.ReasonNotLoaded, "requests that this policy matches stay pending"
		}
	}
	for _, condition := range []metav1.Condition{compiled, ready} {
		condition.ObservedGeneration = policy.Generation
		meta.SetStatusCondition(&status.Conditions, condition)
	}
	if equality.Semantic.DeepEqual(before.Status, policy.Status) {
		return nil
	}
	if err := l.client.Status().Update(ctx, policy); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("writing the status of policy %s: %w", policy.Name, err)
	}
	return nil
}

// truncate shortens a text to at most n bytes and says so.
func truncate(text string, n int) string {
	const mark = " … (shortened; the audit record has it all)"
	if len(text) <= n {
		return text
	}
	cut := n - len(mark)
	for cut > 0 && text[cut]&0xC0 == 0x80 { // not inside of a UTF-8 sequence
		cut--
	}
	return text[:cut] + mark
}
