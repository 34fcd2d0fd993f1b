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

// afterSwitch is the period after a switch in which a certificate of the former CA can still be written: by a worker
// that started before, or by a replica that does not exit immediately when it has lost its Lease.
const afterSwitch = 30 * time.Second

// Rotation is the state of a Signer between one CA and the next.
type Rotation struct {
	// Anchors is the new record: Current first, then Next, then Retiring.
	Anchors []v1alpha1.TrustAnchor
	// Signing is the CA that is allowed to sign once Anchors are on record; nil if there is none.
	Signing *CA
	// Problem is why no CA is allowed to sign although there is a newest one; nil otherwise.
	Problem *Problem
	// Rotating, Reason and Message are for the condition Rotating.
	Rotating        bool
	Reason, Message string
	// RequeueAt is the next time at which Rotate returns another result without any other change; zero if there
	// is none.
	RequeueAt time.Time
}

// Settings of a Signer that a Rotation depends on.
type Settings struct {
	// MinDuration is the shortest lifetime of a certificate. A CA that expires sooner cannot issue.
	MinDuration time.Duration
	// MaxDuration is the longest lifetime of a certificate.
	MaxDuration time.Duration
	// Propagation is the time from the publication of a CA until it signs in place of another.
	Propagation time.Duration
	// Distrusted are fingerprints of CA certificates that neither sign nor are published.
	Distrusted []string
}

// Rotate advances a rotation as far as possible at now. It is a pure function of the record, which survives a
// restart, and of the CAs of the source: newest, or nil if it cannot be loaded, and previous, the one before it, or
// nil if its key is lost.
//
// A CA whose trust anchor is already trusted signs immediately: an intermediate below the same root, or the first CA
// of a Signer. Any other CA is published beside the current one, and signs Propagation after its PublishedAt,
// which the caller sets with [Published]. Until then the previous CA signs, or none if its key is lost. When the
// previous CA expires too soon to issue a certificate of MinDuration, the next CA signs in any case. A CA that has
// signed is published until the last certificate below it has expired.
func Rotate(now time.Time, record []v1alpha1.TrustAnchor, newest, previous *CA, s Settings) Rotation {
	r := rotation{now: now, settings: s}
	for _, a := range record {
		ended := a.Phase == v1alpha1.TrustAnchorRetiring && a.LeavesUntil != nil && !now.Before(a.LeavesUntil.Time)
		if now.Before(a.NotAfter.Time) && !ended && !slices.Contains(s.Distrusted, a.Fingerprint) {
			r.anchors = append(r.anchors, *a.DeepCopy())
		}
	}
	newest, previous = r.trusted(newest), r.trusted(previous)
	if previous != nil && len(record) == 0 { // the record is lost: the previous CA signed
		r.makeCurrent(r.add(previous.Anchor()))
	}
	if newest == nil {
		return r.result(nil, nil)
	}
	return r.result(r.choose(newest, previous))
}

type rotation struct {
	now      time.Time
	settings Settings
	anchors  []v1alpha1.TrustAnchor
	deadline time.Time // when the next CA signs in any case; zero if no previous CA signs until then
}

// trusted returns c, or nil if it is distrusted.
func (r *rotation) trusted(c *CA) *CA {
	if c == nil || c.Distrusted(r.settings.Distrusted) {
		return nil
	}
	return c
}

// choose returns the CA that signs, and updates the phases of the anchors.
func (r *rotation) choose(newest, previous *CA) (*CA, *Problem) {
	next, current := r.admit(newest), r.current()
	if current < 0 || current == next || r.propagated(r.anchors[next]) {
		r.makeCurrent(next)
		return newest, nil
	}
	switch {
	case previous == nil || !previous.AnchoredBy(r.anchors[current].Fingerprint):
		return nil, Problemf(v1alpha1.ReasonCAPropagating, "the key of %s is lost, and clients must trust %s before it signs: %s; requests stay pending. "+
			"If no client trusts the former, list its fingerprint in spec.trust.distrusted",
			nameOf(r.anchors[current]), nameOf(r.anchors[next]), r.signsFrom(r.anchors[next]))
	case !r.now.Before(r.lastIssue(previous)): // a CA that is not valid yet, by a clock that is behind, stays
		r.makeCurrent(next)
		return newest, nil
	default:
		r.makeCurrent(current)
		r.deadline = r.lastIssue(previous)
		return previous, nil
	}
}

// lastIssue returns when a CA can no longer issue the shortest certificate.
func (r *rotation) lastIssue(c *CA) time.Time { return c.NotAfter().Add(-r.settings.MinDuration) }

// admit returns the index of the anchor of the newest CA. It replaces a Next anchor of another CA, which never
// signed.
func (r *rotation) admit(newest *CA) int {
	anchor := newest.Anchor()
	id := fingerprint(anchor)
	r.anchors = slices.DeleteFunc(r.anchors, func(a v1alpha1.TrustAnchor) bool {
		return a.Phase == v1alpha1.TrustAnchorNext && a.Fingerprint != id
	})
	if i := slices.IndexFunc(r.anchors, func(a v1alpha1.TrustAnchor) bool { return a.Fingerprint == id }); i >= 0 {
		return i
	}
	return r.add(anchor)
}

// makeCurrent makes an anchor the current one, and retires the one before it.
func (r *rotation) makeCurrent(i int) {
	if former := r.current(); former >= 0 && former != i {
		r.anchors[former].LeavesUntil = r.lastExpiry(r.anchors[former])
		r.anchors[former].Phase = v1alpha1.TrustAnchorRetiring
	}
	a := &r.anchors[i]
	shortened := a.MaxDuration != nil && a.MaxDuration.Duration > r.settings.MaxDuration
	if a.Phase == v1alpha1.TrustAnchorCurrent && shortened {
		a.LeavesUntil = r.lastExpiry(*a) // certificates issued so far live longer than later ones
	}
	a.Phase = v1alpha1.TrustAnchorCurrent
	a.MaxDuration = &metav1.Duration{Duration: r.settings.MaxDuration}
}

