// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package policies embeds the Rego that Countersign ships, and the JSON Schema of the
// input that every policy is compiled against.
//
// The folder is also a kustomize root, and `opa test policies/` runs its tests. Modules
// of lib are there for every policy, built in or not; each other folder that holds Rego is
// one policy. What is tested here is what is embedded: nothing is generated from it.
package policies

import (
	"embed"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// InputSchema is the JSON Schema of a policy's input, generated from facts.Facts.
//
//go:embed schema/input.json
var InputSchema []byte

//go:embed lib/*.rego kubelet-serving/*.rego pod-client/*.rego pod-serving/*.rego spiffe/*.rego
var sources embed.FS

// builtins are the packages of the policies that can be named in spec.rego.builtin.
var builtins = map[string]string{
	"kubelet-serving": "countersign.kubelet_serving",
	"pod-client":      "countersign.pod_client",
	"pod-serving":     "countersign.pod_serving",
	"spiffe":          "countersign.spiffe",
}

// Lib returns the modules that are compiled beside every policy, without their tests, by
// file name, such as "lib/names.rego". The map is the caller's own.
func Lib() map[string]string { return modules("lib") }

// Builtin returns the package of an embedded policy and its modules, without their tests,
// by file name, such as "pod-serving/pod_serving.rego". The map is the caller's own.
func Builtin(name string) (pkg string, source map[string]string, ok bool) {
	if pkg, ok = builtins[name]; !ok {
		return "", nil, false
	}
	return pkg, modules(name), true
}

// Builtins are the names of the embedded policies, sorted.
func Builtins() []string { return slices.Sorted(maps.Keys(builtins)) }

// modules reads a folder of the embedded files, which cannot fail: patterns that match
// nothing do not compile, and what was embedded can be read.
func modules(folder string) map[string]string {
	out := map[string]string{}
	files, _ := fs.Glob(sources, path.Join(folder, "*.rego"))
	for _, file := range files {
		if text, err := fs.ReadFile(sources, file); err == nil && !strings.HasSuffix(file, "_test.rego") {
			out[file] = string(text)
		}
	}
	return out
}
