// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
)

// authorAttacks are those of a user that can create, read and update ApprovalPolicies.
func authorAttacks() []*attack {
	return []*attack{
		{user: authorUser, name: "dry-runs", rate: 5, workers: 4, step: dryRuns},
		{user: authorUser, name: "bombs-in-tests", rate: 2, workers: 2, step: bombsInTests},
		{user: authorUser, name: "bombs-at-run-time", rate: 2, workers: 2, step: bombsAtRunTime},
		{user: authorUser, name: "many-policies", rate: 40, workers: 4, step: manyPolicies},
		{user: authorUser, name: "huge-sources", rate: 2, workers: 2, step: hugeSources},
		{user: authorUser, name: "updates", rate: 20, workers: 2, step: updates},
	}
}

// bombs are bodies of rules that use much time or memory. Each has to be expensive however it is evaluated.
var bombs = []struct{ name, body string }{
	{"doubled-string", doubled("concat(\"\", [%[1]s, %[1]s])", `"aaaaaaaaaaaaaaaa"`)},
	{"doubled-array", doubled("array.concat(%[1]s, %[1]s)", "[1, 2, 3, 4]")},
	{"doubled-base64", doubled("base64.encode(concat(\"\", [%[1]s, %[1]s]))", `"aaaaaaaaaaaaaaaa"`)},
	{"doubled-sprintf", doubled("sprintf(\"%%s%%s\", [%[1]s, %[1]s])", `"aaaaaaaaaaaaaaaa"`)},
	{"shift", "bits.lsh(1, 8000000000) > 0"},
	{"short-shift", "bits.lsh(1, 20000000) > 0"},
	{"width", `count(sprintf("%1000000000d", [1])) > 0`},
	{"exponent", "to_number(\"1e100000000\") + 1 > 0"},
	{"range", "count(numbers.range(1, 1000000000)) > 0"},
	{"cidr", `count(net.cidr_expand("10.0.0.0/2")) > 0`},
	{"cross-product", "r := numbers.range(1, 3000)\n\tcount([1 | some a in r; some b in r; some c in r; a + b + c == 7]) > 0"},
	{"large-set", "r := numbers.range(1, 3000)\n\tcount({[a, b] | some a in r; some b in r}) > 0"},
	{"replace", `count(replace(concat("", [a | some a in split(sprintf("%100000d", [1]), "")]), " ", "` + strings.Repeat("b", 10_000) + `")) > 0`},
	{"regex", `regex.match("^(a{1,1000}){1,1000}$", "` + strings.Repeat("a", 1000) + `b")`},
	{"product", "product([x | some i in numbers.range(1, 3000); x := 1000000007 * i]) > 0"},
}

// doubled returns a body that doubles a value 30 times. The format has the value as its first operand.
func doubled(format, value string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "x0 := %s\n", value)
	for i := range 30 {
		fmt.Fprintf(&b, "\tx%d := %s\n", i+1, fmt.Sprintf(format, fmt.Sprintf("x%d", i)))
	}
	b.WriteString("\tcount(x30) > 0")
	return b.String()
}

// source returns a policy that allows everything, and has a rule named bomb.
func source(bomb, more string) string {
	return "package author.p\n\nimport rego.v2\n\nsubject_controls_key := true\n\nsubject_is_authorized := true\n\n" +
		"violations contains {\"requirement\": 2, \"id\": \"bomb\", \"message\": \"bomb\", \"value\": \"\", \"retryable\": false} if {\n\tinput.request.signerName == \"" + authorDomain + "/x\"\n\tbomb\n}\n\n" + bomb + more
}

func policy(name, signer string, modules map[string]string) *v1alpha1.ApprovalPolicy {
	p := &v1alpha1.ApprovalPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ApprovalPolicy"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
	}
	p.Spec.Match.SignerNames = []string{authorDomain + "/" + signer}
	p.Spec.Rego.Package, p.Spec.Rego.Modules = "author.p", modules
	return p
}

const policiesPath = "/apis/countersign.dev/v1alpha1/approvalpolicies"

