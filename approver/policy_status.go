// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/policy"
	"countersign.dev/countersign/internal/text"
)

const (
	maxErrors       = 16   // in status.errors, limited by the custom resource definition
	maxReplicas     = 16   // in status.replicas, likewise
	maxErrorMessage = 1024 // bytes of the message of one error
)

// statusWriter writes the status of ApprovalPolicies. Every replica writes its entry in
// status.replicas. Only the leader writes the other fields.
type statusWriter struct {
	client     client.Client
	podExists  func(context.Context, client.ObjectKey) (bool, error)
	namespace  string
	replica    string // the name of the Pod of this process
	elected    <-chan struct{}
	comparison *comparison
	events     events.EventRecorder
}

// write writes the status of a policy that was loaded, if it has changed.
func (w *statusWriter) write(ctx context.Context, load *policyLoad) error {
	object, revision := load.object, ""
	if active := load.active(); active != nil {
		revision = active.Revision()
	}
	select {
	case <-w.elected:
	default:
		return w.writeReplica(ctx, object, revision)
	}
	before := object.Status.DeepCopy()
	w.setStatus(load)
	object.Status.Revision = revision
	if err := w.setReplicas(ctx, object, revision); err != nil {
		return err
	}
	if equality.Semantic.DeepEqual(*before, object.Status) {
		return nil
	}
	// The API server ignores everything but the status. object itself is shared with the cache, which has only
	// a part of the policy.
	update := &v1alpha1.ApprovalPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: object.Name, UID: object.UID, ResourceVersion: object.ResourceVersion},
		Status:     object.Status,
	}
	if err := w.client.Status().Update(ctx, update); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("writing the status of policy %s: %w", object.Name, err)
	}
	w.emit(object, before.Conditions)
	return nil
}

// emit emits an Event for each condition that has become false, or is false for another reason.
func (w *statusWriter) emit(object *v1alpha1.ApprovalPolicy, before []metav1.Condition) {
	for _, c := range object.Status.Conditions {
		was := meta.FindStatusCondition(before, c.Type)
		changed := was == nil || was.Status != c.Status || was.Reason != c.Reason || was.Message != c.Message
		quiet := c.Status != metav1.ConditionFalse || c.Reason == v1alpha1.ReasonLoading || c.Reason == v1alpha1.ReasonDisabled
		if changed && !quiet {
			w.events.Eventf(object, nil, corev1.EventTypeWarning, c.Reason, "Load", "%s", text.Shorten(c.Message, 1024))
		}
	}
}

// setStatus sets all fields of the status but revision and replicas.
func (w *statusWriter) setStatus(load *policyLoad) {
	status, result := &load.object.Status, load.result
	switch result.Problem().Reason {
	case v1alpha1.ReasonLoading, v1alpha1.ReasonEvaluationTooExpensive: // the other fields remain
		w.setCondition(load, readyCondition(load))
		return
	}
	status.Tested = nil
	for _, r := range []*policy.LoadResult{&load.result, load.candidate} {
		if r == nil {
			continue
		}
		if tested, ok := r.Tested(); ok {
			status.Tested = append(status.Tested, tested)
		}
	}
	status.ObservedGeneration = load.object.Generation
	status.Errors, status.Coverage = nil, nil
	for _, e := range result.Errors[:min(len(result.Errors), maxErrors)] {
		status.Errors = append(status.Errors, v1alpha1.RegoError{
			File: e.File, Row: int32(e.Row), Col: int32(e.Col), //nolint:gosec // of a file below 3 MiB
			Message: text.Shorten(e.Message, maxErrorMessage), Suggestions: e.Suggestions[:min(len(e.Suggestions), maxErrors)],
		})
	}
	if result.Tests.Tests > 0 {
		status.Coverage = &v1alpha1.Coverage{
			Percent:    int32(result.Tests.Percent), //nolint:gosec // at most 100
			NotCovered: result.Tests.NotCovered[:min(len(result.Tests.NotCovered), maxErrors)],
		}
	}
	for _, condition := range []metav1.Condition{compiledCondition(result), testsCondition(result), readyCondition(load)} {
		w.setCondition(load, condition)
	}
	status.Candidate = w.candidateStatus(load)
}

func (w *statusWriter) setCondition(load *policyLoad, condition metav1.Condition) {
	condition.ObservedGeneration = load.object.Generation
	condition.Message = text.Shorten(condition.Message, 4096)
	meta.SetStatusCondition(&load.object.Status.Conditions, condition)
}

// candidateStatus returns the status of spec.candidate, or nil if there is none.
func (w *statusWriter) candidateStatus(load *policyLoad) *v1alpha1.CandidateStatus {
	if load.candidate == nil {
		return nil
	}
	candidate, active := load.candidate.Policy(), load.active()
	switch {
	case candidate == nil:
		problem := load.candidate.Problem()
		return &v1alpha1.CandidateStatus{Message: text.Shorten(problem.Reason+": "+problem.Message, maxErrorMessage)}
	case active != nil && candidate.Revision() == active.Revision():
		return &v1alpha1.CandidateStatus{Revision: candidate.Revision(), Message: "the candidate is the active revision; there is nothing to compare"}
	default:
		counts := w.comparison.status(load.object.UID, candidate.Revision(), load.object.Status.Candidate)
		return &counts
	}
}

