// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"countersign.dev/countersign/internal/text"
)

const (
	// refusalRetry is the time until a write that a namespace refused is tried again, unless its ConfigMap or the bundle
	// changes. Quotas and policies are not watched. Without it, each edit in one namespace would send the requests of
	// all namespaces that refuse. It is less than the resync of a Signer.
	refusalRetry = 40 * time.Second

	maxRefusal = 1 << 10 // bytes of the message of a refusal in memory
)

// refusal is the last refusal of a namespace.
type refusal struct {
	at      time.Time
	write   write
	failure failure
}

// write is the content that was written, over a version of the object.
type write struct {
	action       action
	key, version string
	content      digest
}

func writeOf(s step) write {
	w := write{action: s.action, key: s.target.key, content: s.target.digest}
	if s.have != nil {
		w.version = string(s.have.uid) + " " + s.have.resourceVersion
	}
	return w
}

// nameOf identifies the ConfigMaps of a Signer and a name.
type nameOf struct {
	signer types.UID
	name   string
}

// writeEach executes the steps that write the ConfigMaps of t, and returns the failures by namespace. It does not repeat a
// step that was refused less than [refusalRetry] ago. If there is no time to repeat an older one, it still counts as
// refused: many namespaces that refuse would otherwise make each publication incomplete.
func (p *Publisher) writeEach(ctx context.Context, t target, writes []step) []failure {
	now, id := p.now(), nameOf{t.signer.UID, t.name}
	p.mu.Lock()
	last := p.refusals[id]
	p.mu.Unlock()
	next := map[string]refusal{}
	var failures []failure
	var tried []step
	for _, s := range writes {
		if r, refused := last[s.target.namespace]; refused && r.write == writeOf(s) {
			next[s.target.namespace] = r
			if now.Before(r.at.Add(refusalRetry)) {
				failures = append(failures, r.failure)
				continue
			}
		}
		tried = append(tried, s)
	}
	var mu sync.Mutex
	for _, f := range p.each(ctx, tried, func(ctx context.Context, s step) *failure {
		f := p.writeConfigMap(ctx, s)
		mu.Lock()
		defer mu.Unlock()
		delete(next, s.target.namespace)
		if f != nil && f.cause == causeRefused {
			next[s.target.namespace] = newRefusal(now, s, *f)
		}
		return f
	}) {
		if r, refused := next[f.namespace]; refused && f.cause == causeFailed { // it was not tried again
			f = r.failure
		}
		failures = append(failures, f)
	}
	slices.SortFunc(failures, func(a, b failure) int { return strings.Compare(a.namespace, b.namespace) })
	p.mu.Lock()
	p.refusals[id] = next
	p.mu.Unlock()
	return failures
}

func newRefusal(now time.Time, s step, f failure) refusal {
	f.err = errors.New(text.Shorten(f.err.Error(), maxRefusal))
	return refusal{now, writeOf(s), f}
}
