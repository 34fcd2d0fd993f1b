// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"countersign.dev/countersign/api/v1alpha1"
)

// authority makes a CA that is its own root.
func authority(t *testing.T, name string, change func(*x509.Certificate)) *CA {
	t.Helper()
	key := ecKey(t, elliptic.P256())
	c, err := load(certPEM(issue(t, name, key, nil, change)), keyPEM(t, key))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// below makes an intermediate CA of a root.
func below(t *testing.T, root *CA, name string, change func(*x509.Certificate)) *CA {
	t.Helper()
	key := ecKey(t, elliptic.P256())
	parent := &pair{root.certificate, root.key}
	c, err := load(certPEM(issue(t, name, key, parent, change), parent), keyPEM(t, key))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// phases shows a record as "Current One, Next Two".
func phases(anchors []v1alpha1.TrustAnchor) string {
	var all []string
	for _, a := range anchors {
		all = append(all, string(a.Phase)+" "+strings.TrimPrefix(a.Subject, "CN="))
	}
	return strings.Join(all, ", ")
}

func commonName(c *CA) string {
	if c == nil {
		return "none"
	}
	return c.Certificate().Subject.CommonName
}

// step is a moment in the life of a Signer.
type step struct {
	what             string
	at               time.Duration // since now
	newest, previous *CA
	settings         *Settings // if they change
	unpublished      bool      // the anchors could not be published

	phases, signing string
	reason          string        // of the condition Rotating, or of the Problem
	requeue         time.Duration // since now
	message         string        // checked if set
}

// TestRotate runs complete rotations. Each step encodes the record as JSON, as the API server does, and runs twice: a
// restart must change nothing.
func TestRotate(t *testing.T) {
	one, two, three := authority(t, "One", nil), authority(t, "Two", nil), authority(t, "Three", nil)
	short := authority(t, "Short", func(c *x509.Certificate) { c.NotAfter = now.Add(time.Hour) })
	root, root2 := authority(t, "Root", nil), authority(t, "Root2", nil)
	lower, lower2 := below(t, root, "Lower", nil), below(t, root, "Lower2", nil)
	other := below(t, root2, "Other", nil)
	dying := below(t, root, "Dying", func(c *x509.Certificate) { c.NotAfter = now.Add(30 * time.Minute) })
	const (
		day         = 24 * time.Hour
		propagation = 5 * time.Minute
		shortest    = 10 * time.Minute
		never       = 0
	)
	usual := Settings{MinDuration: shortest, MaxDuration: day, Propagation: propagation}
	distrusting := func(c *CA) *Settings {
		return &Settings{MaxDuration: day, Propagation: propagation, Distrusted: []string{c.Fingerprint()}}
	}
	end := one.NotAfter().Sub(now)
	last := end - shortest // one can issue until then
	lives := map[string][]step{
		"a managed CA": {
			{what: "first", newest: one, phases: "Current One", signing: "One", reason: "Settled", requeue: end},
			{
				what: "next, not yet published", at: time.Hour, newest: two, previous: one, unpublished: true,
				phases: "Current One, Next Two", signing: "One", reason: "Publishing", requeue: last,
				message: fmt.Sprintf(`"CN=Two" (%.8s): it signs 5m0s after it has been published everywhere, see the condition TrustPublished, and not later than 2036-03-01T11:50:00Z`, two.Fingerprint()),
			},
			{what: "still not", at: 2 * time.Hour, newest: two, previous: one, phases: "Current One, Next Two", signing: "One", reason: "Publishing", requeue: last},
			{
				what: "published", at: 2*time.Hour + time.Minute, newest: two, previous: one,
				phases: "Current One, Next Two", signing: "One", reason: "Propagating", requeue: 2*time.Hour + propagation,
				message: fmt.Sprintf(`"CN=Two" (%.8s): it signs from 2026-03-01T14:05:00Z`, two.Fingerprint()),
			},
			{
				what: "propagated", at: 2*time.Hour + propagation, newest: two, previous: one,
				phases: "Current Two, Retiring One", signing: "Two", reason: "Overlapping", requeue: 2*time.Hour + propagation + day + afterSwitch,
				message: fmt.Sprintf(`"CN=One" (%.8s) is published until 2026-03-02T14:05:30Z, when its last certificate expires`, one.Fingerprint()),
			},
			{what: "the old one's last certificate expires", at: 2*time.Hour + propagation + day + afterSwitch, newest: two, phases: "Current Two", signing: "Two", reason: "Settled", requeue: end},
		},
		"a Secret that is replaced, and replaced back": {
			{what: "first", newest: one, phases: "Current One", signing: "One", reason: "Settled", requeue: end},
			{what: "replaced", at: time.Minute, newest: two, previous: one, phases: "Current One, Next Two", signing: "One", reason: "Publishing", requeue: last},
			{what: "replaced a second time: a CA that never signed is dropped", at: 2 * time.Minute, newest: three, previous: one, phases: "Current One, Next Three", signing: "One", reason: "Publishing", requeue: last},
			{what: "the signer restarts, and the old key is lost", at: 3 * time.Minute, newest: three, phases: "Current One, Next Three", signing: "none", reason: "CAPropagating", requeue: 7 * time.Minute},
			{what: "propagated", at: 7 * time.Minute, newest: three, phases: "Current Three, Retiring One", signing: "Three", reason: "Overlapping", requeue: 7*time.Minute + day + afterSwitch},
			{what: "the old one is put back: clients know it", at: 10 * time.Minute, newest: one, previous: three, phases: "Current One, Retiring Three", signing: "One", reason: "Overlapping", requeue: 10*time.Minute + day + afterSwitch},
			{what: "the Secret is deleted", at: 20 * time.Minute, phases: "Current One, Retiring Three", signing: "none", reason: "Overlapping", requeue: 10*time.Minute + day + afterSwitch},
		},
		"a CA that has not long to go": {
			{what: "first", newest: short, phases: "Current Short", signing: "Short", reason: "Settled", requeue: time.Hour},
			{
				what: "goes on as long as it can issue, or the next one signs before clients know it", at: 50*time.Minute - time.Second, newest: two, previous: short, unpublished: true,
				phases: "Current Short, Next Two", signing: "Short", reason: "Publishing", requeue: 50 * time.Minute,
				message: fmt.Sprintf(`"CN=Two" (%.8s): it signs 5m0s after it has been published everywhere, see the condition TrustPublished, and not later than 2026-03-01T12:50:00Z`, two.Fingerprint()),
			},
			{what: "can no longer issue the shortest certificate", at: 50 * time.Minute, newest: two, previous: short, unpublished: true, phases: "Current Two, Retiring Short", signing: "Two", reason: "Overlapping", requeue: time.Hour},
			{what: "its certificates have expired", at: time.Hour, newest: two, phases: "Current Two", signing: "Two", reason: "Settled", requeue: end},
		},
		"a CA that ends while the next one propagates": {
			{what: "first", newest: short, phases: "Current Short", signing: "Short", reason: "Settled", requeue: time.Hour},
			{
				what: "published too late", at: 48 * time.Minute, newest: two, previous: short, phases: "Current Short, Next Two", signing: "Short", reason: "Publishing", requeue: 50 * time.Minute,
			},
			{
				what: "propagating", at: 49 * time.Minute, newest: two, previous: short, phases: "Current Short, Next Two", signing: "Short", reason: "Propagating", requeue: 50 * time.Minute,
				message: fmt.Sprintf(`"CN=Two" (%.8s): it signs from 2026-03-01T12:50:00Z`, two.Fingerprint()),
			},
			{what: "switched", at: 50 * time.Minute, newest: two, previous: short, phases: "Current Two, Retiring Short", signing: "Two", reason: "Overlapping", requeue: time.Hour},
		},
		"a clock that was ahead": {
			{what: "first", newest: one, phases: "Current One", signing: "One", reason: "Settled", requeue: end},
			{what: "next, a year ahead", at: 365 * day, newest: two, previous: one, phases: "Current One, Next Two", signing: "One", reason: "Publishing", requeue: last},
			{what: "the clock is corrected", at: time.Hour, newest: two, previous: one, phases: "Current One, Next Two", signing: "One", reason: "Propagating", requeue: 365*day + propagation},
			{what: "and counts from then", at: time.Hour + time.Minute, newest: two, previous: one, phases: "Current One, Next Two", signing: "One", reason: "Propagating", requeue: time.Hour + propagation},
		},
		"a clock that is far behind": {
			{what: "first", newest: one, phases: "Current One", signing: "One", reason: "Settled", requeue: end},
			{what: "next", at: time.Hour, newest: two, previous: one, unpublished: true, phases: "Current One, Next Two", signing: "One", reason: "Publishing", requeue: last},
			{what: "before any CA is valid: the next one is not promoted", at: -48 * time.Hour, newest: two, previous: one, unpublished: true, phases: "Current One, Next Two", signing: "One", reason: "Publishing", requeue: last},
		},
		"a lifetime that was longer": {
			{what: "first", newest: one, phases: "Current One", signing: "One", reason: "Settled", requeue: end},
			{what: "lifetime is cut", at: time.Hour, settings: &Settings{MaxDuration: time.Hour}, newest: one, phases: "Current One", signing: "One", reason: "Settled", requeue: end},
			{what: "next, at once", at: 2 * time.Hour, settings: &Settings{MaxDuration: time.Hour}, newest: two, previous: one, phases: "Current One, Next Two", signing: "One", reason: "Publishing", requeue: end},
			{what: "switched: what lives longest counts", at: 3 * time.Hour, settings: &Settings{MaxDuration: time.Hour}, newest: two, previous: one, phases: "Current Two, Retiring One", signing: "Two", reason: "Overlapping", requeue: time.Hour + day + afterSwitch},
		},
		"a CA is distrusted": {
			{what: "first", newest: one, phases: "Current One", signing: "One", reason: "Settled", requeue: end},
			{what: "distrusted", at: time.Hour, settings: distrusting(one), newest: one, phases: "", signing: "none", reason: "Settled", requeue: never},
			{what: "the next one signs at once: both reach clients by the same bundle", at: time.Hour, settings: distrusting(one), newest: two, previous: one, phases: "Current Two", signing: "Two", reason: "Settled", requeue: end},
		},
		"a CA that ends": {
			{what: "first", newest: short, phases: "Current Short", signing: "Short", reason: "Settled", requeue: time.Hour},
			{what: "ended: so did all below it", at: time.Hour, newest: two, phases: "Current Two", signing: "Two", reason: "Settled", requeue: end},
		},
		"intermediates": {
			{what: "first", newest: lower, phases: "Current Root", signing: "Lower", reason: "Settled", requeue: end},
			{what: "next below the same root", at: time.Hour, newest: lower2, previous: lower, phases: "Current Root", signing: "Lower2", reason: "Settled", requeue: end},
			{what: "below another root", at: 2 * time.Hour, newest: other, previous: lower2, phases: "Current Root, Next Root2", signing: "Lower2", reason: "Publishing", requeue: last},
		},
		"an intermediate that ends before its root": {
			{what: "first", newest: dying, phases: "Current Root", signing: "Dying", reason: "Settled", requeue: end},
			{what: "replaced too late: nothing below it is valid", at: 30*time.Minute + time.Second, newest: other, previous: dying, phases: "Current Root2, Retiring Root", signing: "Other", reason: "Overlapping", requeue: 30*time.Minute + time.Second + day + afterSwitch},
		},
		"the record is lost in the middle": {
			{what: "restored", at: time.Hour, newest: two, previous: one, phases: "Current One, Next Two", signing: "One", reason: "Publishing", requeue: last},
		},
	}
	for name, steps := range lives {
		t.Run(name, func(t *testing.T) {
			var record []v1alpha1.TrustAnchor
			for _, s := range steps {
				settings := usual
				if s.settings != nil {
					settings = *s.settings
				}
				var got Rotation
				for range 2 {
					got = Rotate(now.Add(s.at), record, s.newest, s.previous, settings)
					record = stored(t, got.Anchors)
				}
				reason, requeue := got.Reason, time.Duration(0)
				if got.Problem != nil {
					reason = got.Problem.Reason
				}
				if !got.RequeueAt.IsZero() {
					requeue = got.RequeueAt.Sub(now)
				}
				want := step{phases: s.phases, signing: s.signing, reason: s.reason, requeue: s.requeue, message: s.message}
				is := step{phases: phases(got.Anchors), signing: commonName(got.Signing), reason: reason, requeue: requeue}
				if s.message != "" {
					is.message = got.Message
				}
				if diff := cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", is)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", s.what, diff)
				}
				if got.Rotating != strings.Contains(s.phases, "Next") {
					t.Errorf("%s: Rotating is %v", s.what, got.Rotating)
				}
				if strings.Count(string(Bundle(got.Anchors)), "BEGIN CERTIFICATE") != len(got.Anchors) {
					t.Errorf("%s: the bundle is\n%s", s.what, Bundle(got.Anchors))
				}
				if !s.unpublished {
					Published(record, now.Add(s.at))
					record = stored(t, record)
				}
			}
		})
	}
}

