// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
)

// afterSwitch is how long after a CA was replaced a certificate of it may still be written: by a
// worker that had begun, or by a replica that has not noticed yet that it does not lead any more,
// which takes it 15 s at most.
const afterSwitch = 30 * time.Second

// Rotation is where a Signer stands between one CA and the next.
type Rotation struct {
	// Anchors is the new record: Current first, then Next, then Retiring.
	Anchors []v1alpha1.TrustAnchor
	// Signing is the CA that may sign, once Anchors are on record; nil if none may.
	Signing *CA
	// Waits is why no CA may sign although there is a newest one; nil otherwise.
	Waits *Problem
	// Rotating, Reason and Message are for the condition Rotating.
	Rotating        bool
	Reason, Message string
	// Again is when time alone changes the Rotation; zero if it never does.
	Again time.Time
}

// Settings of a Signer that a Rotation depends on.
type Settings struct {
	// MaxDuration is the longest lifetime of a certificate.
	MaxDuration time.Duration
	// Propagation is how long after its publication a CA signs in place of another.
	Propagation time.Duration
	// Distrusted are fingerprints of CA certificates that neither sign nor are published.
	Distrusted []string
}

// Rotate takes a rotation as far as it may go now. It is a pure function of the record, which
// survives a restart, and of what the source of the Signer has: its newest CA, or nil if that cannot
// be had, and the one before it, or nil if its key is gone.
//
// A CA whose trust anchor relying parties know signs at once: an intermediate below the same
// root, or the first CA of all. Any other is published beside the current one, and signs
// when Propagation has passed since its PublishedAt, which the caller sets. Until then the
// previous one signs, or none if its key is gone. A CA that has signed is published until the last
// certificate below it has expired.
func Rotate(now time.Time, record []v1alpha1.TrustAnchor, newest, previous *CA, s Settings) Rotation {
	r := rotation{now: now, settings: s}
	for _, a := range record {
		ended := a.Phase == v1alpha1.TrustAnchorRetiring && a.LeavesUntil != nil && !now.Before(a.LeavesUntil.Time)
		if now.Before(a.NotAfter.Time) && !ended && !slices.Contains(s.Distrusted, a.Fingerprint) {
			r.anchors = append(r.anchors, *a.DeepCopy())
		}
	}
	if newest != nil && newest.Distrusted(s.Distrusted) {
		newest = nil
	}
	if previous != nil && previous.Distrusted(s.Distrusted) {
		previous = nil
	}
	if previous != nil && r.current() < 0 && len(record) == 0 {
		r.promote(r.add(previous.Anchor())) // the record is lost: the previous one signed
	}
	signing, waits := r.choose(newest, previous)
	return r.result(signing, waits)
}

type rotation struct {
	now      time.Time
	settings Settings
	anchors  []v1alpha1.TrustAnchor
}

// choose finds out which CA signs, and changes phases by that.
func (r *rotation) choose(newest, previous *CA) (*CA, *Problem) {
	if newest == nil {
		return nil, nil
	}
	id := fingerprint(newest.Anchor())
	r.anchors = slices.DeleteFunc(r.anchors, func(a v1alpha1.TrustAnchor) bool {
		return a.Phase == v1alpha1.TrustAnchorNext && a.Fingerprint != id // it never signed
	})
	offered := r.find(id)
	if offered < 0 {
		offered = r.add(newest.Anchor())
	}
	current := r.current()
	if current < 0 || current == offered || r.propagated(r.anchors[offered]) {
		r.promote(offered)
		return newest, nil
	}
	switch {
	case previous == nil || fingerprint(previous.Anchor()) != r.anchors[current].Fingerprint:
		return nil, problemf(v1alpha1.ReasonCAPropagating, "the key of %s is gone, and %s must be known to clients before it signs: %s; requests wait. "+
			"If nothing trusts the former any more, list its fingerprint in spec.trust.distrusted",
			called(r.anchors[current]), called(r.anchors[offered]), r.signsFrom(r.anchors[offered]))
	case !r.signs(previous): // and so no certificate of it is valid
		r.promote(offered)
		return newest, nil
	default:
		r.promote(current) // it goes on
		return previous, nil
	}
}

// promote makes an anchor the current one, and retires that before it.
func (r *rotation) promote(i int) {
	if c := r.current(); c >= 0 && c != i {
		old := &r.anchors[c]
		old.Phase = v1alpha1.TrustAnchorRetiring
		r.extend(old)
	}
	a := &r.anchors[i]
	if a.Phase == v1alpha1.TrustAnchorCurrent && a.MaxDuration != nil && a.MaxDuration.Duration > r.settings.MaxDuration {
		r.extend(a) // what was issued until now lives longer than what is issued from now on
	}
	a.Phase = v1alpha1.TrustAnchorCurrent
	a.MaxDuration = &metav1.Duration{Duration: r.settings.MaxDuration}
}

// extend notes when the last certificate issued until now expires.
func (r *rotation) extend(a *v1alpha1.TrustAnchor) {
	longest := r.settings.MaxDuration
	if a.MaxDuration != nil {
		longest = max(longest, a.MaxDuration.Duration)
	}
	until := r.now.Add(longest + afterSwitch)
	if a.LeavesUntil != nil && a.LeavesUntil.After(until) {
		until = a.LeavesUntil.Time
	}
	if until.After(a.NotAfter.Time) {
		until = a.NotAfter.Time
	}
	a.LeavesUntil = wholeSeconds(until)
}

