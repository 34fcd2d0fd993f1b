// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"fmt"
	"slices"
	"time"

	"countersign.dev/countersign/api/v1alpha1"
)

const (
	defaultDuration = 365 * 24 * time.Hour
	// minGain is the part of its lifetime by which the next CA must outlive the newest one: an intermediate
	// ends with its root, so a next CA can be useless.
	minGain = 10
	// maxAnchors limits the CAs that are published at the same time. A rotation on request waits until one retires.
	maxAnchors = 16
)

// Managed are the CAs that Countersign has created for a Signer and still needs.
type Managed struct {
	// Newest is the CA created last; nil if there is none.
	Newest *CA
	// Previous is the CA before Newest. It is kept until Newest is allowed to sign, and nil otherwise.
	Previous *CA
}

// Step is the next step in the life of a managed CA.
type Step string

// The steps.
const (
	// Keep changes nothing.
	Keep Step = "Keep"
	// Create creates the next CA, which becomes the newest.
	Create Step = "Create"
	// DropPrevious deletes the previous CA. The status says that the newest signs.
	DropPrevious Step = "DropPrevious"
)

// Situation is the input of [Managed.Next], beside the CAs.
type Situation struct {
	Spec *v1alpha1.ManagedCA
	// Root issues the CA if the CA is an intermediate. It is nil for a root, or if the root cannot be loaded.
	Root *CA
	// Current is the fingerprint of the trust anchor that signs, by the status of the Signer.
	Current string
	// Signs is the fingerprint of the CA certificate that signs, by the status of the Signer; "" if none does.
	Signs string
	// Anchors is the number of CAs that are published.
	Anchors int
	// Distrusted are fingerprints of CA certificates.
	Distrusted []string
	// Requested is true if the Signer is annotated to rotate now.
	Requested bool
	// Unfit is true if the newest CA cannot issue certificates of the Signer's profile.
	Unfit bool
}

// Next returns the step to take at now, and the reason to create a CA. It returns a Problem if the next CA is
// required, but its root is distrusted or expires too soon.
func (m Managed) Next(now time.Time, in Situation) (Step, string, *Problem) {
	if in.Root != nil && in.Root.Distrusted(in.Distrusted) {
		return Keep, "", Problemf(v1alpha1.ReasonCADistrusted, "the root %q is listed in spec.trust.distrusted: put another root into Secret %s",
			in.Root.certificate.Subject, in.Spec.RootRef.Name)
	}
	if m.Newest == nil || m.Newest.Distrusted(in.Distrusted) {
		return Create, m.whyUnusable(in), nil
	}
	notYetSigning := m.Previous != nil && m.Newest.Fingerprint() != in.Signs
	if notYetSigning || m.awaitsPropagation(now, in) {
		return createIf(m.whyReplacePropagating(now, in))
	}
	if m.Previous != nil { // it no longer signs
		return DropPrevious, "", nil
	}
	early := now.Before(m.RenewAt(in.Spec)) && !in.hasOtherRoot(m.Newest)
	if early && in.Requested && in.Anchors >= maxAnchors {
		return Keep, "", Problemf(v1alpha1.ReasonRotationFailed,
			"%d CAs are published, the limit: the rotation that the annotation %s requests waits until one of them retires, see status.trustAnchors", in.Anchors, v1alpha1.RotateAnnotation)
	}
	if why := m.whyReplace(in); why != "" || early {
		return createIf(why)
	}
	c := m.Newest
	if in.Root != nil && in.Root.NotAfter().Before(c.NotAfter().Add(durationOf(in.Spec)/minGain)) {
		return Keep, "", Problemf(v1alpha1.ReasonRotationFailed, "%q expires at %s, and its root soon after: put a renewed root into Secret %s",
			c.certificate.Subject, stamp(c.NotAfter()), in.Spec.RootRef.Name)
	}
	return Create, fmt.Sprintf("%q expires at %s", c.certificate.Subject, stamp(c.NotAfter())), nil
}

func createIf(why string) (Step, string, *Problem) {
	if why == "" {
		return Keep, "", nil
	}
	return Create, why, nil
}

// whyUnusable returns why there is no newest CA that can be kept.
func (m Managed) whyUnusable(in Situation) string {
	switch {
	case m.Newest != nil:
		return fmt.Sprintf("%q is listed in spec.trust.distrusted", m.Newest.certificate.Subject)
	case in.Current != "":
		return "the previous CA was lost with its Secret"
	default:
		return "there was no CA"
	}
}

// awaitsPropagation reports whether the newest CA does not sign yet, and another one does.
func (m Managed) awaitsPropagation(now time.Time, in Situation) bool {
	otherSigns := in.Current != "" && !m.Newest.AnchoredBy(in.Current)
	return otherSigns && (m.Previous == nil || m.Previous.ValidAt(now, 0) == nil)
}

// whyReplacePropagating returns why the newest CA is replaced before it signs, or "".
func (m Managed) whyReplacePropagating(now time.Time, in Situation) string {
	c := m.Newest
	switch {
	case !now.Before(c.NotAfter()):
		return fmt.Sprintf("%q expired before it signed", c.certificate.Subject)
	case in.hasOtherRoot(c):
		return in.rootChanged()
	case in.Requested && in.Unfit:
		return "the annotation " + v1alpha1.RotateAnnotation + " requested it, and the newest CA cannot issue"
	default:
		return ""
	}
}

// whyReplace returns why the newest CA is replaced before RenewAt, or "".
func (m Managed) whyReplace(in Situation) string {
	switch {
	case in.Requested:
		return "the annotation " + v1alpha1.RotateAnnotation + " requested it"
	case in.hasOtherRoot(m.Newest):
		return in.rootChanged()
	default:
		return ""
	}
}

// hasOtherRoot reports whether a CA is not below Root.
func (in Situation) hasOtherRoot(c *CA) bool {
	return in.Root != nil && !slices.ContainsFunc(c.issuers, in.Root.certificate.Equal)
}

func (in Situation) rootChanged() string {
	return fmt.Sprintf("the root changed to %q", in.Root.certificate.Subject)
}

// RenewAt returns when the newest CA is replaced: renewBefore ahead of its end, and not before a tenth of its
// lifetime has passed.
func (m Managed) RenewAt(spec *v1alpha1.ManagedCA) time.Time {
	end := m.Newest.NotAfter()
	before := RenewBefore(spec)
	if spec.RenewBefore == nil {
		before = min(before, end.Sub(m.Newest.NotBefore())/3) // its root can have shortened it
	}
	before = min(before, durationOf(spec)/10*9)
	return end.Add(-before)
}

// RenewBefore returns how long before its end a managed CA is replaced.
func RenewBefore(spec *v1alpha1.ManagedCA) time.Duration {
	if spec.RenewBefore != nil {
		return spec.RenewBefore.Duration
	}
	return durationOf(spec) / 3
}

func durationOf(spec *v1alpha1.ManagedCA) time.Duration {
	if spec.Duration != nil {
		return spec.Duration.Duration
	}
	return defaultDuration
}

// Outgoing returns the CA to keep as the previous one when another becomes the newest: the one that signs,
// or nil if it is no longer usable.
func (m Managed) Outgoing(now time.Time, distrusted []string) *CA {
	usable := func(c *CA) bool { return c != nil && !c.Distrusted(distrusted) && c.ValidAt(now, 0) == nil }
	signs := m.Newest
	if m.Previous != nil || !usable(signs) {
		signs = m.Previous
	}
	if !usable(signs) {
		return nil
	}
	return signs
}
