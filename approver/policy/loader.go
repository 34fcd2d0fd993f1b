// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"encoding/json"
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
	"countersign.dev/countersign/approver/sandbox"
	"countersign.dev/countersign/policies"
)

// Loader finds the sources of policies and loads them.
type Loader struct {
	// Reader reads ConfigMaps.
	Reader client.Reader
	// Namespace is the namespace of the ConfigMaps.
	Namespace string
}

// Source is the Rego of a policy, or the reason that it cannot be found.
type Source struct {
	evaluator.Source
	// NotFound says which field of the spec is invalid or names a missing object, and how to fix it. Empty
	// if the source was found.
	NotFound string
	// MissingObject reports that NotFound is about an object that can be created later. The
	// spec itself is valid.
	MissingObject bool
}

// Key identifies a load: two sources with one key and one minimum coverage have the same result.
func (s Source) Key(minCoverage int32) string { return fmt.Sprintf("%s %d", s.Digest(), minCoverage) }

// Source finds the source that spec.rego names. The error is an error of the API server.
func (l Loader) Source(ctx context.Context, object *v1alpha1.ApprovalPolicy) (Source, error) {
	return l.source(ctx, object, object.Spec.Rego, object.Spec.Parameters, "spec.rego")
}

// CandidateSource finds the source that spec.candidate names. The error is an error of the API server.
func (l Loader) CandidateSource(ctx context.Context, object *v1alpha1.ApprovalPolicy) (Source, error) {
	parameters := object.Spec.Parameters
	if own := object.Spec.Candidate.Parameters; own != nil {
		parameters = own
	}
	return l.source(ctx, object, object.Spec.Candidate.Rego, parameters, "spec.candidate.rego")
}

func (l Loader) source(ctx context.Context, object *v1alpha1.ApprovalPolicy, rego v1alpha1.RegoSource, parameters *apiextensionsv1.JSON, field string) (Source, error) {
	source := Source{Source: evaluator.Source{Package: rego.Package, Modules: rego.Modules}}
	if _, err := metav1.LabelSelectorAsSelector(object.Spec.Match.NamespaceSelector); err != nil {
		source.NotFound = fmt.Sprintf("spec.match.namespaceSelector is invalid: %v", err)
		return source, nil
	}
	var err error
	if source.Parameters, err = decodeParameters(parameters); err != nil {
		source.NotFound = fmt.Sprintf("spec.parameters must be an object: %v", err)
		return source, nil
	}
	switch {
	case rego.Builtin != "":
		pkg, modules, ok := policies.Builtin(rego.Builtin)
		if !ok {
			source.NotFound = fmt.Sprintf("%s.builtin: unknown policy %q. Use one of: %s", field, rego.Builtin, strings.Join(policies.Builtins(), ", "))
		}
		if source.Modules = modules; source.Package == "" {
			source.Package = pkg
		}
	case rego.ConfigMapRef != nil:
		var configMap corev1.ConfigMap
		key := types.NamespacedName{Namespace: l.Namespace, Name: rego.ConfigMapRef.Name}
		if err := l.Reader.Get(ctx, key, &configMap); apierrors.IsNotFound(err) {
			source.MissingObject = true
			source.NotFound = fmt.Sprintf("ConfigMap %s does not exist: create it, or name another in %s.configMapRef", key, field)
		} else if err != nil {
			return Source{}, fmt.Errorf("reading ConfigMap %s: %w", key, err)
		}
		source.Modules = configMap.Data
	}
	return source, nil
}

func decodeParameters(parameters *apiextensionsv1.JSON) (map[string]any, error) {
	if parameters == nil {
		return nil, nil
	}
	var out map[string]any
	return out, json.Unmarshal(parameters.Raw, &out)
}

