// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package approver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/policies"
)

// Loader finds the source of a policy, and tries it.
type Loader struct {
	// Reader reads ConfigMaps.
	Reader client.Reader
	// Namespace that ConfigMaps with policies are in.
	Namespace string
}

// Source is the text of a policy, or why there is none.
type Source struct {
	evaluator.Source
	// Missing says that what the spec names does not exist, and what to do; empty if it does.
	Missing string
	// MayCome says that what is missing is an object which may be created later, and then the
	// same spec is good.
	MayCome bool
}

// Source finds the text of a policy, or of its candidate. The error is a fault of the API server.
func (l Loader) Source(ctx context.Context, policy *v1alpha1.ApprovalPolicy, candidate bool) (Source, error) {
	rego, parameters, field := policy.Spec.Rego, policy.Spec.Parameters, "spec.rego"
	if candidate {
		rego, field = policy.Spec.Candidate.Rego, "spec.candidate.rego"
		if own := policy.Spec.Candidate.Parameters; own != nil {
			parameters = own
		}
	}
	source := Source{Source: evaluator.Source{Package: rego.Package, Modules: rego.Modules}}
	if _, err := metav1.LabelSelectorAsSelector(policy.Spec.Match.NamespaceSelector); err != nil {
		source.Missing = fmt.Sprintf("spec.match.namespaceSelector is no selector: %v", err)
		return source, nil
	}
	var err error
	if source.Parameters, err = objectOf(parameters); err != nil {
		source.Missing = fmt.Sprintf("spec.parameters must be an object: %v", err)
		return source, nil
	}
	switch {
	case rego.Builtin != "":
		pkg, modules, ok := policies.Builtin(rego.Builtin)
		if !ok {
			source.Missing = fmt.Sprintf("%s.builtin: there is no builtin policy %q; there are: %s", field, rego.Builtin, strings.Join(policies.Builtins(), ", "))
		}
		if source.Modules = modules; source.Package == "" {
			source.Package = pkg
		}
	case rego.ConfigMapRef != nil:
		var configMap corev1.ConfigMap
		key := types.NamespacedName{Namespace: l.Namespace, Name: rego.ConfigMapRef.Name}
		if err := l.Reader.Get(ctx, key, &configMap); apierrors.IsNotFound(err) {
			source.MayCome = true
			source.Missing = fmt.Sprintf("ConfigMap %s does not exist: create it, or name another in %s.configMapRef", key, field)
		} else if err != nil {
			return Source{}, fmt.Errorf("reading ConfigMap %s: %w", key, err)
		}
		source.Modules = configMap.Data
	}
	return source, nil
}

func objectOf(parameters *apiextensionsv1.JSON) (map[string]any, error) {
	if parameters == nil {
		return nil, nil
	}
	var out map[string]any
	return out, json.Unmarshal(parameters.Raw, &out)
}

// Attempt is what became of trying a source.
type Attempt struct {
	minCoverage int32
	compiled    *evaluator.Policy
	missing     string
	faults      evaluator.Errors // of the source, or of its tests
	tests       evaluator.TestReport
}

// Try compiles a source and runs its tests. The error is a fault of the machine and none of the source.
func (l Loader) Try(ctx context.Context, source Source, minCoverage int32) (Attempt, error) {
	if source.Missing != "" {
		return Attempt{missing: source.Missing}, nil
	}
	attempt := Attempt{minCoverage: minCoverage}
	compiled, err := evaluator.Compile(ctx, source.Source)
	if faults, ok := errors.AsType[evaluator.Errors](err); ok {
		attempt.faults = faults
		return attempt, nil
	}
	if err != nil {
		return Attempt{}, err
	}
	attempt.compiled = compiled
	if attempt.tests, err = evaluator.Test(ctx, source.Source); err != nil {
		return Attempt{}, err
	}
	attempt.faults = attempt.tests.Failures
	return attempt, nil
}

// attemptKey tells one attempt from another that may end otherwise.
func attemptKey(source Source, minCoverage int32) string {
	return fmt.Sprintf("%s %d", source.Digest(), minCoverage)
}

// Usable says whether requests may be decided by the source.
func (a Attempt) Usable() bool {
	return a.compiled != nil && a.faults == nil && a.tests.Percent >= int(a.minCoverage)
}

// policy is the compiled source if it is usable, or nil.
func (a Attempt) policy() *evaluator.Policy {
	if a.Usable() {
		return a.compiled
	}
	return nil
}

// Missing says what the spec names that does not exist; empty if it all does.
func (a Attempt) Missing() string { return a.missing }

// Faults are what is wrong with the source, with its parameters or with its tests.
func (a Attempt) Faults() evaluator.Errors { return a.faults }

// Reason is the reason of the condition that is not true; empty if the source is usable.
func (a Attempt) Reason() string {
	switch {
	case a.missing != "":
		return v1alpha1.ReasonSourceNotFound
	case a.compiled == nil && len(a.faults) > 0 && a.faults[0].File == evaluator.ParametersField:
		return v1alpha1.ReasonInvalidParameters
	case a.compiled == nil:
		return v1alpha1.ReasonInvalidRego
	case a.faults != nil:
		return v1alpha1.ReasonTestsFailed
	case !a.Usable():
		return v1alpha1.ReasonCoverageTooLow
	}
	return ""
}

// Error says what is wrong and how to mend it; empty if the source is usable.
func (a Attempt) Error() string {
	switch a.Reason() {
	case "":
		return ""
	case v1alpha1.ReasonSourceNotFound:
		return a.missing
	case v1alpha1.ReasonCoverageTooLow:
		text := fmt.Sprintf("the tests reach %d%% of the policy, and spec.minCoverage is %d", a.tests.Percent, a.minCoverage)
		if a.tests.Tests == 0 {
			return text + ": add _test.rego files"
		}
		return text + ": add tests for " + strings.Join(a.tests.NotCovered[:min(len(a.tests.NotCovered), 16)], ", ")
	default:
		return a.faults.Error()
	}
}
