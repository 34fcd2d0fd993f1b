#!/bin/sh
# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# Checks what tests do not. Each step says what it is and, if it fails, how to mend it.
set -eu
cd "$(dirname "$0")/.."

step() { echo "-- $*"; }
fail() { echo "verify: $*" >&2; exit 1; }

step "modules are tidy"
go mod tidy -diff || fail "run go mod tidy"
for module in test/controlplane test/cfssl test/bench/plot tools/promtool; do
	(cd $module && GOFLAGS=-mod=mod go mod tidy -diff) || fail "run go mod tidy in $module"
done
(cd test/bench/plot && go vet .) || fail "test/bench/plot, which draws what was measured, does not build"

step "generated files are current"
generated="api/v1alpha1/zz_generated.deepcopy.go deploy/base/crds policies/schema docs/input.md"
before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
tar cf "$before/generated.tar" $generated
make --no-print-directory generate >/dev/null
mkdir "$before/tree" && tar xf "$before/generated.tar" -C "$before/tree"
for path in $generated; do
	diff -r "$before/tree/$path" "$path" || fail "$path was not current: commit what make generate has written"
done

step "the signer does not link OPA"
dependencies=$(go list -deps ./cmd/signer)
if printf '%s\n' "$dependencies" | grep open-policy-agent; then
	fail "cmd/signer links OPA: see go list -deps ./cmd/signer"
fi

step "manifests render"
kubectl=$(go run ./test/cluster/build kubectl)/kubectl
for root in deploy/overlays/default deploy/signers/serving deploy/signers/webhook deploy/signers/kubelet-serving policies test/monitoring/overlay; do
	"$kubectl" kustomize "$root" >/dev/null || fail "$root does not render"
done

step "alerts and dashboard are PromQL, and alerts fire when they should; building promtool takes some minutes once"
go run ./test/monitoring/rules >"$before/rules.yaml"
cp test/monitoring/alerts.yaml "$before"
# Without service discovery, whose SDKs are a large part of it; go tool would not heed the tag.
go build -modfile=tools/promtool/go.mod -tags=remove_all_sd -o "$before/promtool" github.com/prometheus/prometheus/cmd/promtool
"$before/promtool" check rules "$before/rules.yaml" || fail "mend deploy/components/monitoring"
"$before/promtool" test rules "$before/alerts.yaml" || fail "mend an alert in deploy/components/monitoring, or its test in test/monitoring/alerts.yaml"

step "go vet"
go vet ./...

step "golangci-lint: lint and formatting; building it takes some minutes once"
go tool -modfile=tools/go.mod golangci-lint run --allow-parallel-runners ./...
