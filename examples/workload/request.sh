#!/bin/sh
# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# Requests a serving certificate for a Service and the address of this Pod, and writes tls.key and tls.crt to TLS_DIR.
# It uses the token of the Pod, and needs the verbs create and get on certificatesigningrequests.
set -eu
umask 077
name=$POD_NAMESPACE-$POD_NAME-$(openssl rand -hex 4)

openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj / \
	-addext "subjectAltName=DNS:$SERVICE.$POD_NAMESPACE.svc,IP:$POD_IP" \
	-keyout "$TLS_DIR/tls.key" -out "$TLS_DIR/tls.csr"

kubectl create -f - <<CSR
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata:
  name: $name
spec:
  signerName: $SIGNER_NAME
  request: $(base64 <"$TLS_DIR/tls.csr" | tr -d '\n')
  expirationSeconds: 86400
  usages: [digital signature, server auth]
CSR

until [ -n "$(kubectl get csr "$name" -o jsonpath='{.status.certificate}')" ]; do
	verdict=$(kubectl get csr "$name" -o jsonpath='{range .status.conditions[*]}{.type} ({.reason}): {.message}{"\n"}{end}')
	case $verdict in
	*Denied\ * | *Failed\ *) echo "$verdict" >&2; exit 1 ;;
	esac
	sleep 1
done
kubectl get csr "$name" -o jsonpath='{.status.certificate}' | base64 -d >"$TLS_DIR/tls.crt"