func stored(t *testing.T, record []v1alpha1.TrustAnchor) []v1alpha1.TrustAnchor {
	t.Helper()
	encoded, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	var decoded []v1alpha1.TrustAnchor
	if err := json.Unmarshal(encoded, &decoded); err != nil {
		t.Fatal(err)
	}
	return decoded
}

func TestRotate_message(t *testing.T) {
	one, two := authority(t, "One", nil), authority(t, "Two", nil)
	settings := Settings{MaxDuration: time.Hour, Propagation: time.Minute}
	record := Rotate(now, nil, one, nil, settings).Anchors
	Published(record, now)
	got := Rotate(now, record, two, nil, settings)
	want := fmt.Sprintf(`the key of "CN=One" (%.8s) is lost, and clients must trust "CN=Two" (%.8s) before it signs: it signs 1m0s after it has been published everywhere, see the condition TrustPublished; requests stay pending. If no client trusts the former, list its fingerprint in spec.trust.distrusted`, one.Fingerprint(), two.Fingerprint())
	if got.Problem == nil || got.Problem.Message != want {
		t.Errorf("got %v, want %q", got.Problem, want)
	}
}

// TestRotate_longest: a CA that issued for longer than a time.Duration can add retires with its own end.
func TestRotate_longest(t *testing.T) {
	one, two := authority(t, "One", nil), authority(t, "Two", nil)
	settings := Settings{MaxDuration: 1<<63 - 1}
	record := Rotate(now, nil, one, nil, settings).Anchors
	Published(record, now)
	record = Rotate(now, record, two, one, settings).Anchors
	Published(record, now)
	for range 2 {
		record = Rotate(now.Add(time.Second), record, two, one, settings).Anchors
		if got := phases(record); got != "Current Two, Retiring One" {
			t.Fatal(got)
		}
	}
	if until := record[1].LeavesUntil; !until.Equal(&record[1].NotAfter) {
		t.Errorf("One is published until %v, want %v", until, record[1].NotAfter)
	}
}
