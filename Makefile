# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# Go, git and make are required, and openssl for make test. Go modules provide all other tools.

TOOL := go tool -modfile=tools/go.mod
# The packages whose tests need no control plane.
UNIT = $$(go list -f '{{.ImportPath}} {{.TestImports}} {{.XTestImports}} {{.Deps}}' ./... | grep -vE '/test/(cluster|harness|tutorial)' | cut -d' ' -f1)
.DEFAULT_GOAL := help
.PHONY: help build unit test policy-test mutate fuzz soak bench demo run controlplane generate fmt lint verify clean

help: ## Show this help.
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

##@ Run

demo: ## Walk the Kubernetes tutorial on a real API server. KEEP=1 leaves it running.
	@mkdir -p bin && go build -trimpath -o bin/demo ./test/demo # go run would report an interrupt as a failure
	bin/demo $(if $(KEEP),-keep)

run: build ## Run the processes against the current kubeconfig until interrupted. hack/run.sh lists what it needs.
	@hack/run.sh

##@ Test

unit: ## Run the tests that need no API server: under 30 s once built.
	go test $(UNIT)

test: controlplane ## Run all tests: unit, Rego, and integration on a real API server.
	go test -timeout 30m ./...

policy-test: ## Run the tests of a policy with opa: make policy-test DIR=team
	go run github.com/open-policy-agent/opa@v1.22.2 test policies/lib $(DIR)

mutate: ## Check that the tests of the shipped policies detect each change of their Rego: 2.5 minutes of CPU time.
	go run ./hack/mutate

fuzz: ## Fuzz the PKCS#10 parser for a minute.
	go test ./pkcs10 -run '^$$' -fuzz '^FuzzParse$$' -fuzztime 60s

soak: controlplane ## Attack Countersign with small rights for ten minutes, at the memory limits of deploy/.
	go run ./test/soak

bench: controlplane ## Compare Countersign with its references in about 15 minutes, and write docs/performance.*.
	go run ./test/bench -o docs/performance.json -docs docs/performance.md; status=$$?; \
	go run -C test/bench/plot . -from $(CURDIR)/docs/performance.json -to $(CURDIR)/docs/performance.svg && exit $$status

##@ Change

fmt: ## Format the Go files.
	$(TOOL) golangci-lint fmt ./...

lint: ## Lint the Go files. The first run builds the linter in some minutes.
	$(TOOL) golangci-lint run --allow-parallel-runners ./...

generate: ## Generate deepcopy functions, CRDs, the schema of the policy input and its reference.
	$(TOOL) controller-gen object paths=./api/...
	$(TOOL) controller-gen crd paths=./api/... output:crd:dir=deploy/base/crds
	go test ./approver/facts -run 'TestInput(Schema|Reference)IsCurrent' -count=1 -update

verify: ## Check generated files, modules, formatting, imports, manifests, language and lint.
	sh hack/verify.sh

##@ Build

build: ## Build the binaries into bin/, statically linked.
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/...

controlplane: ## Build etcd, kube-apiserver, kubectl and kube-controller-manager from source, once per machine: about 10 minutes.
	@go run ./test/cluster/build

clean: ## Remove bin/. The control plane in the user's cache directory remains.
	rm -rf bin