func compiledCondition(result policy.LoadResult) metav1.Condition {
	if !result.Compiled() {
		problem := result.Problem()
		return metav1.Condition{Type: v1alpha1.ConditionCompiled, Status: metav1.ConditionFalse, Reason: problem.Reason, Message: problem.Message}
	}
	return metav1.Condition{Type: v1alpha1.ConditionCompiled, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonCompiled, Message: "the source compiles"}
}

func testsCondition(result policy.LoadResult) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionTestsPassed}
	switch problem := result.Problem(); {
	case !result.Compiled():
		c.Status, c.Reason, c.Message = metav1.ConditionUnknown, v1alpha1.ReasonNotCompiled, "the tests were not run, because the source does not compile"
	case problem.Reason != "":
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, problem.Reason, problem.Message
	case result.Tests.Tests == 0:
		c.Status, c.Reason, c.Message = metav1.ConditionUnknown, v1alpha1.ReasonNoTests, "the source has no tests, and spec.minCoverage requires none"
	default:
		c.Status, c.Reason = metav1.ConditionTrue, v1alpha1.ReasonTestsPassed
		c.Message = fmt.Sprintf("%d tests, %d%% covered", result.Tests.Tests, result.Tests.Percent)
	}
	return c
}

func readyCondition(load *policyLoad) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue}
	problem := load.result.Problem()
	switch mode := load.object.Spec.Mode; {
	case mode == v1alpha1.ModeDisabled:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ReasonDisabled, "spec.mode is Disabled: the policy is not evaluated"
	case load.result.Usable() && mode == v1alpha1.ModeAudit:
		c.Reason, c.Message = v1alpha1.ReasonPolicyLoaded, "the source in spec.rego is active, and it does not decide requests because spec.mode is Audit"
	case load.result.Usable():
		c.Reason, c.Message = v1alpha1.ReasonPolicyLoaded, "the source in spec.rego is active"
	case load.lastGood != nil:
		c.Reason = v1alpha1.ReasonLastGoodActive
		c.Message = fmt.Sprintf("revision %.12s remains active for its signers; requests for other signers stay pending", load.active().Revision())
	case problem.Reason == v1alpha1.ReasonLoading, problem.Reason == v1alpha1.ReasonEvaluationTooExpensive:
		c.Status, c.Reason = metav1.ConditionFalse, problem.Reason
		c.Message = problem.Message + "; requests that the policy matches stay pending"
	default:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ReasonNotLoaded, "requests that the policy matches stay pending"
	}
	return c
}

// setReplicas sets the entry of this replica, and removes the entries of Pods that do not exist.
func (w *statusWriter) setReplicas(ctx context.Context, object *v1alpha1.ApprovalPolicy, revision string) error {
	exists := func(name string) (bool, error) {
		return w.podExists(ctx, client.ObjectKey{Namespace: w.namespace, Name: name})
	}
	inCluster, err := exists(w.replica)
	if err != nil {
		return err
	}
	replicas := []v1alpha1.ReplicaStatus{}
	for _, replica := range object.Status.Replicas {
		if replica.Name == w.replica {
			continue
		}
		if inCluster { // a process outside of the cluster cannot tell which replicas are gone
			if ok, err := exists(replica.Name); err != nil {
				return err
			} else if !ok {
				continue
			}
		}
		replicas = append(replicas, replica)
	}
	replicas = append(replicas[max(0, len(replicas)-maxReplicas+1):], v1alpha1.ReplicaStatus{Name: w.replica, Revision: revision})
	slices.SortFunc(replicas, func(a, b v1alpha1.ReplicaStatus) int { return strings.Compare(a.Name, b.Name) })
	object.Status.Replicas = replicas
	return nil
}

// writeReplica writes the entry of a replica that does not lead, and nothing else.
func (w *statusWriter) writeReplica(ctx context.Context, object *v1alpha1.ApprovalPolicy, revision string) error {
	replica := v1alpha1.ReplicaStatus{Name: w.replica, Revision: revision}
	if slices.Contains(object.Status.Replicas, replica) {
		return nil
	}
	entry := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "ApprovalPolicy",
		"metadata": map[string]any{"name": object.Name},
		"status":   map[string]any{"replicas": []any{map[string]any{"name": replica.Name, "revision": replica.Revision}}},
	}}
	err := w.client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(entry), client.FieldOwner("countersign-approver-"+w.replica), client.ForceOwnership)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("writing the status of policy %s: %w", object.Name, err)
	}
	return nil
}
