// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
)

func managedSpec(change func(*v1alpha1.ManagedCA)) *v1alpha1.ManagedCA {
	spec := &v1alpha1.ManagedCA{
		SecretName: "serving-ca", CommonName: "Example",
		Duration: &metav1.Duration{Duration: 90 * 24 * time.Hour}, RenewBefore: &metav1.Duration{Duration: 30 * 24 * time.Hour},
	}
	if change != nil {
		change(spec)
	}
	return spec
}

func TestGenerate(t *testing.T) {
	root := authority(t, "Root", func(c *x509.Certificate) { c.MaxPathLen = 1; c.NotAfter = now.AddDate(0, 0, 60) })
	tests := []struct {
		name    string
		spec    *v1alpha1.ManagedCA
		root    *CA
		check   func(*testing.T, *x509.Certificate)
		problem string
	}{
		{name: "a root", spec: managedSpec(nil), check: func(t *testing.T, c *x509.Certificate) {
			if key, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve.Params().BitSize != 256 {
				t.Errorf("key is %T", c.PublicKey)
			}
			if want := now.AddDate(0, 0, 90); !c.NotAfter.Equal(want) || !c.NotBefore.Equal(now.Add(-caBackdate)) {
				t.Errorf("valid from %v to %v", c.NotBefore, c.NotAfter)
			}
			if c.Subject.String() != "CN=Example" || c.Issuer.String() != "CN=Example" || !c.IsCA || !c.MaxPathLenZero || c.MaxPathLen != 0 ||
				c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || len(c.SubjectKeyId) != 20 || c.SerialNumber.BitLen() < 64 {
				t.Errorf("certificate is %+v", c)
			}
		}},
		{name: "an intermediate expires with its root", spec: managedSpec(nil), root: root, check: func(t *testing.T, c *x509.Certificate) {
			if err := c.CheckSignatureFrom(root.certificate); err != nil || !c.NotAfter.Equal(root.NotAfter()) {
				t.Errorf("%v; ends at %v", err, c.NotAfter)
			}
		}},
		{
			name: "a root that allows no CA below it",
			spec: managedSpec(nil), root: authority(t, "Narrow", func(c *x509.Certificate) { c.MaxPathLenZero = true }),
			problem: `InvalidCA: the certificate "CN=Narrow" allows at most 0 CAs below it, and there are 1: use an issuer with a longer path length, or sign with a CA further up`,
		},
		{
			name: "name constraints",
			spec: managedSpec(func(s *v1alpha1.ManagedCA) {
				s.NameConstraints = &v1alpha1.NameConstraints{
					PermittedDNSDomains: []string{"svc.cluster.local"}, ExcludedDNSDomains: []string{"kube-system.svc.cluster.local"},
					PermittedIPRanges: []string{"10.0.0.0/8", "fd00::/8"}, ExcludedIPRanges: []string{"10.1.0.0/16"},
					PermittedURIDomains: []string{"cluster.local"}, ExcludedURIDomains: []string{".example.com"},
				}
			}),
			check: func(t *testing.T, c *x509.Certificate) {
				show := func(ranges []*net.IPNet) string { return fmt.Sprint(ranges) }
				got := []string{
					fmt.Sprint(c.PermittedDNSDomainsCritical), fmt.Sprint(c.PermittedDNSDomains), fmt.Sprint(c.ExcludedDNSDomains),
					show(c.PermittedIPRanges), show(c.ExcludedIPRanges), fmt.Sprint(c.PermittedURIDomains), fmt.Sprint(c.ExcludedURIDomains),
				}
				want := []string{"true", "[svc.cluster.local]", "[kube-system.svc.cluster.local]", "[10.0.0.0/8 fd00::/8]", "[10.1.0.0/16]", "[cluster.local]", "[.example.com]"}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("constraints (-want +got):\n%s", diff)
				}
			},
		},
		{
			name: "a wildcard",
			spec: managedSpec(func(s *v1alpha1.ManagedCA) {
				s.NameConstraints = &v1alpha1.NameConstraints{ExcludedDNSDomains: []string{"*.kube-system.svc"}}
			}),
			problem: `InvalidCA: spec.ca.managed.nameConstraints.excludedDNSDomains contains "*.kube-system.svc": use a lower-case DNS name without wildcard, such as svc.cluster.local; it includes all names below it`,
		},
		{
			name: "a URI in place of its host",
			spec: managedSpec(func(s *v1alpha1.ManagedCA) {
				s.NameConstraints = &v1alpha1.NameConstraints{PermittedURIDomains: []string{"spiffe://cluster.local"}}
			}),
			problem: `InvalidCA: spec.ca.managed.nameConstraints.permittedURIDomains contains "spiffe://cluster.local": use a lower-case DNS name without wildcard, such as svc.cluster.local; it includes all names below it`,
		},
		{
			name: "an address instead of a range",
			spec: managedSpec(func(s *v1alpha1.ManagedCA) {
				s.NameConstraints = &v1alpha1.NameConstraints{ExcludedIPRanges: []string{"10.0.0.1"}}
			}),
			problem: `InvalidCA: spec.ca.managed.nameConstraints.excludedIPRanges contains "10.0.0.1": use a range such as 10.0.0.0/8 or fd00::/8`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, problem, err := Generate(t.Context(), now, test.spec, test.root, ecKey(t, elliptic.P256()))
			if err != nil {
				t.Fatal(err)
			}
			if got := describeProblem(problem); got != test.problem {
				t.Fatalf("got %q, want %q", got, test.problem)
			}
			if checked := CheckSpec(test.spec); checked != nil && (problem == nil || *checked != *problem) {
				t.Errorf("CheckSpec returns %q, Generate %q", describeProblem(checked), test.problem)
			}
			if test.problem != "" {
				return
			}
			if _, problem := load(c.EncodeCertificates(), keyPEM(t, c.key)); problem != nil {
				t.Errorf("loading the CA again: %v", problem)
			}
			test.check(t, c.Certificate())
		})
	}
}

