// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package evaluator

import (
	"fmt"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// Limits of one call of a built-in function. A call that exceeds one is an error of the evaluation, which
// a policy cannot catch.
const (
	// MaxValue is the maximum size of the arguments and of the result: the bytes of strings and numbers,
	// and 8 for each element.
	MaxValue = 256 << 10
	// MaxDigits is the maximum length of a number, and of its exponent.
	MaxDigits = 128
	// MaxRange is the maximum number of elements of numbers.range.
	MaxRange = 10_000
	// MaxPattern is the maximum size of a regular expression after its repetitions are expanded.
	MaxPattern = 2000
	// maxProduct bounds a result that can be as large as the product of two arguments, before it is computed.
	maxProduct = 4 * MaxValue
)

// plain are the built-in functions that are called without a check. The result is a scalar or a part of
// an argument, and the time is at most linear in the size of an argument that exists anyway.
var plain = []string{
	"assign", "eq", "count", "object.get", "object.keys", "type_name", "internal.member_2", "internal.member_3",
	"contains", "endswith", "startswith", "is_array", "is_boolean", "is_null", "is_number", "is_object", "is_set", "is_string",
	"internal.print", "print", "internal.test_case", "rego.metadata.chain", "rego.metadata.rule",
	"net.cidr_contains", "net.cidr_intersects", "net.cidr_is_valid",
	"time.add_date", "time.clock", "time.date", "time.diff", "time.format", "time.parse_duration_ns", "time.parse_ns", "time.parse_rfc3339_ns", "time.weekday",
}

// limited are the built-in functions whose arguments and results are limited to MaxValue. A function can
// have a further check of its arguments.
var limited = map[string]func(args []*ast.Term) error{
	"abs": nil, "ceil": nil, "div": nil, "floor": nil, "format_int": nil, "max": nil, "min": nil, "minus": nil, "mul": nil, "plus": nil,
	"product": nil, "rem": nil, "round": nil, "sum": nil, "to_number": nil,
	"bits.and": nil, "bits.negate": nil, "bits.or": nil, "bits.rsh": nil, "bits.xor": nil,
	"numbers.range": checkRange, "numbers.range_step": checkRange,

	"equal": nil, "gt": nil, "gte": nil, "lt": nil, "lte": nil, "neq": nil, "sort": nil,

	"and": nil, "or": nil, "intersection": nil, "union": nil,
	"array.concat": nil, "array.flatten": nil, "array.reverse": nil, "array.slice": nil,
	"object.filter": nil, "object.remove": nil, "object.subset": nil, "object.union": nil, "object.union_n": nil,
	"json.filter": nil, "json.patch": nil, "json.remove": nil, "walk": nil,

	"concat": checkConcat, "sprintf": checkSprintf, "replace": checkReplace, "strings.replace_n": checkReplaceN, "internal.template_string": nil,
	"indexof": nil, "indexof_n": nil, "lower": nil, "split": nil, "strings.any_prefix_match": nil, "strings.any_suffix_match": nil,
	"strings.count": nil, "strings.reverse": nil, "strings.split_n": nil, "substring": nil,
	"trim": nil, "trim_left": nil, "trim_prefix": nil, "trim_right": nil, "trim_space": nil, "trim_suffix": nil, "upper": nil,
	"semver.compare": nil, "semver.is_valid": nil,

	"regex.find_all_string_submatch_n": checkPattern, "regex.find_n": checkPattern, "regex.is_valid": checkPattern,
	"regex.match": checkPattern, "regex.replace": checkRegexReplace, "regex.split": checkPattern,

	"base64.decode": nil, "base64.encode": nil, "base64.is_valid": nil,
	"base64url.decode": nil, "base64url.encode": nil, "base64url.encode_no_pad": nil, "hex.decode": nil, "hex.encode": nil,
	"json.is_valid": nil, "json.marshal": nil, "json.unmarshal": nil,
	"uri.is_valid": nil, "uri.parse": nil, "urlquery.decode": nil, "urlquery.decode_object": nil, "urlquery.encode": nil, "urlquery.encode_object": nil,
	"crypto.hmac.equal": nil, "crypto.hmac.md5": nil, "crypto.hmac.sha1": nil, "crypto.hmac.sha256": nil, "crypto.hmac.sha512": nil,
	"crypto.md5": nil, "crypto.sha1": nil, "crypto.sha256": nil,
}

// forbidden are the built-in functions that policies cannot call. Every function of OPA is in one of
// the three lists: a test fails if a new version of OPA has another one.
var forbidden = []string{
	// They use more than the input, or are not deterministic.
	"http.send", "net.lookup_ip_addr", "opa.runtime", "rand.intn", "uuid.rfc4122", "trace", "time.now_ns", "rego.parse_module",
	"json.match_schema", "json.verify_schema", // a $ref in a schema can be the address of a server
	// The size of the result or the time is not bounded by the size of the arguments, or grows faster.
	"bits.lsh", "net.cidr_contains_matches", "net.cidr_expand", "net.cidr_merge", "graph.reachable", "graph.reachable_paths", "glob.match", "glob.quote_meta",
	"json.marshal_with_options", "regex.globs_match", "regex.template_match", "strings.render_template",
	"units.parse", "units.parse_bytes", "yaml.is_valid", "yaml.marshal", "yaml.unmarshal",
	"graphql.is_valid", "graphql.parse", "graphql.parse_and_verify", "graphql.parse_query", "graphql.parse_schema", "graphql.schema_is_valid",
	// They verify or create signatures, whose time depends on the key in the argument.
	"crypto.parse_private_keys", "crypto.x509.parse_and_verify_certificates", "crypto.x509.parse_and_verify_certificates_with_options",
	"crypto.x509.parse_certificate_request", "crypto.x509.parse_certificates", "crypto.x509.parse_keypair", "crypto.x509.parse_rsa_private_key",
	"io.jwt.decode", "io.jwt.decode_verify", "io.jwt.encode_sign", "io.jwt.encode_sign_raw", "io.jwt.verify_eddsa",
	"io.jwt.verify_es256", "io.jwt.verify_es384", "io.jwt.verify_es512", "io.jwt.verify_hs256", "io.jwt.verify_hs384", "io.jwt.verify_hs512",
	"io.jwt.verify_ps256", "io.jwt.verify_ps384", "io.jwt.verify_ps512", "io.jwt.verify_rs256", "io.jwt.verify_rs384", "io.jwt.verify_rs512",
	"providers.aws.sign_req", "uuid.parse",
	// OPA deprecates them.
	"all", "any", "cast_array", "cast_boolean", "cast_null", "cast_object", "cast_set", "cast_string", "net.cidr_overlap", "re_match", "set_diff",
}

// capabilities returns the capabilities of OPA with only the built-in functions that policies can call,
// and limits these functions.
var capabilities = sync.OnceValue(func() *ast.Capabilities {
	for name, check := range limited {
		limit(name, check)
	}
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(c.Builtins, func(b *ast.Builtin) bool {
		_, ok := limited[b.Name]
		return !ok && !slices.Contains(plain, b.Name)
	})
	c.AllowNet = []string{}
	return c
})

// limit replaces a built-in function by one that checks its arguments and its result. OPA keeps the
// functions of a process in one table.
func limit(name string, check func([]*ast.Term) error) {
	call := topdown.GetBuiltin(name)
	if call == nil {
		return // OPA rewrites its calls
	}
	topdown.RegisterBuiltinFunc(name, func(at topdown.BuiltinContext, args []*ast.Term, iter func(*ast.Term) error) error {
		left := MaxValue
		for _, arg := range args {
			var err error
			if left, err = size(arg.Value, left); err != nil {
				return exceeds(name, at, fmt.Errorf("the arguments are too large: %w", err))
			}
		}
		if check != nil {
			if err := check(args); err != nil {
				return exceeds(name, at, err)
			}
		}
		return call(at, args, func(result *ast.Term) error {
			if _, err := size(result.Value, MaxValue); err != nil {
				return exceeds(name, at, fmt.Errorf("the result is too large: %w", err))
			}
			return iter(result)
		})
	})
}

// exceeds returns the error of a call. Without Halt, a test would treat the error as undefined.
func exceeds(name string, at topdown.BuiltinContext, err error) error {
	return topdown.Halt{Err: &topdown.Error{Code: topdown.BuiltinErr, Location: at.Location, Message: name + ": " + err.Error()}}
}

// size returns left less the size of a value. The error is that left became negative, or that a number
// is too long.
func size(value ast.Value, left int) (int, error) {
	var err error
	switch v := value.(type) {
	case ast.String:
		left -= len(v)
	case ast.Number:
		left -= len(v)
		err = checkNumber(string(v))
	case *ast.Array:
		for i := 0; i < v.Len() && err == nil; i++ {
			left, err = size(v.Elem(i).Value, left-8)
		}
	case ast.Set:
		left, err = sizeOfSet(v, left)
	case ast.Object:
		left, err = sizeOfObject(v, left)
	}
	if err == nil && left < 0 {
		err = errTooLarge
	}
	return left, err
}

// sizeOfSet is a separate function, because its closure moves its variables to the heap.
func sizeOfSet(set ast.Set, left int) (int, error) {
	var err error
	set.Until(func(t *ast.Term) bool {
		left, err = size(t.Value, left-8)
		return err != nil
	})
	return left, err
}

func sizeOfObject(object ast.Object, left int) (int, error) {
	var err error
	object.Until(func(key, of *ast.Term) bool {
		if left, err = size(key.Value, left-8); err == nil {
			left, err = size(of.Value, left-8)
		}
		return err != nil
	})
	return left, err
}

var errTooLarge = fmt.Errorf("the maximum is %d bytes", MaxValue)

func checkNumber(number string) error {
	if len(number) < 16 && !strings.ContainsAny(number, "eE") {
		return nil
	}
	if len(number) > MaxDigits {
		return fmt.Errorf("a number has %d digits, the maximum is %d", len(number), MaxDigits)
	}
	if i := strings.IndexAny(number, "eE"); i >= 0 {
		if exponent, err := strconv.Atoi(number[i+1:]); err != nil || exponent > MaxDigits || exponent < -MaxDigits {
			return fmt.Errorf("the number %s has an exponent beyond %d", number, MaxDigits)
		}
	}
	return nil
}

func checkRange(args []*ast.Term) error {
	first, firstOK := args[0].Value.(ast.Number)
	last, lastOK := args[1].Value.(ast.Number)
	if !firstOK || !lastOK {
		return nil // OPA reports the type
	}
	from, fromOK := first.Int64()
	to, toOK := last.Int64()
	const most = 1 << 60 // so that the difference does not overflow
	if !fromOK || !toOK || max(from, to) > most || min(from, to) < -most || max(from, to)-min(from, to) >= MaxRange {
		return fmt.Errorf("the range from %s to %s has more than %d numbers", first, last, MaxRange)
	}
	return nil
}

// checkProduct bounds a result of at most count times each bytes.
func checkProduct(count, each int) error {
	if each > 0 && count > maxProduct/each {
		return fmt.Errorf("the result can have more than %d bytes", maxProduct)
	}
	return nil
}

// length returns the length of a string, or 0.
func length(term *ast.Term) int {
	text, _ := term.Value.(ast.String)
	return len(text)
}

func checkConcat(args []*ast.Term) error {
	elements := 0
	switch v := args[1].Value.(type) {
	case *ast.Array:
		elements = v.Len()
	case ast.Set:
		elements = v.Len()
	}
	return checkProduct(elements, length(args[0]))
}

func checkReplace(args []*ast.Term) error { return checkProduct(length(args[0])+1, length(args[2])) }

func checkRegexReplace(args []*ast.Term) error {
	if err := checkPattern(args[1:]); err != nil {
		return err
	}
	return checkReplace(args)
}

func checkReplaceN(args []*ast.Term) error {
	longest := 0
	if patterns, ok := args[0].Value.(ast.Object); ok {
		patterns.Foreach(func(_, replacement *ast.Term) { longest = max(longest, length(replacement)) })
	}
	return checkProduct(length(args[1])+1, longest)
}

// checkSprintf bounds widths and precisions, and verbs that use an argument repeatedly.
func checkSprintf(args []*ast.Term) error {
	const widest = 1000
	format, _ := args[0].Value.(ast.String)
	longest := 0
	if values, ok := args[1].Value.(*ast.Array); ok {
		values.Foreach(func(value *ast.Term) {
			left, _ := size(value.Value, MaxValue) // within the limit of the arguments
			longest = max(longest, MaxValue-left)
		})
	}
	verbs := 0
	for _, verb, ok := strings.Cut(string(format), "%"); ok; _, verb, ok = strings.Cut(verb, "%") {
		verbs++
		flags := verb[:len(verb)-len(strings.TrimLeft(verb, "+-# 0123456789.[]*"))]
		if flags == "" {
			continue
		}
		if strings.Contains(flags, "*") {
			return fmt.Errorf("%%%s: write the width in place of *", verb)
		}
		for number := range strings.FieldsFuncSeq(flags, func(r rune) bool { return r < '0' || r > '9' }) {
			if n, err := strconv.Atoi(number); err != nil || n > widest {
				return fmt.Errorf("%%%s: the maximum width is %d", flags, widest)
			}
		}
	}
	return checkProduct(verbs, longest+widest)
}

// checkPattern bounds the program of the regular expression in the first argument.
func checkPattern(args []*ast.Term) error {
	pattern, _ := args[0].Value.(ast.String)
	if len(pattern) < 256 && !strings.ContainsAny(string(pattern), "{p") {
		return nil // it has neither repetitions nor Unicode classes
	}
	parsed, err := syntax.Parse(string(pattern), syntax.Perl)
	if err != nil {
		return nil //nolint:nilerr // OPA reports it, or returns false
	}
	if n := patternSize(parsed); n > MaxPattern {
		return fmt.Errorf("the regular expression has a size of %d with its repetitions, the maximum is %d", n, MaxPattern)
	}
	return nil
}

// patternSize returns the size of the program of a regular expression, approximately.
func patternSize(re *syntax.Regexp) int {
	n := 1 + len(re.Rune)
	for _, sub := range re.Sub {
		n += patternSize(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(1, re.Min, re.Max)
	}
	return n
}
