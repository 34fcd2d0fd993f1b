# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# Go, git and make are all that is needed, and openssl to test: what else is used is built from Go modules.

TOOL := go tool -modfile=tools/go.mod
.DEFAULT_GOAL := help
.PHONY: help build test policy-test verify demo bench generate fmt lint fuzz controlplane clean

help: ## Show this help.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

build: ## Build the binaries into bin/.
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/...

test: controlplane ## Run the unit, Rego and integration tests, the latter on a real API server.
	go test -timeout 30m ./...

policy-test: ## Run the tests of a policy with stock opa: make policy-test DIR=team
	go run github.com/open-policy-agent/opa@v1.22.2 test policies/lib $(DIR)

demo: controlplane ## Walk the Kubernetes tutorial on a real API server; KEEP=1 leaves it running.
	@mkdir -p bin && go build -trimpath -o bin/demo ./test/demo # go run would call an interrupt a failure
	bin/demo $(if $(KEEP),-keep)

bench: controlplane ## Measure Countersign beside its references, some 15 minutes, and write docs/performance.*.
	go run ./test/bench -o docs/performance.json -docs docs/performance.md; status=$$?; \
	go run -C test/bench/plot . -from $(CURDIR)/docs/performance.json -to $(CURDIR)/docs/performance.svg && exit $$status

controlplane: ## Build etcd, kube-apiserver and kubectl from source, once per machine: some 10 minutes.
	@go run ./test/cluster/build

generate: ## Write what is generated: deepcopy functions, CRDs, the schema of the policy input and its reference.
	$(TOOL) controller-gen object paths=./api/...
	$(TOOL) controller-gen crd paths=./api/... output:crd:dir=deploy/base/crds
	go test ./approver/facts -run 'TestInput(Schema|Reference)IsCurrent' -count=1 -update

fmt: ## Format the Go files.
	$(TOOL) golangci-lint fmt ./...

lint: ## Lint the Go files; building the linter takes some minutes once.
	$(TOOL) golangci-lint run --allow-parallel-runners ./...

verify: controlplane ## Check generated files, modules, formatting, imports, manifests and lint.
	sh hack/verify.sh

fuzz: ## Fuzz the parser of requests for a minute.
	go test ./pkcs10 -run '^$$' -fuzz '^FuzzParse$$' -fuzztime 60s

clean: ## Remove bin/; the control plane in the user's cache directory stays.
	rm -rf bin
