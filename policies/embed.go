// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package policies embeds the Rego that Countersign ships, and the JSON Schema of the
// input that every policy is compiled against.
//
// The folder is also a kustomize root, and `opa test policies/` runs its tests. Every policy,
// built in or not, can import the modules of lib. Each other folder with Rego is one policy. The
// embedded files are the tested files: nothing is generated from them.
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

// builtins maps the values of spec.rego.builtin to the packages of the policies.
var builtins = map[string]string{
	"kubelet-serving": "countersign.kubelet_serving",
	"pod-client":      "countersign.pod_client",
	"pod-serving":     "countersign.pod_serving",
	"spiffe":          "countersign.spiffe",
}

// Lib returns the modules that are compiled with every policy, without their tests, by
// file name, such as "lib/names.rego". The caller can modify the map.
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
// "pod_serving.rego". They are those of its ConfigMap, with tests and the parameter schema.
// The caller can modify the map.
func Builtin(name string) (pkg string, source map[string]string, ok bool) {
	if pkg, ok = builtins[name]; !ok {
		return "", nil, false
	}
	return pkg, files(name), true
}

// Builtins returns the names of the embedded policies, sorted.
func Builtins() []string { return slices.Sorted(maps.Keys(builtins)) }

// files returns the embedded files of a folder. Reading them cannot fail: embed patterns that
// match nothing do not compile.
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
