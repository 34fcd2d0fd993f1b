// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package evaluator

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"countersign.dev/countersign/policies"
)

// ParametersSchemaFile is the file name of the JSON Schema of a policy's parameters.
const ParametersSchemaFile = "parameters.schema.json"

const (
	regoSuffix = ".rego"
	testSuffix = "_test.rego"
)

// Source is the Rego of a policy.
type Source struct {
	// Package holds the rules, such as "countersign.pod_serving".
	Package string
	// Modules by file name. Names ending in _test.rego are the policy's tests, which decide
	// nothing. [ParametersSchemaFile] can be among them. The modules of policies/lib are always added.
	Modules map[string]string
	// Parameters become input.parameters; nil means none.
	Parameters map[string]any
}

// Revision returns the SHA-256, in lower-case hex, of everything that a decision can depend on:
// package, modules, library and parameters.
func (s Source) Revision() string {
	modules := maps.Clone(s.Modules)
	maps.DeleteFunc(modules, func(name, _ string) bool { return strings.HasSuffix(name, testSuffix) })
	return digest(s.Package, modules, policies.Lib(), s.Parameters)
}

// Digest returns the SHA-256, in lower-case hex, of the source, including its tests.
func (s Source) Digest() string { return digest(s.Package, s.Modules, policies.Lib(), s.Parameters) }

func digest(of ...any) string {
	h := sha256.New()
	// JSON of maps has sorted keys; parameters came from JSON, so encoding them cannot fail.
	_ = json.NewEncoder(h).Encode(of)
	return hex.EncodeToString(h.Sum(nil))
}

// parse parses the modules of the policy and of the library, and optionally the tests.
func (s Source) parse(tests bool) (map[string]*ast.Module, error) {
	library := policies.Lib()
	parsed := map[string]*ast.Module{}
	var problems Errors
	for name := range library {
		if _, taken := s.Modules[name]; taken {
			problems = append(problems, Error{File: name, Row: 1, Col: 1, Message: "the library contains a file of this name: choose another name"})
		}
	}
	sources := maps.Clone(library)
	maps.Copy(sources, s.Modules)
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		switch {
		case name == ParametersSchemaFile, strings.HasSuffix(name, testSuffix) && !tests:
			continue
		case !strings.HasSuffix(name, regoSuffix):
			problems = append(problems, Error{File: name, Row: 1, Col: 1, Message: fmt.Sprintf("unexpected file: a policy can contain files that end in %s, and %s", regoSuffix, ParametersSchemaFile)})
			continue
		}
		module, err := ast.ParseModuleWithOpts(name, sources[name], ast.ParserOptions{
			ProcessAnnotation: true,
			Capabilities:      capabilities(),
		})
		switch {
		case err != nil:
			problems = append(problems, fromError(name, err)...)
		case module == nil:
			problems = append(problems, Error{File: name, Row: 1, Col: 1, Message: "the module is empty"})
		default:
			parsed[name] = module
			if !strings.HasSuffix(name, testSuffix) {
				problems = append(problems, lint(name, module)...)
			}
		}
	}
	if problems = append(problems, s.checkPackages(parsed)...); problems != nil {
		return nil, problems
	}
	return parsed, nil
}

// checkPackages checks that policy, tests and library use different packages. A test in the package of
// the policy could define rules that requests do not see. A policy in a package of the library could
// change the library.
func (s Source) checkPackages(parsed map[string]*ast.Module) Errors {
	const library = "data.countersign.lib"
	own := map[string]bool{}
	for name, module := range parsed {
		if !strings.HasSuffix(name, testSuffix) {
			own[module.Package.Path.String()] = true
		}
	}
	var problems Errors
	for _, name := range slices.Sorted(maps.Keys(parsed)) {
		if _, ours := s.Modules[name]; !ours {
			continue
		}
		at, pkg := parsed[name].Package.Location, parsed[name].Package.Path.String()
		message := ""
		switch {
		case pkg == library || strings.HasPrefix(pkg, library+"."):
			message = "the library uses this package: choose another"
		case strings.HasSuffix(name, testSuffix) && own[pkg]:
			message = "tests need a package of their own, such as " + strings.TrimPrefix(pkg, "data.") + "_test: rules here would exist for the tests, but not for requests"
		default:
			continue
		}
		problems = append(problems, Error{File: name, Row: at.Row, Col: at.Col, Message: message})
	}
	return problems
}
