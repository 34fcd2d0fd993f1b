// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/internal/text"
)

const (
	maxErrors       = 16   // in status.errors, as the custom resource definition limits it
	maxReplicas     = 16   // in status.replicas, likewise
	maxErrorMessage = 1024 // bytes of one error's message
)

// statusWriter writes what became of policies into their status. Every replica tells what it has
// loaded; all else is the leader's to tell.
type statusWriter struct {
	client    client.Client
	exists    func(context.Context, client.ObjectKey) (bool, error) // a Pod
	namespace string
	replica   string // the name of this process's Pod
	elected   <-chan struct{}
	tally     *tally
}

func (w *statusWriter) write(ctx context.Context, policy *v1alpha1.ApprovalPolicy, report *loadReport) error {
	revision := ""
	if report.active != nil {
		revision = report.active.Revision()
	}
	select {
	case <-w.elected:
	default:
		return w.tellReplica(ctx, policy, revision)
	}
	before := policy.DeepCopy()
	w.describe(policy, report)
	policy.Status.Revision = revision
	if err := w.describeReplicas(ctx, policy, revision); err != nil {
		return err
	}
	if equality.Semantic.DeepEqual(before.Status, policy.Status) {
		return nil
	}
	if err := w.client.Status().Update(ctx, policy); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("writing the status of policy %s: %w", policy.Name, err)
	}
	return nil
}

// describe sets all of the status but what replicas have loaded.
func (w *statusWriter) describe(policy *v1alpha1.ApprovalPolicy, report *loadReport) {
	status, attempt := &policy.Status, report.attempt
	status.ObservedGeneration = policy.Generation
	status.Errors, status.Coverage = nil, nil
	for _, e := range attempt.faults[:min(len(attempt.faults), maxErrors)] {
		status.Errors = append(status.Errors, v1alpha1.RegoError{
			File: e.File, Row: int32(e.Row), Col: int32(e.Col), //nolint:gosec // of a file below 3 MiB
			Message: text.Shorten(e.Message, maxErrorMessage), Suggestions: e.Suggestions[:min(len(e.Suggestions), maxErrors)],
		})
	}
	if attempt.tests.Tests > 0 {
		status.Coverage = &v1alpha1.Coverage{
			Percent:    int32(attempt.tests.Percent), //nolint:gosec // at most 100
			NotCovered: attempt.tests.NotCovered[:min(len(attempt.tests.NotCovered), maxErrors)],
		}
	}
	for _, condition := range []metav1.Condition{compiledCondition(attempt), testsCondition(attempt), readyCondition(policy, report)} {
		condition.ObservedGeneration = policy.Generation
		condition.Message = text.Shorten(condition.Message, 4096)
		meta.SetStatusCondition(&status.Conditions, condition)
	}
	known := status.Candidate
	status.Candidate = nil
	if report.candidate == nil {
		return
	}
	compiled := report.candidate.policy()
	switch {
	case compiled == nil:
		status.Candidate = &v1alpha1.CandidateStatus{Message: text.Shorten(report.candidate.Reason()+": "+report.candidate.Error(), maxErrorMessage)}
	case report.active != nil && compiled.Revision() == report.active.Revision():
		status.Candidate = &v1alpha1.CandidateStatus{Revision: compiled.Revision(), Message: "it is the active revision: nothing is left to compare"}
	default:
		counted := w.tally.status(policy.UID, compiled.Revision(), known)
		status.Candidate = &counted
	}
}

func compiledCondition(a Attempt) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionCompiled, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonCompiled, Message: "the source compiles"}
	if a.compiled == nil {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, a.Reason(), a.Error()
	}
	return c
}

func testsCondition(a Attempt) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionTestsPassed, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonTestsPassed}
	c.Message = fmt.Sprintf("%d tests, %d%% covered", a.tests.Tests, a.tests.Percent)
	switch reason := a.Reason(); {
	case a.compiled == nil:
		c.Status, c.Reason, c.Message = metav1.ConditionUnknown, v1alpha1.ReasonNotCompiled, "the tests were not run, because the source does not compile"
	case reason != "":
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, reason, a.Error()
	case a.tests.Tests == 0:
		c.Status, c.Reason, c.Message = metav1.ConditionUnknown, v1alpha1.ReasonNoTests, "the source has no tests, and spec.minCoverage asks for none"
	}
	return c
}

func readyCondition(policy *v1alpha1.ApprovalPolicy, report *loadReport) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonPolicyLoaded, Message: "requests are decided by the source that the spec names"}
	if policy.Spec.Mode == v1alpha1.ModeAudit {
		c.Message = "requests are looked at by the source that the spec names, and not decided: spec.mode is Audit"
	}
	switch {
	case policy.Spec.Mode == v1alpha1.ModeDisabled:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ReasonDisabled, "spec.mode is Disabled: the policy decides nothing"
	case report.attempt.Usable():
	case report.active != nil:
		c.Reason = v1alpha1.ReasonLastGoodActive
		c.Message = fmt.Sprintf("requests are still decided by revision %.12s, for the signers it was loaded for; those of others stay pending", report.active.Revision())
	default:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ReasonNotLoaded, "requests that this policy matches stay pending"
	}
	return c
}

// describeReplicas sets this replica's entry, and leaves out those of Pods that are no more.
func (w *statusWriter) describeReplicas(ctx context.Context, policy *v1alpha1.ApprovalPolicy, revision string) error {
	exists := func(name string) (bool, error) {
		return w.exists(ctx, client.ObjectKey{Namespace: w.namespace, Name: name})
	}
	inCluster, err := exists(w.replica)
	if err != nil {
		return err
	}
	kept := []v1alpha1.ReplicaStatus{}
	for _, replica := range policy.Status.Replicas {
		if replica.Name == w.replica {
			continue
		}
		if inCluster { // out of the cluster nothing tells which of them are gone
			if there, err := exists(replica.Name); err != nil {
				return err
			} else if !there {
				continue
			}
		}
		kept = append(kept, replica)
	}
	kept = append(kept[max(0, len(kept)-maxReplicas+1):], v1alpha1.ReplicaStatus{Name: w.replica, Revision: revision})
	slices.SortFunc(kept, func(a, b v1alpha1.ReplicaStatus) int { return strings.Compare(a.Name, b.Name) })
	policy.Status.Replicas = kept
	return nil
}

// tellReplica writes the entry of a replica that does not lead, and nothing else.
func (w *statusWriter) tellReplica(ctx context.Context, policy *v1alpha1.ApprovalPolicy, revision string) error {
	told := v1alpha1.ReplicaStatus{Name: w.replica, Revision: revision}
	if slices.Contains(policy.Status.Replicas, told) {
		return nil
	}
	entry := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "ApprovalPolicy",
		"metadata": map[string]any{"name": policy.Name},
		"status":   map[string]any{"replicas": []any{map[string]any{"name": told.Name, "revision": told.Revision}}},
	}}
	err := w.client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(entry), client.FieldOwner("countersign-approver-"+w.replica), client.ForceOwnership)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("writing the status of policy %s: %w", policy.Name, err)
	}
	return nil
}
