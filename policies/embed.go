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

//go:embed lib/*.rego */*.rego */parameters.schema.json
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
func Lib() map[string]string {
	out := map[string]string{}
	for name, text := range files("lib") {
		if !strings.HasSuffix(name, "_test.rego") {
			out["lib/"+name] = text
		}
	}
	return out
}

// Builtin returns the package of an embedded policy and its files by name, such as
// "pod_serving.rego": what its ConfigMap has, tests and the schema of its parameters among
// it. The map is the caller's own.
func Builtin(name string) (pkg string, source map[string]string, ok bool) {
	if pkg, ok = builtins[name]; !ok {
		return "", nil, false
	}
	return pkg, files(name), true
}

// Builtins are the names of the embedded policies, sorted.
func Builtins() []string { return slices.Sorted(maps.Keys(builtins)) }

// files reads a folder of the embedded files, which cannot fail: patterns that match nothing do
// not compile, and what was embedded can be read.
func files(folder string) map[string]string {
	out := map[string]string{}
	entries, _ := fs.ReadDir(sources, folder)
	for _, entry := range entries {
		if text, err := fs.ReadFile(sources, path.Join(folder, entry.Name())); err == nil {
			out[entry.Name()] = string(text)
		}
	}
	return out
}