// Load compiles and tests a source in a process with limits: see package sandbox. It compiles the source
// in this process too if that succeeds. The error is not about the source.
func (Loader) Load(ctx context.Context, source Source, minCoverage int32) (LoadResult, error) {
	result := LoadResult{minCoverage: minCoverage, notFound: source.NotFound, digest: source.testDigest(minCoverage)}
	if source.NotFound != "" {
		return result, nil
	}
	checked, err := sandbox.Check(ctx, source.Source)
	if err != nil {
		return LoadResult{}, err
	}
	result.Tests, result.Errors = checked.Tests, append(checked.Errors, checked.Tests.Failures...)
	if !checked.Compiled {
		return result, nil
	}
	if result.compiled, err = evaluator.Compile(ctx, source.Source); err != nil {
		return LoadResult{}, fmt.Errorf("compiling package %s again: %w", source.Package, err)
	}
	return result, nil
}

// LoadResult is the result of loading a source.
type LoadResult struct {
	// Errors are the problems of the modules, the parameters or the tests.
	Errors evaluator.Errors
	// Tests is the result of the tests. It is zero if the source has no tests or does not compile.
	Tests evaluator.TestReport

	minCoverage int32
	notFound    string
	tooMany     string
	loading     bool
	takenOut    bool
	digest      string // of what was tested
	compiled    *evaluator.Policy
}

// Problem is the reason why a source is not usable. The zero Problem means that it is usable.
type Problem struct {
	// Reason is a reason of the API, such as [v1alpha1.ReasonInvalidRego].
	Reason string
	// Message says what is wrong and how to fix it.
	Message string
}

// Compiled reports whether the source compiles. Its tests may still fail.
func (r LoadResult) Compiled() bool { return r.compiled != nil }

// Policy returns the evaluator of a usable source, or nil.
func (r LoadResult) Policy() *evaluator.Policy {
	if r.compiled == nil || r.Errors != nil || r.coverageTooLow() || r.TakenOut() {
		return nil
	}
	return r.compiled
}

// Usable reports whether the source can decide requests.
func (r LoadResult) Usable() bool { return r.Policy() != nil }

func (r LoadResult) coverageTooLow() bool { return r.Tests.Percent < int(r.minCoverage) }

// Problem returns the reason that the source is not usable.
func (r LoadResult) Problem() Problem {
	switch {
	case r.takenOut:
		return takenOut
	case r.loading:
		return Problem{v1alpha1.ReasonLoading, "the source has not been compiled and tested yet"}
	case r.tooMany != "":
		return Problem{v1alpha1.ReasonTooManySources, r.tooMany}
	case r.notFound != "":
		return Problem{v1alpha1.ReasonSourceNotFound, r.notFound}
	case r.compiled == nil && len(r.Errors) > 0 && r.Errors[0].File == evaluator.ParametersField:
		return Problem{v1alpha1.ReasonInvalidParameters, r.Errors.Error()}
	case r.compiled == nil:
		return Problem{v1alpha1.ReasonInvalidRego, r.Errors.Error()}
	case r.Errors != nil:
		return Problem{v1alpha1.ReasonTestsFailed, r.Errors.Error()}
	case r.coverageTooLow():
		return Problem{v1alpha1.ReasonCoverageTooLow, r.coverageMessage()}
	case r.TakenOut():
		return takenOut
	}
	return Problem{}
}

var takenOut = Problem{v1alpha1.ReasonEvaluationTooExpensive, evaluator.ErrTooExpensive.Error() + ": change spec.rego or spec.parameters"}

// TakenOut reports whether the policy is no longer evaluated, because evaluations exceeded their limits.
func (r LoadResult) TakenOut() bool {
	return r.takenOut || r.compiled != nil && r.compiled.TooExpensive()
}

func (r LoadResult) coverageMessage() string {
	text := fmt.Sprintf("the tests cover %d%% of the policy, spec.minCoverage is %d: ", r.Tests.Percent, r.minCoverage)
	if r.Tests.Tests == 0 {
		return text + "add _test.rego files"
	}
	return text + "add tests for " + strings.Join(r.Tests.NotCovered[:min(len(r.Tests.NotCovered), 16)], ", ")
}