func describeProblem(problem *Problem) string {
	if problem == nil {
		return ""
	}
	return problem.Reason + ": " + problem.Message
}

func TestManaged_next(t *testing.T) {
	one, two := authority(t, "One", nil), authority(t, "Two", nil)
	expiring := authority(t, "Soon", func(c *x509.Certificate) { c.NotAfter = now.AddDate(0, 0, 30) })
	ended := authority(t, "Ended", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Hour) })
	root, renewed := authority(t, "Root", nil), authority(t, "Renewed", nil)
	short := authority(t, "Short", func(c *x509.Certificate) { c.NotAfter = now.AddDate(0, 0, 31) })
	lower, lower2 := below(t, root, "Lower", nil), below(t, root, "Lower2", nil)
	last := below(t, short, "Last", func(c *x509.Certificate) { c.NotAfter = short.NotAfter().AddDate(0, 0, -1) })
	spec, rooted := managedSpec(nil), managedSpec(func(s *v1alpha1.ManagedCA) { s.RootRef = &v1alpha1.LocalObjectReference{Name: "root"} })
	id := func(c *CA) string { return fingerprint(c.Anchor()) }

	tests := []struct {
		name string
		cas  Managed
		in   Situation
		want string
	}{
		{"none yet", Managed{}, Situation{Spec: spec}, "Create: there was no CA"},
		{"young", Managed{Newest: one}, Situation{Spec: spec, Current: id(one)}, "Keep"},
		{"asked for", Managed{Newest: one}, Situation{Spec: spec, Current: id(one), Requested: true}, "Create: the annotation countersign.dev/rotate requested it"},
		{"asked for, while as many are published as allowed", Managed{Newest: one}, Situation{Spec: spec, Current: id(one), Requested: true, Anchors: maxAnchors}, "RotationFailed: 16 CAs are published, the limit: the rotation that the annotation countersign.dev/rotate requests waits until one of them retires, see status.trustAnchors"},
		{"as many are published as allowed", Managed{Newest: one}, Situation{Spec: spec, Current: id(one), Anchors: maxAnchors}, "Keep"},
		{"old, while as many are published as allowed", Managed{Newest: expiring}, Situation{Spec: spec, Current: id(expiring), Anchors: maxAnchors, Requested: true}, "Create: the annotation countersign.dev/rotate requested it"},
		{"old", Managed{Newest: expiring}, Situation{Spec: spec, Current: id(expiring)}, `Create: "CN=Soon" expires at 2026-03-31T12:00:00Z`},
		{"ended", Managed{Newest: ended}, Situation{Spec: spec, Current: id(ended)}, `Create: "CN=Ended" expires at 2026-03-01T11:00:00Z`},
		{"the next one waits", Managed{Newest: two, Previous: one}, Situation{Spec: spec, Current: id(one)}, "Keep"},
		{"and is not created twice", Managed{Newest: two, Previous: one}, Situation{Spec: spec, Current: id(one), Requested: true}, "Keep"},
		{"the next one signs", Managed{Newest: two, Previous: one}, Situation{Spec: spec, Current: id(two), Signs: two.Fingerprint()}, "DropPrevious"},
		{"the next one is allowed to sign, and does not yet", Managed{Newest: two, Previous: one}, Situation{Spec: spec, Current: id(two), Signs: one.Fingerprint()}, "Keep"},
		{"the next one signs, and the root changed", Managed{Newest: lower2, Previous: lower}, Situation{Spec: rooted, Root: renewed, Current: id(root), Signs: lower2.Fingerprint()}, "DropPrevious"},
		{"the next one waits, without the one before", Managed{Newest: two}, Situation{Spec: spec, Current: id(one), Requested: true}, "Keep"},
		{"the next one has ended before it could sign", Managed{Newest: ended, Previous: one}, Situation{Spec: spec, Current: id(one)}, `Create: "CN=Ended" expired before it signed`},
		{"the next one cannot issue", Managed{Newest: two, Previous: one}, Situation{Spec: spec, Current: id(one), Unfit: true}, "Keep"},
		{"and another is asked for", Managed{Newest: two, Previous: one}, Situation{Spec: spec, Current: id(one), Unfit: true, Requested: true}, "Create: the annotation countersign.dev/rotate requested it, and the newest CA cannot issue"},
		{"lost", Managed{}, Situation{Spec: spec, Current: id(one)}, "Create: the previous CA was lost with its Secret"},
		{"that before it has ended", Managed{Newest: two, Previous: ended}, Situation{Spec: spec, Current: id(ended), Signs: two.Fingerprint()}, "DropPrevious"},
		{"that before it has ended, and the next one does not sign yet", Managed{Newest: two, Previous: ended}, Situation{Spec: spec, Current: id(ended)}, "Keep"},
		{"distrusted", Managed{Newest: one}, Situation{Spec: spec, Current: id(one), Distrusted: []string{id(one)}}, `Create: "CN=One" is listed in spec.trust.distrusted`},
		{"distrusted before it signs", Managed{Newest: two, Previous: one}, Situation{Spec: spec, Current: id(one), Distrusted: []string{id(two)}}, `Create: "CN=Two" is listed in spec.trust.distrusted`},
		{"below its root", Managed{Newest: lower}, Situation{Spec: rooted, Root: root, Current: id(root)}, "Keep"},
		{"the root is renewed", Managed{Newest: lower}, Situation{Spec: rooted, Root: renewed, Current: id(root)}, `Create: the root changed to "CN=Renewed"`},
		{"the root cannot be loaded", Managed{Newest: lower}, Situation{Spec: rooted, Current: id(root)}, "Keep"},
		{"the root is distrusted", Managed{Newest: lower}, Situation{Spec: rooted, Root: root, Current: id(root), Distrusted: []string{id(root)}}, `CADistrusted: the root "CN=Root" is listed in spec.trust.distrusted: put another root into Secret root`},
		{"the root ends not much later", Managed{Newest: last}, Situation{Spec: rooted, Root: short, Current: id(short)}, `RotationFailed: "CN=Last" expires at 2026-03-31T12:00:00Z, and its root soon after: put a renewed root into Secret root`},
		{"next below the same root: no wait", Managed{Newest: lower2, Previous: lower}, Situation{Spec: rooted, Root: root, Current: id(root), Signs: lower2.Fingerprint()}, "DropPrevious"},
		{"next below the same root, and the process still signs with the one before", Managed{Newest: lower2, Previous: lower}, Situation{Spec: rooted, Root: root, Current: id(root), Signs: lower.Fingerprint()}, "Keep"},
		{"next below the same root cannot issue", Managed{Newest: lower2, Previous: lower}, Situation{Spec: rooted, Root: root, Current: id(root), Unfit: true}, "Keep"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			next, why, problem := test.cas.Next(now, test.in)
			got := string(next)
			if why != "" {
				got += ": " + why
			}
			if problem != nil {
				got = describeProblem(problem)
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestManaged_years lives through ten years of 90 days each, looking once a day, without a
// day on which a CA that clients do not know signs, or none does.
func TestManaged_years(t *testing.T) {
	spec := managedSpec(nil)
	settings := Settings{MaxDuration: 24 * time.Hour, Propagation: time.Hour}
	var cas Managed
	var record []v1alpha1.TrustAnchor
	count, signs, signed := 0, "", map[string]bool{}
	for day := range 3650 {
		at := now.AddDate(0, 0, day)
		for range 3 { // as often as its own changes bring the Signer back
			in := Situation{Spec: spec, Signs: signs}
			for _, a := range record {
				if a.Phase == v1alpha1.TrustAnchorCurrent {
					in.Current = a.Fingerprint
				}
			}
			next, _, problem := cas.Next(at, in)
			if problem != nil {
				t.Fatal(problem)
			}
			switch next {
			case Create:
				created, problem, err := Generate(t.Context(), at, spec, nil, ecKey(t, elliptic.P256()))
				if problem != nil || err != nil {
					t.Fatal(problem, err)
				}
				cas = Managed{Newest: created, Previous: cas.Outgoing(at, nil)}
				count++
				continue
			case DropPrevious:
				cas.Previous = nil
			case Keep:
			}
			rotation := Rotate(at, record, cas.Newest, cas.Previous, settings)
			if rotation.Signing == nil || rotation.Signing.ValidAt(at, 0) != nil {
				t.Fatalf("day %d: %s signs; %s", day, commonName(rotation.Signing), phases(rotation.Anchors))
			}
			id := rotation.Signing.Fingerprint()
			known := false
			for _, a := range record {
				known = known || a.Fingerprint == id && a.PublishedAt != nil && !at.Before(a.PublishedAt.Add(settings.Propagation))
			}
			if len(record) > 0 && !known && !signed[id] {
				t.Fatalf("day %d: a CA signs that clients do not know: %s", day, phases(rotation.Anchors))
			}
			signs, signed[id] = id, true
			if record = stored(t, rotation.Anchors); len(record) > 2 {
				t.Fatalf("day %d: %s", day, phases(record))
			}
			Published(record, at)
		}
	}
	if count != len(signed) || count < 3650/60 || count > 3650/60+1 {
		t.Errorf("%d CAs were created, %d signed, in ten years of 60 days each", count, len(signed))
	}
}

func TestManaged_changed(t *testing.T) {
	spec := managedSpec(func(s *v1alpha1.ManagedCA) {
		s.NameConstraints = &v1alpha1.NameConstraints{PermittedDNSDomains: []string{"svc.cluster.local"}}
	})
	created, problem, err := Generate(t.Context(), now, spec, nil, ecKey(t, elliptic.P256()))
	if problem != nil || err != nil {
		t.Fatal(problem, err)
	}
	managed := Managed{Newest: created}
	for _, test := range []struct {
		want string
		edit func(*v1alpha1.ManagedCA)
	}{
		{"", func(s *v1alpha1.ManagedCA) { s.Duration = nil }},
		{"commonName", func(s *v1alpha1.ManagedCA) { s.CommonName = "Another" }},
		{"keyAlgorithm", func(s *v1alpha1.ManagedCA) { s.KeyAlgorithm = v1alpha1.KeyEd25519 }},
		{"commonName, nameConstraints", func(s *v1alpha1.ManagedCA) { s.CommonName, s.NameConstraints = "Another", nil }},
	} {
		edited := spec.DeepCopy()
		test.edit(edited)
		if got, problem := managed.Changed(now, edited); got != test.want || problem != nil {
			t.Errorf("got %q, %v; want %q", got, problem, test.want)
		}
	}
}