// send creates a policy, or replaces it if it exists.
func (w *world) send(ctx context.Context, p *v1alpha1.ApprovalPolicy, dryRun bool) error {
	client := w.author.CoreV1().RESTClient()
	send := func(verb, path string) error {
		raw, err := json.Marshal(p)
		if err != nil {
			return err
		}
		r := client.Verb(verb).AbsPath(path).Body(raw).SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json")
		if dryRun {
			r.Param("dryRun", "All")
		}
		return r.Do(ctx).Error()
	}
	err := send("POST", policiesPath)
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	raw, err := client.Get().AbsPath(policiesPath, p.Name).SetHeader("Accept", "application/json").DoRaw(ctx)
	if err != nil {
		return err
	}
	var current v1alpha1.ApprovalPolicy
	if err := json.Unmarshal(raw, &current); err != nil {
		return err
	}
	p.ResourceVersion = current.ResourceVersion
	return send("PUT", policiesPath+"/"+p.Name)
}

// inTest returns modules whose test evaluates a bomb.
func inTest(n int) map[string]string {
	return map[string]string{
		"p.rego":      source("bomb if false\n", fmt.Sprintf("\nn := %d\n", n)),
		"p_test.rego": "package author.p_test\n\nimport rego.v2\n\ntest_bomb if {\n\t" + bombs[n%len(bombs)].body + "\n}\n",
	}
}

func dryRuns(ctx context.Context, w *world, n int) error {
	return w.send(ctx, policy(randomName("dry"), "dry", inTest(n)), true)
}

// bombsInTests creates policies whose tests do not end. Their number is bounded by the number of names.
func bombsInTests(ctx context.Context, w *world, n int) error {
	return w.send(ctx, policy(fmt.Sprintf("test-%d", n%50), "test", inTest(n)), false)
}

// bombsAtRunTime creates policies whose bomb is evaluated only for requests of "bait": no test runs it.
func bombsAtRunTime(ctx context.Context, w *world, n int) error {
	i := n % len(bombs)
	bomb := "bomb if {\n\tstartswith(input.request.name, \"bait-\")\n\t" + bombs[i].body + "\n}\n"
	signer := fmt.Sprintf("bomb-%d", i)
	text := strings.Replace(source(bomb, fmt.Sprintf("\nn := %d\n", n)), authorDomain+"/x", authorDomain+"/"+signer, 1)
	return w.send(ctx, policy(signer, signer, map[string]string{"p.rego": text}), false)
}

// manyPolicies has 500 policies.
func manyPolicies(ctx context.Context, w *world, n int) error {
	return w.send(ctx, policy(fmt.Sprintf("many-%d", n%500), fmt.Sprintf("many-%d", n%500), map[string]string{
		"p.rego": source("bomb if false\n", fmt.Sprintf("\nn := %d\n", n)),
	}), false)
}

// hugeSources has 10 policies of nearly 1.2 MB: many rules, or one of deep nesting.
func hugeSources(ctx context.Context, w *world, n int) error {
	var b strings.Builder
	if n%2 == 0 {
		for i := 0; b.Len() < w.settings.largest(); i++ {
			fmt.Fprintf(&b, "\nr%d(x) := y if { some y in [x, %d, n]; not y in {%d, %d} }\n", i, i, i+1, i+2)
		}
	} else {
		depth := 20_000
		fmt.Fprintf(&b, "\ndeep := %s%s\n", strings.Repeat("[", depth), strings.Repeat("]", depth))
	}
	return w.send(ctx, policy(fmt.Sprintf("huge-%d", n%10), "huge", map[string]string{
		"p.rego": source("bomb if false\n", fmt.Sprintf("\nn := %d\n%s", n, b.String())),
	}), false)
}

// updates changes one valid policy all the time.
func updates(ctx context.Context, w *world, n int) error {
	return w.send(ctx, policy("updated", "updated", map[string]string{
		"p.rego": source("bomb if false\n", fmt.Sprintf("\nn := %d\n", n)),
	}), false)
}
