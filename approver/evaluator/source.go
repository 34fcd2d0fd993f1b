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

// Source is the text of a policy.
type Source struct {
	// Package holds the rules, such as "countersign.pod_serving".
	Package string
	// Modules by file name. Names ending in _test.rego are the policy's tests, which decide
	// nothing. [ParametersSchemaFile] may stand among them. The modules of policies/lib are
	// always there beside them.
	Modules map[string]string
	// Parameters become input.parameters; nil means none.
	Parameters map[string]any
}

// Revision is the SHA-256, in lower-case hex, of everything in the source that a
// decision can depend on: package, modules, library and parameters.
func (s Source) Revision() string {
	modules := maps.Clone(s.Modules)
	maps.DeleteFunc(modules, func(name, _ string) bool { return strings.HasSuffix(name, testSuffix) })
	return digest(s.Package, modules, policies.Lib(), s.Parameters)
}

// Digest is the SHA-256, in lower-case hex, of all of the source, its tests too: of two sources
// with one digest, the one is as good as the other.
func (s Source) Digest() string { return digest(s.Package, s.Modules, policies.Lib(), s.Parameters) }

func digest(of ...any) string {
	h := sha256.New()
	// JSON of maps has sorted keys; parameters came from JSON, so encoding them cannot fail.
	_ = json.NewEncoder(h).Encode(of)
	return hex.EncodeToString(h.Sum(nil))
}

// parse parses the modules of the policy and of the library; those of the tests too, if wanted.
func (s Source) parse(tests bool) (map[string]*ast.Module, error) {
	library := policies.Lib()
	parsed := map[string]*ast.Module{}
	var faults Errors
	for name := range library {
		if _, taken := s.Modules[name]; taken {
			faults = append(faults, Error{File: name, Row: 1, Col: 1, Message: "this file name belongs to the library: choose another"})
		}
	}
	sources := maps.Clone(library)
	maps.Copy(sources, s.Modules)
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		switch {
		case name == ParametersSchemaFile, strings.HasSuffix(name, testSuffix) && !tests:
			continue
		case !strings.HasSuffix(name, regoSuffix):
			faults = append(faults, Error{File: name, Row: 1, Col: 1, Message: fmt.Sprintf("a policy has files that end in %s, and %s: rename it or leave it out", regoSuffix, ParametersSchemaFile)})
			continue
		}
		module, err := ast.ParseModuleWithOpts(name, sources[name], ast.ParserOptions{
			ProcessAnnotation: true,
			Capabilities:      capabilities(),
		})
		switch {
		case err != nil:
			faults = append(faults, fromError(name, err)...)
		case module == nil:
			faults = append(faults, Error{File: name, Row: 1, Col: 1, Message: "the module is empty"})
		default:
			parsed[name] = module
			if !strings.HasSuffix(name, testSuffix) {
				faults = append(faults, lint(name, module)...)
			}
		}
	}
	if faults = append(faults, s.checkPackages(parsed)...); faults != nil {
		return nil, faults
	}
	return parsed, nil
}

// checkPackages keeps apart what decides, what tests it, and the library: a rule that only tests
// see, or that changes the library, would make of the policy another than the one that was tested.
func (s Source) checkPackages(parsed map[string]*ast.Module) Errors {
	const library = "data.countersign.lib"
	own := map[string]bool{}
	for name, module := range parsed {
		if !strings.HasSuffix(name, testSuffix) {
			own[module.Package.Path.String()] = true
		}
	}
	var faults Errors
	for _, name := range slices.Sorted(maps.Keys(parsed)) {
		if _, ours := s.Modules[name]; !ours {
			continue
		}
		at, pkg := parsed[name].Package.Location, parsed[name].Package.Path.String()
		message := ""
		switch {
		case pkg == library || strings.HasPrefix(pkg, library+"."):
			message = "this package is the library's: choose another"
		case strings.HasSuffix(name, testSuffix) && own[pkg]:
			message = "tests need a package of their own, such as " + strings.TrimPrefix(pkg, "data.") + "_test: the rules here would be there for the tests and not for requests"
		default:
			continue
		}
		faults = append(faults, Error{File: name, Row: at.Row, Col: at.Col, Message: message})
	}
	return faults
}
