#!/bin/sh
# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# Checks that tests do not cover. Each step prints its name, and how to fix a failure.
set -eu
cd "$(dirname "$0")/.."

step() { echo "-- $*"; }
fail() { echo "verify: $*" >&2; exit 1; }

step "modules are tidy"
go mod tidy -diff || fail "run go mod tidy"
for module in test/controlplane test/cfssl test/bench/plot tools/promtool; do
	(cd $module && GOFLAGS=-mod=mod go mod tidy -diff) || fail "run go mod tidy in $module"
done
(cd test/bench/plot && go vet .) || fail "test/bench/plot does not build: run go vet in test/bench/plot"

step "generated files are current"
generated="api/v1alpha1/zz_generated.deepcopy.go deploy/base/crds policies/schema docs/input.md"
before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
tar cf "$before/generated.tar" $generated
make --no-print-directory generate >/dev/null
mkdir "$before/tree" && tar xf "$before/generated.tar" -C "$before/tree"
for path in $generated; do
	diff -r "$before/tree/$path" "$path" || fail "$path is outdated: commit the output of make generate"
done

step "words of the glossary"
go run ./hack/language || fail "use the words that hack/language/words.txt suggests, or add an exception to hack/language/allow.txt"

step "cmd/signer does not link OPA"
dependencies=$(go list -deps ./cmd/signer)
if printf '%s\n' "$dependencies" | grep open-policy-agent; then
	fail "cmd/signer links OPA: find the import with go list -deps ./cmd/signer"
fi

step "manifests render"
kubectl=$(go run ./test/cluster/build kubectl)/kubectl
for root in deploy/overlays/default deploy/signers/serving deploy/signers/webhook deploy/signers/kubelet-serving policies test/monitoring/overlay; do
	"$kubectl" kustomize "$root" >/dev/null || fail "$root does not render: run kubectl kustomize $root"
done

step "alerts and dashboard are valid PromQL, and the tests of alerts pass; the first build of promtool takes some minutes"
go run ./test/monitoring/rules >"$before/rules.yaml"
cp test/monitoring/alerts.yaml "$before"
# Without service discovery, whose SDKs are most of the build. go tool ignores the tag.
go build -modfile=tools/promtool/go.mod -tags=remove_all_sd -o "$before/promtool" github.com/prometheus/prometheus/cmd/promtool
"$before/promtool" check rules "$before/rules.yaml" || fail "fix deploy/components/monitoring"
"$before/promtool" test rules "$before/alerts.yaml" || fail "fix an alert in deploy/components/monitoring, or its test in test/monitoring/alerts.yaml"

step "go vet"
go vet ./...

step "golangci-lint: lint and formatting; the first build takes some minutes"
go tool -modfile=tools/go.mod golangci-lint run --allow-parallel-runners ./...