// lastExpiry returns when the last certificate that was issued until now expires.
func (r *rotation) lastExpiry(a v1alpha1.TrustAnchor) *metav1.Time {
	longest := r.settings.MaxDuration
	if a.MaxDuration != nil {
		longest = max(longest, a.MaxDuration.Duration)
	}
	until := r.now.Add(longest).Add(afterSwitch) // their sum can overflow
	if a.LeavesUntil != nil && a.LeavesUntil.After(until) {
		until = a.LeavesUntil.Time
	}
	if until.After(a.NotAfter.Time) {
		until = a.NotAfter.Time
	}
	return wholeSeconds(until)
}

// propagated reports whether an anchor has been published for the propagation period.
func (r *rotation) propagated(a v1alpha1.TrustAnchor) bool {
	return a.PublishedAt != nil && !r.now.Before(a.PublishedAt.Add(r.settings.Propagation))
}

func (r *rotation) signsFrom(a v1alpha1.TrustAnchor) string {
	if a.PublishedAt != nil {
		from := a.PublishedAt.Add(r.settings.Propagation)
		if !r.deadline.IsZero() && r.deadline.Before(from) {
			from = r.deadline
		}
		return "it signs from " + stamp(from)
	}
	text := fmt.Sprintf("it signs %v after it has been published everywhere, see the condition %s", r.settings.Propagation, v1alpha1.ConditionTrustPublished)
	if !r.deadline.IsZero() {
		text += ", and not later than " + stamp(r.deadline)
	}
	return text
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

func (r *rotation) current() int {
	return slices.IndexFunc(r.anchors, func(a v1alpha1.TrustAnchor) bool { return a.Phase == v1alpha1.TrustAnchorCurrent })
}

var phaseOrder = []v1alpha1.TrustAnchorPhase{v1alpha1.TrustAnchorCurrent, v1alpha1.TrustAnchorNext, v1alpha1.TrustAnchorRetiring}

// result returns the Rotation of the updated anchors.
func (r *rotation) result(signing *CA, problem *Problem) Rotation {
	slices.SortStableFunc(r.anchors, func(a, b v1alpha1.TrustAnchor) int {
		return slices.Index(phaseOrder, a.Phase) - slices.Index(phaseOrder, b.Phase)
	})
	out := Rotation{Anchors: r.anchors, Signing: signing, Problem: problem, Reason: v1alpha1.ReasonSettled, Message: "one CA is trusted"}
	if len(r.anchors) == 0 {
		out.Message = "no CA is trusted yet"
	}
	var retiring []string
	out.requeueAt(r.now, r.deadline)
	for _, a := range r.anchors {
		out.requeueAt(r.now, a.NotAfter.Time)
		switch a.Phase {
		case v1alpha1.TrustAnchorNext:
			out.Rotating, out.Reason, out.Message = true, v1alpha1.ReasonPublishing, fmt.Sprintf("%s: %s", nameOf(a), r.signsFrom(a))
			if a.PublishedAt != nil {
				out.Reason = v1alpha1.ReasonPropagating
				out.requeueAt(r.now, a.PublishedAt.Add(r.settings.Propagation))
			}
		case v1alpha1.TrustAnchorRetiring:
			until := publishedUntil(a)
			out.requeueAt(r.now, until)
			retiring = append(retiring, fmt.Sprintf("%s is published until %s, when its last certificate expires", nameOf(a), stamp(until)))
		case v1alpha1.TrustAnchorCurrent:
		}
	}
	if !out.Rotating && len(retiring) > 0 {
		out.Reason, out.Message = v1alpha1.ReasonOverlapping, strings.Join(retiring, "; ")
	}
	return out
}

// publishedUntil returns when a retiring anchor is removed.
func publishedUntil(a v1alpha1.TrustAnchor) time.Time {
	if a.LeavesUntil != nil {
		return a.LeavesUntil.Time
	}
	return a.NotAfter.Time
}

// nameOf returns the name of an anchor in messages. A managed CA has the same subject as the one before.
func nameOf(a v1alpha1.TrustAnchor) string { return fmt.Sprintf("%q (%.8s)", a.Subject, a.Fingerprint) }

// requeueAt moves RequeueAt forward to t, if t is in the future.
func (r *Rotation) requeueAt(now, t time.Time) {
	if t.After(now) && (r.RequeueAt.IsZero() || t.Before(r.RequeueAt)) {
		r.RequeueAt = t
	}
}

// Bundle returns the PEM of the anchors, in their order.
func Bundle(anchors []v1alpha1.TrustAnchor) []byte {
	var bundle []byte
	for _, a := range anchors {
		bundle = append(bundle, a.Certificate...)
	}
	return bundle
}

// Published sets PublishedAt of the anchors that are not recorded as published, and reports whether there are any.
func Published(anchors []v1alpha1.TrustAnchor, now time.Time) bool {
	changed := false
	for i := range anchors {
		// wholeSeconds rounds up by less than a second. A later time is of a clock that was ahead.
		if at := anchors[i].PublishedAt; at == nil || at.After(now.Add(time.Second)) {
			anchors[i].PublishedAt = wholeSeconds(now)
			changed = true
		}
	}
	return changed
}

// wholeSeconds rounds up to the resolution of a metav1.Time in the API.
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
