// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package certreq

import (
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
)

// Keys of spec.extra that the API server sets from a bound ServiceAccount token (KEP-1205, KEP-4193).
const (
	PodNameExtra      = "authentication.kubernetes.io/pod-name"
	PodUIDExtra       = "authentication.kubernetes.io/pod-uid"
	NodeNameExtra     = "authentication.kubernetes.io/node-name"
	NodeUIDExtra      = "authentication.kubernetes.io/node-uid"
	CredentialIDExtra = "authentication.kubernetes.io/credential-id"
)

// SingleExtra returns the value of a key of spec.extra, or "" unless the key has exactly one value.
func SingleExtra(spec *certificatesv1.CertificateSigningRequestSpec, key string) string {
	if values := spec.Extra[key]; len(values) == 1 {
		return values[0]
	}
	return ""
}

// ServiceAccount returns the namespace and the name of the ServiceAccount with this username, and false
// if the username is not one of a ServiceAccount. Only tokens of ServiceAccounts are bound to Pods: the
// extras of any other user prove nothing.
func ServiceAccount(username string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(username, "system:serviceaccount:")
	if !ok {
		return "", "", false
	}
	namespace, name, ok = strings.Cut(rest, ":")
	if !ok || namespace == "" || name == "" || strings.Contains(name, ":") {
		return "", "", false
	}
	return namespace, name, true
}

// SameRequester reports whether one identity made two requests: the same user and, where tokens are
// bound to Pods, the same Pod.
func SameRequester(a, b *certificatesv1.CertificateSigningRequestSpec) bool {
	return a.Username == b.Username && slices.Equal(a.Extra[PodUIDExtra], b.Extra[PodUIDExtra])
}
