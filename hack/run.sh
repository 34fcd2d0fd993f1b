#!/usr/bin/env bash
# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# Runs bin/approver, bin/signer and bin/webhook against the current kubeconfig until interrupted. Each runs as its
# ServiceAccount, with the permissions of the overlay that is applied to the cluster.
#
# Required: an applied overlay, such as deploy/overlays/default, with its Deployments scaled to 0.
# The webhook runs only if WEBHOOK_HOST is set to an IP address of this machine that the API server can reach. The
# script then points the ValidatingWebhookConfiguration to https://WEBHOOK_HOST:9443. Apply the overlay to undo that.
set -euo pipefail
cd "$(dirname "$0")/.."
namespace=${NAMESPACE:-countersign-system} configuration=validatingwebhookconfiguration/countersign

fail() { echo "run: $*" >&2; exit 1; }

command -v kubectl >/dev/null || fail "kubectl is not in PATH"
kubectl get namespace "$namespace" >/dev/null || fail "apply an overlay first: kubectl apply --server-side -k deploy/overlays/default"
running=$(kubectl get deployments -n "$namespace" -o jsonpath='{.items[?(@.spec.replicas>0)].metadata.name}')
[ -z "$running" ] || fail "scale the Deployments to 0 first: kubectl scale deployment -n $namespace --replicas=0 $running"

dir=$(mktemp -d) pids=()
stop() {
	trap - EXIT INT TERM
	[ "${#pids[@]}" = 0 ] || kill "${pids[@]}" 2>/dev/null || true
	wait
	rm -rf "$dir"
}
trap stop EXIT
trap 'exit 0' INT TERM

# start NAME PORT FLAGS...: starts a process as its ServiceAccount, with /readyz on a port of localhost.
start() {
	local name=$1 port=$2 kubeconfig=$dir/$1.kubeconfig token
	shift 2
	token=$(kubectl create token "countersign-$name" -n "$namespace" --duration=12h)
	(umask 077 && kubectl config view --raw --minify --flatten >"$kubeconfig")
	kubectl --kubeconfig="$kubeconfig" config set-credentials "countersign-$name" --token="$token" >/dev/null
	kubectl --kubeconfig="$kubeconfig" config set-context --current --user="countersign-$name" >/dev/null
	POD_NAME="run-$name" "bin/$name" --kubeconfig="$kubeconfig" --namespace="$namespace" --metrics-bind-address=0 \
		--health-probe-bind-address="127.0.0.1:$port" "$@" &
	pids+=($!)
	echo "run: $name started, http://127.0.0.1:$port/readyz" >&2
}

start approver 8081 --leader-elect=false
start signer 8082 --leader-elect=false
if [ -n "${WEBHOOK_HOST:-}" ]; then
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 1 -subj "/CN=$WEBHOOK_HOST" \
		-addext "subjectAltName=IP:$WEBHOOK_HOST" -keyout "$dir/tls.key" -out "$dir/tls.crt" 2>/dev/null
	start webhook 8083 --client-authentication=None --tls-cert-file="$dir/tls.crt" --tls-private-key-file="$dir/tls.key"
	paths=(validate-approvalpolicy validate-certificatesigningrequest validate-approval)
	for i in 0 1 2; do
		kubectl patch "$configuration" --type=json -p "[{\"op\": \"replace\", \"path\": \"/webhooks/$i/clientConfig\", \"value\": {
			\"url\": \"https://$WEBHOOK_HOST:9443/${paths[$i]}\", \"caBundle\": \"$(base64 <"$dir/tls.crt" | tr -d '\n')\"}}]"
	done
else
	echo "run: without WEBHOOK_HOST the webhook does not run, and requests of guarded signers cannot be approved manually" >&2
fi
wait -n "${pids[@]}" || fail "a process failed"
