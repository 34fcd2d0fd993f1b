// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"countersign.dev/countersign/internal/text"
)

// MaxRecord is the maximum size of a [Decision] in bytes of JSON. One requester cannot fill the log with
// a few requests. [Decision.Truncated] lists what a record lacks because of it.
const MaxRecord = 256 << 10

// Maximum sizes of parts of a record, in bytes.
const (
	maxMessage = 16 << 10
	maxName    = 1 << 10 // a username or a UID
	maxList    = 8 << 10 // groups, or extras
)

// errTooLarge means that a record is larger than MaxRecord without its facts, violations and names.
var errTooLarge = errors.New("the record is too large")

// encode returns the JSON of a decision, shortened to MaxRecord bytes.
func (d Decision) encode() ([]byte, error) {
	d.Truncated = slices.Clone(d.Truncated)
	d.shorten()
	all := func(Policy) bool { return true }
	steps := []struct {
		field string
		drop  func() bool // reports whether the record had it
	}{
		// Shadow policies decide nothing, and their authors must not remove what the decision is based on.
		{"policies.violations", func() bool { return d.dropViolations(isShadow) }},
		{"policies", func() bool { return d.dropPolicies(isShadow) }},
		{"facts", func() bool { d.Facts = nil; return true }}, // the digest remains
		{"policies.violations", func() bool { return d.dropViolations(all) }},
		{"request", func() bool { d.Request.DNSNames, d.Request.IPs = nil, nil; return true }},
		{"certificate", func() bool { d.Certificate = d.Certificate.withoutNames(); return true }},
		{"policies", func() bool { return d.dropPolicies(all) }},
	}
	for _, step := range steps {
		raw, err := encode(d)
		if err != nil || len(raw) <= MaxRecord {
			return raw, err
		}
		if step.drop() {
			d.truncated(step.field)
		}
	}
	raw, err := encode(d)
	if err == nil && len(raw) > MaxRecord {
		return nil, fmt.Errorf("%w: %d bytes, the maximum is %d", errTooLarge, len(raw), MaxRecord)
	}
	return raw, err
}

// shorten bounds the parts that a requester, an approving user or a policy chooses.
func (d *Decision) shorten() {
	if len(d.Message) > maxMessage {
		d.Message = text.Shorten(d.Message, maxMessage)
		d.truncated("message")
	}
	if d.Requester.shorten() {
		d.truncated("requester")
	}
	if d.By != nil {
		by := *d.By
		if by.shorten() {
			d.truncated("by")
		}
		d.By = &by
	}
	d.Policies = slices.Clone(d.Policies)
	for i := range d.Policies {
		if p := &d.Policies[i]; len(p.Error) > maxName {
			p.Error = text.Shorten(p.Error, maxName)
			d.truncated("policies.error")
		}
	}
}

func (d *Decision) truncated(field string) {
	if !slices.Contains(d.Truncated, field) {
		d.Truncated = append(d.Truncated, field)
	}
}

func isShadow(p Policy) bool { return p.Audit }

// dropViolations removes the violations of some policies. It reports whether there were any of these policies.
func (d *Decision) dropViolations(of func(Policy) bool) (dropped bool) {
	for i := range d.Policies {
		if of(d.Policies[i]) {
			d.Policies[i].Violations, dropped = nil, true
		}
	}
	return dropped
}

// dropPolicies removes some policies. It reports whether there were any of these policies.
func (d *Decision) dropPolicies(which func(Policy) bool) bool {
	before := len(d.Policies)
	d.Policies = slices.DeleteFunc(d.Policies, which)
	return len(d.Policies) < before
}

// shorten keeps the first groups, and the first extras in the order of their keys. It reports whether it
// removed anything.
func (r *Requester) shorten() bool {
	before := *r
	r.Username, r.UID = text.Shorten(r.Username, maxName), text.Shorten(r.UID, maxName)
	size := 0
	for i, group := range r.Groups {
		if size += len(group); size > maxList {
			r.Groups = r.Groups[:i:i]
			break
		}
	}
	size = 0
	extra := make(map[string][]string, len(r.Extra))
	for _, key := range slices.Sorted(maps.Keys(r.Extra)) {
		if size += len(key); size > maxList {
			break
		}
		for _, value := range r.Extra[key] {
			size += len(value)
		}
		if size <= maxList {
			extra[key] = r.Extra[key]
		}
	}
	r.Extra = extra
	return r.Username != before.Username || r.UID != before.UID || len(r.Groups) < len(before.Groups) || len(extra) < len(before.Extra)
}

func (c *Certificate) withoutNames() *Certificate {
	if c == nil {
		return nil
	}
	out := *c
	out.DNSNames, out.IPAddresses, out.URIs, out.EmailAddresses = nil, nil, nil, nil
	return &out
}

// encode returns the JSON of a record.
func encode(record any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(record); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}
