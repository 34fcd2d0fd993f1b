// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package certreq

import "strings"

// Wildcard returns the pattern that matches every signerName of the same domain: "example.com/*" for
// "example.com/serving". It returns "" if signerName is not a domain and a path.
func Wildcard(signerName string) string {
	domain, path, ok := strings.Cut(signerName, "/")
	if !ok || path == "" {
		return ""
	}
	return domain + "/*"
}

// MatchesSignerName reports whether a pattern is a signerName or its [Wildcard]. RBAC matches
// resourceNames of signers in the same way.
func MatchesSignerName(pattern, signerName string) bool {
	return pattern == signerName || pattern != "" && pattern == Wildcard(signerName)
}