// signs reports whether a CA is valid.
func (r *rotation) signs(c *CA) bool { return c.ValidAt(r.now, 0) == nil }

// propagated reports whether clients have had the time to learn of an anchor.
func (r *rotation) propagated(a v1alpha1.TrustAnchor) bool {
	return a.PublishedAt != nil && !r.now.Before(a.PublishedAt.Add(r.settings.Propagation))
}

func (r *rotation) signsFrom(a v1alpha1.TrustAnchor) string {
	if a.PublishedAt == nil {
		return fmt.Sprintf("it signs %v after it was published everywhere, see the condition %s", r.settings.Propagation, v1alpha1.ConditionTrustPublished)
	}
	return "it signs from " + stamp(a.PublishedAt.Add(r.settings.Propagation))
}

func (r *rotation) add(certificate *x509.Certificate) int {
	r.anchors = append(r.anchors, v1alpha1.TrustAnchor{
		Fingerprint: fingerprint(certificate),
		Subject:     certificate.Subject.String(),
		NotAfter:    metav1.NewTime(certificate.NotAfter),
		Phase:       v1alpha1.TrustAnchorNext,
		Certificate: string(pemOf(certificate)),
	})
	return len(r.anchors) - 1
}

func (r *rotation) find(id string) int {
	return slices.IndexFunc(r.anchors, func(a v1alpha1.TrustAnchor) bool { return a.Fingerprint == id })
}

func (r *rotation) current() int {
	return slices.IndexFunc(r.anchors, func(a v1alpha1.TrustAnchor) bool { return a.Phase == v1alpha1.TrustAnchorCurrent })
}

var phaseOrder = []v1alpha1.TrustAnchorPhase{v1alpha1.TrustAnchorCurrent, v1alpha1.TrustAnchorNext, v1alpha1.TrustAnchorRetiring}

// result sorts the record and says what is to be told of it.
func (r *rotation) result(signing *CA, waits *Problem) Rotation {
	slices.SortStableFunc(r.anchors, func(a, b v1alpha1.TrustAnchor) int {
		return slices.Index(phaseOrder, a.Phase) - slices.Index(phaseOrder, b.Phase)
	})
	out := Rotation{Anchors: r.anchors, Signing: signing, Waits: waits, Reason: v1alpha1.ReasonSettled, Message: "one CA is trusted"}
	if len(r.anchors) == 0 {
		out.Message = "no CA is trusted yet"
	}
	var retiring []string
	for _, a := range r.anchors {
		out.soon(r.now, a.NotAfter.Time)
		switch a.Phase {
		case v1alpha1.TrustAnchorNext:
			out.Rotating, out.Reason, out.Message = true, v1alpha1.ReasonPublishing, fmt.Sprintf("%s: %s", called(a), r.signsFrom(a))
			if a.PublishedAt != nil {
				out.Reason = v1alpha1.ReasonPropagating
				out.soon(r.now, a.PublishedAt.Add(r.settings.Propagation))
			}
		case v1alpha1.TrustAnchorRetiring:
			until := a.NotAfter.Time
			if a.LeavesUntil != nil {
				until = a.LeavesUntil.Time
			}
			out.soon(r.now, until)
			retiring = append(retiring, fmt.Sprintf("%s is published until %s, when its last certificate has expired", called(a), stamp(until)))
		case v1alpha1.TrustAnchorCurrent:
		}
	}
	if !out.Rotating && len(retiring) > 0 {
		out.Reason, out.Message = v1alpha1.ReasonOverlapping, strings.Join(retiring, "; ")
	}
	return out
}

// called names an anchor: a managed CA has the subject of the one before.
func called(a v1alpha1.TrustAnchor) string { return fmt.Sprintf("%q (%.8s)", a.Subject, a.Fingerprint) }

// soon brings Again forward to t, if t is to come.
func (r *Rotation) soon(now, t time.Time) {
	if t.After(now) && (r.Again.IsZero() || t.Before(r.Again)) {
		r.Again = t
	}
}

// Bundle is the PEM of the anchors, in their order.
func Bundle(anchors []v1alpha1.TrustAnchor) []byte {
	var bundle []byte
	for _, a := range anchors {
		bundle = append(bundle, a.Certificate...)
	}
	return bundle
}

// Published notes that the anchors are published, wherever they are to be, and reports whether
// that is news of any.
func Published(anchors []v1alpha1.TrustAnchor, now time.Time) bool {
	news := false
	for i := range anchors {
		// Never before now: the time is kept in whole seconds. One that is later is of a clock that was ahead.
		if at := anchors[i].PublishedAt; at == nil || at.After(now.Add(time.Second)) {
			anchors[i].PublishedAt = wholeSeconds(now)
			news = true
		}
	}
	return news
}

// wholeSeconds rounds up to what a metav1.Time keeps when it is written.
func wholeSeconds(t time.Time) *metav1.Time {
	if whole := t.Truncate(time.Second); whole.Before(t) {
		t = whole.Add(time.Second)
	}
	return &metav1.Time{Time: t}
}

func fingerprint(certificate *x509.Certificate) string {
	digest := sha256.Sum256(certificate.Raw)
	return hex.EncodeToString(digest[:])
}

func pemOf(certificate *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: certificate.Raw})
}
