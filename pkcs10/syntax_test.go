// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs10

import (
	"errors"
	"strings"
	"testing"
)

// label returns a label of n characters, and host a host name of n.
func label(n int) string { return strings.Repeat("a", n) }
func host(n int) string  { return strings.Repeat(label(49)+".", n/50) + label(n%50) }

func TestParseNameSyntax(t *testing.T) {
	for _, test := range []struct {
		name    string
		encode  func(string) []byte
		accepts []string
		refuses []string
	}{
		{
			name:   "DNS names",
			encode: dnsName,
			accepts: []string{
				"web", "localhost", "web.shop.svc", "web.shop.svc.cluster.local", "10-0-34-2.shop.pod.cluster.local", "web-0.web.shop.svc",
				"Web.Shop.SVC", "web.example.", "*.example.com", "*.web", "*.web.example.", "xn--bcher-kva.example", "a--b.example", "3com.com",
				"10.0.0.7.example.com", "1.e", "12345", label(63) + ".example", host(253), host(253) + ".", "*." + host(251),
			},
			refuses: []string{
				"a,DNS:b", "a, DNS:b", "a:b", "a/b", "a@b", "a;b", "a'b", `a"b`, "a\\b", "a%b", "a+b", "[::1]", "::1", "{{name}}", "a\tb",
				"_http._tcp.web.shop.svc", "web_1.shop.svc", "foo_bar.com",
				".", "..", ".web", "web..example", "web.example..", "*", "*.", "**.example", "*a.example", "a*.example", "web.*.example", "*.*.example", "*.*", "web.*", "x*",
				"-web.example", "web-.example", "web.-example", "web.example-", "-", "*.-a",
				"10.0.0.7", "10.0.0.7.", "*.10.0.0.7", "1.2", "web.1", "0.0.0.0", "web.007",
				label(64) + ".example", host(254), "*." + host(252), strings.Repeat("a.", 5000),
				"w\u00e9b.example", "web\u3002example", "web\u200b.example",
			},
		},
		{
			name:   "email addresses",
			encode: email,
			accepts: []string{
				"web@example.com", "a@b", "a.b.c@example.com", "a+b@example.com", "!#$%&'*+-/=?^_`{|}~@example.com", "web@xn--bcher-kva.example", "Web@Example.COM",
				label(64) + "@example.com", "a@" + host(253),
			},
			refuses: []string{
				"web", "@", "a@", "@example.com", "a@b@c", "a,DNS:b@c", "a@b,DNS:c", "a:b@c", "a;b@c", "<a@b>", "(a)b@c", "a b@c", `"a"@b`, `"a,DNS:b"@c`, `"a@b"@c`, `a\@b@c`, "a@[10.0.0.7]", "a@[IPv6:::1]", "a@10.0.0.7",
				".a@b", "a.@b", "a..b@c", "a@.b", "a@b.", "a@b..c", "a@*.b", "a@*", "a@b_c", "a@-b",
				label(65) + "@example.com", "a@" + host(254), strings.Repeat("a", 8000) + "@b",
				"zo\u00eb@example.com", "a@b\u00fccher.example", "mailto:a@b",
			},
		},
		{
			name:   "URIs",
			encode: uri,
			accepts: []string{
				"spiffe://cluster.local/ns/shop/sa/web", "spiffe://prod/a", "spiffe://trust_domain.example/a", "spiffe://a", "https://web.example:8443/a?b=c#d", "https://10.0.0.7/", "https://[fd00::7]/", "https://[fd00::7]:8443/",
				"urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "mailto:a@b", "spiffe://a/b%20c", "spiffe://a/b%2Cc", "spiffe://a/b%2Fc", "spiffe://a/b:c@d", "a:b", "spiffe://a/...", "spiffe://a/b//c", "https://" + host(253) + "/",
			},
			refuses: []string{
				"web", "/a", "//a/b", "spiffe:", "spiffe://", "spiffe:///a", "file:///a", "https://:8443/", "https://a:b/", "https://[::1/", "https://[fe80::1%25eth0]/", "https://[::1]x/",
				"spiffe://a,DNS:b/c", "spiffe://a/b,DNS:c", "urn:a,DNS:b", "https://a/?b=c,d",
				"spiffe://a@b/c", "spiffe://a:b@c/d", "spiffe://@a/b",
				"https://web.example./", "https://.web/", "https://a..b/", "https://*.example/", "https://-a/", "https://1.2.3/", "https://256.1.1.1/", "https://" + label(64) + "/", "https://" + host(254) + "/",
				"SPIFFE://a/b", "spiffe://a/b%", "spiffe://a/b%2", "spiffe://a/%zz", "urn:%zz", "spiffe://a/%61", "spiffe://a/%2e%2e/b", "spiffe://a/../b", "spiffe://a/b/..", "spiffe://a/./b", "spiffe://a/b/.", "spiffe://%61/b",
				"https://a/?b=<c>", `https://a/?b="c"`, `urn:a\b`, "https://a/?b={c}", "https://a/?b=c|d", "https://a/?b=^", "https://a/?b=`c`", "spiffe://a/b c", "https://a/#", "https://b\u00fccher.example/", "spiffe://a/b\n",
			},
		},
	} {
		for _, name := range test.accepts {
			t.Run(test.name+" accepts "+quote(name), func(t *testing.T) {
				data := withNames(test.encode(name)).pem()
				got, err := Parse(data)
				if err != nil {
					t.Fatal(err)
				}
				checkRequest(t, data, got)
			})
		}
		for _, name := range test.refuses {
			t.Run(test.name+" refuses "+quote(name), func(t *testing.T) {
				_, err := Parse(withNames(test.encode(name)).pem())
				refused, ok := errors.AsType[*Error](err)
				if !ok {
					t.Fatalf("error = %v, want an *Error", err)
				}
				checkError(t, err)
				if len(refused.Refusals) != 1 || refused.Refusals[0].Reason != ReasonUnsupportedName {
					t.Errorf("refusals = %v, want one with reason %s", refused.Refusals, ReasonUnsupportedName)
				}
			})
		}
	}
}
