// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
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

// changed is the data of a Secret after a patch.
func changed(data, change map[string][]byte) map[string][]byte {
	after := map[string][]byte{}
	for _, from := range []map[string][]byte{data, change} {
		for key, value := range from {
			if after[key] = value; value == nil {
				delete(after, key)
			}
		}
	}
	return after
}

func TestManaged_replace(t *testing.T) {
	root := authority(t, "Root", func(c *x509.Certificate) { c.MaxPathLen = 1; c.NotAfter = now.AddDate(0, 0, 60) })
	tests := map[string]struct {
		spec    *v1alpha1.ManagedCA
		root    *CA
		check   func(*testing.T, *x509.Certificate)
		problem string
	}{
		"ECDSA P-256 by default": {spec: managedSpec(nil), check: func(t *testing.T, c *x509.Certificate) {
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
		"ECDSA P-384": {spec: managedSpec(func(s *v1alpha1.ManagedCA) { s.KeyAlgorithm = v1alpha1.KeyECDSAP384 }), check: func(t *testing.T, c *x509.Certificate) {
			if key, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve.Params().BitSize != 384 {
				t.Errorf("key is %T", c.PublicKey)
			}
		}},
		"Ed25519": {spec: managedSpec(func(s *v1alpha1.ManagedCA) { s.KeyAlgorithm = v1alpha1.KeyEd25519 }), check: func(t *testing.T, c *x509.Certificate) {
			if _, ok := c.PublicKey.(ed25519.PublicKey); !ok {
				t.Errorf("key is %T", c.PublicKey)
			}
		}},
		"RSA": {spec: managedSpec(func(s *v1alpha1.ManagedCA) { s.KeyAlgorithm = v1alpha1.KeyRSA3072 }), check: func(t *testing.T, c *x509.Certificate) {
			if key, ok := c.PublicKey.(*rsa.PublicKey); !ok || key.N.BitLen() != 3072 {
				t.Errorf("key is %T", c.PublicKey)
			}
		}},
		"another algorithm": {
			spec:    managedSpec(func(s *v1alpha1.ManagedCA) { s.KeyAlgorithm = "DSA" }),
			problem: `InvalidCA: spec.ca.managed.keyAlgorithm is "DSA": use one of [ECDSA-P256 ECDSA-P384 Ed25519 RSA-2048 RSA-3072 RSA-4096]`,
		},
		"an intermediate ends with its root": {spec: managedSpec(nil), root: root, check: func(t *testing.T, c *x509.Certificate) {
			if err := c.CheckSignatureFrom(root.certificate); err != nil || !c.NotAfter.Equal(root.NotAfter()) {
				t.Errorf("%v; ends at %v", err, c.NotAfter)
			}
		}},
		"a root below which no CA may stand": {
			spec: managedSpec(nil), root: authority(t, "Narrow", func(c *x509.Certificate) { c.MaxPathLenZero = true }),
			problem: `InvalidCA: the certificate "CN=Narrow" lets at most 0 CAs stand below it, and there are 1: have the lower ones issued by a CA with a longer path length, or sign with a higher one`,
		},
		"name constraints": {
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
		"a wildcard": {
			spec: managedSpec(func(s *v1alpha1.ManagedCA) {
				s.NameConstraints = &v1alpha1.NameConstraints{ExcludedDNSDomains: []string{"*.kube-system.svc"}}
			}),
			problem: `InvalidCA: spec.ca.managed.nameConstraints.excludedDNSDomains has "*.kube-system.svc": write a lower-case DNS name, such as svc.cluster.local; a DNS name covers all below it, without a wildcard`,
		},
		"a URI in place of its host": {
			spec: managedSpec(func(s *v1alpha1.ManagedCA) {
				s.NameConstraints = &v1alpha1.NameConstraints{PermittedURIDomains: []string{"spiffe://cluster.local"}}
			}),
			problem: `InvalidCA: spec.ca.managed.nameConstraints.permittedURIDomains has "spiffe://cluster.local": write a lower-case DNS name, such as svc.cluster.local; a DNS name covers all below it, without a wildcard`,
		},
		"an address range that is none": {
			spec: managedSpec(func(s *v1alpha1.ManagedCA) {
				s.NameConstraints = &v1alpha1.NameConstraints{ExcludedIPRanges: []string{"10.0.0.1"}}
			}),
			problem: `InvalidCA: spec.ca.managed.nameConstraints.excludedIPRanges has "10.0.0.1": write it as 10.0.0.0/8 or fd00::/8`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			change, err := Managed{}.Replace(now, Situation{Spec: test.spec, Root: test.root})
			if got := describeProblem(err); got != test.problem {
				t.Fatalf("got %q, want %q", got, test.problem)
			}
			if test.problem != "" {
				return
			}
			m, err := LoadManaged(changed(nil, change))
			if err != nil || m.Previous != nil {
				t.Fatalf("got %v, with a previous CA: %v", err, m.Previous != nil)
			}
			test.check(t, m.Newest.Certificate())
		})
	}
}

func describeProblem(err error) string {
	if problem, ok := errors.AsType[*Problem](err); ok {
		return problem.Reason + ": " + problem.Message
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func TestManaged_next(t *testing.T) {
	one, two := authority(t, "One", nil), authority(t, "Two", nil)
	soon := authority(t, "Soon", func(c *x509.Certificate) { c.NotAfter = now.AddDate(0, 0, 30) })
	ended := authority(t, "Ended", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Hour) })
	root, renewed := authority(t, "Root", nil), authority(t, "Renewed", nil)
	short := authority(t, "Short", func(c *x509.Certificate) { c.NotAfter = now.AddDate(0, 0, 31) })
	lower := below(t, root, "Lower", nil)
	last := below(t, short, "Last", func(c *x509.Certificate) { c.NotAfter = short.NotAfter().AddDate(0, 0, -1) })
	spec, rooted := managedSpec(nil), managedSpec(func(s *v1alpha1.ManagedCA) { s.RootRef = &v1alpha1.LocalObjectReference{Name: "root"} })
	id := func(c *CA) string { return fingerprint(c.Anchor()) }

	tests := map[string]struct {
		kept Managed
		in   Situation
		want string
	}{
		"none yet":              {Managed{}, Situation{Spec: spec}, "Make: there was none"},
		"young":                 {Managed{Newest: one}, Situation{Spec: spec, Current: id(one)}, "Keep"},
		"asked for":             {Managed{Newest: one}, Situation{Spec: spec, Current: id(one), Asked: true}, "Make: it was asked for with the annotation countersign.dev/rotate"},
		"old":                   {Managed{Newest: soon}, Situation{Spec: spec, Current: id(soon)}, `Make: "CN=Soon" expires at 2026-03-31T12:00:00Z`},
		"ended":                 {Managed{Newest: ended}, Situation{Spec: spec, Current: id(ended)}, `Make: "CN=Ended" expires at 2026-03-01T11:00:00Z`},
		"the next one waits":    {Managed{Newest: two, Previous: one}, Situation{Spec: spec, Current: id(one)}, "Keep"},
		"and is not made twice": {Managed{Newest: two, Previous: one}, Situation{Spec: spec, Current: id(one), Asked: true}, "Keep"},
		"the next one signs":    {Managed{Newest: two, Previous: one}, Situation{Spec: spec, Current: id(two)}, "Settle"},
		"the next one waits, without the one before":  {Managed{Newest: two}, Situation{Spec: spec, Current: id(one), Asked: true}, "Keep"},
		"the next one has ended before it could sign": {Managed{Newest: ended, Previous: one}, Situation{Spec: spec, Current: id(one)}, `Make: "CN=Ended" has expired before it signed`},
		"the next one cannot issue":                   {Managed{Newest: two, Previous: one}, Situation{Spec: spec, Current: id(one), Unfit: true}, "Keep"},
		"and another is asked for":                    {Managed{Newest: two, Previous: one}, Situation{Spec: spec, Current: id(one), Unfit: true, Asked: true}, "Make: it was asked for, and the newest cannot issue"},
		"lost":                                        {Managed{}, Situation{Spec: spec, Current: id(one)}, "Make: the one before is lost with its Secret"},
		"that before it has ended":                    {Managed{Newest: two, Previous: ended}, Situation{Spec: spec, Current: id(ended)}, "Settle"},
		"distrusted":                                  {Managed{Newest: one}, Situation{Spec: spec, Current: id(one), Distrusted: []string{id(one)}}, `Make: "CN=One" is listed in spec.trust.distrusted`},
		"distrusted before it signs":                  {Managed{Newest: two, Previous: one}, Situation{Spec: spec, Current: id(one), Distrusted: []string{id(two)}}, `Make: "CN=Two" is listed in spec.trust.distrusted`},
		"below its root":                              {Managed{Newest: lower}, Situation{Spec: rooted, Root: root, Current: id(root)}, "Keep"},
		"the root is renewed":                         {Managed{Newest: lower}, Situation{Spec: rooted, Root: renewed, Current: id(root)}, `Make: the root is another one now, "CN=Renewed"`},
		"the root cannot be had":                      {Managed{Newest: lower}, Situation{Spec: rooted, Current: id(root)}, "Keep"},
		"the root is distrusted":                      {Managed{Newest: lower}, Situation{Spec: rooted, Root: root, Current: id(root), Distrusted: []string{id(root)}}, `CADistrusted: the root "CN=Root" is listed in spec.trust.distrusted: put another root in the Secret root`},
		"the root ends not much later":                {Managed{Newest: last}, Situation{Spec: rooted, Root: short, Current: id(short)}, `RotationFailed: "CN=Last" expires at 2026-03-31T12:00:00Z, and its root not much later: put a renewed root in the Secret root`},
		"next below the same root: no wait":           {Managed{Newest: lower, Previous: below(t, root, "Lower0", nil)}, Situation{Spec: rooted, Root: root, Current: id(root)}, "Settle"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			next, why, err := test.kept.Next(now, test.in)
			got := string(next)
			if why != "" {
				got += ": " + why
			}
			if err != nil {
				got = describeProblem(err)
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestLoadManaged(t *testing.T) {
	one := authority(t, "One", nil)
	cert, key, err := one.encode()
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		data map[string][]byte
		want string
	}{
		"empty":                 {nil, ""},
		"whole":                 {map[string][]byte{corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key}, ""},
		"the key is gone":       {map[string][]byte{corev1.TLSCertKey: cert}, "InvalidCA: tls.key is missing or empty: put both tls.crt and tls.key there, as 'kubectl create secret tls' does"},
		"garbage":               {map[string][]byte{corev1.TLSCertKey: []byte("x"), corev1.TLSPrivateKeyKey: key}, "InvalidCA: tls.crt holds no PEM block: is it DER, or encoded in base64 twice?"},
		"garbage before it":     {map[string][]byte{corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key, previousCert: []byte("x")}, "InvalidCA: of previous.crt and previous.key: tls.crt holds no PEM block: is it DER, or encoded in base64 twice?"},
		"another key before it": {map[string][]byte{corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key, previousCert: cert}, "InvalidCA: of previous.crt and previous.key: tls.key is missing or empty: put both tls.crt and tls.key there, as 'kubectl create secret tls' does"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := LoadManaged(test.data); describeProblem(err) != test.want {
				t.Errorf("got %q, want %q", describeProblem(err), test.want)
			}
		})
	}
}

// TestManaged_years lives through ten years of 90 days each, looking once a day, without a
// day on which a CA that clients do not know signs, or none does.
func TestManaged_years(t *testing.T) {
	spec := managedSpec(nil)
	settings := Settings{MaxDuration: 24 * time.Hour, Propagation: time.Hour}
	var secret map[string][]byte
	var record []v1alpha1.TrustAnchor
	made, signed := 0, map[string]bool{}
	for day := range 3650 {
		at := now.AddDate(0, 0, day)
		for range 3 { // as often as its own changes bring the Signer back
			kept, err := LoadManaged(secret)
			if err != nil {
				t.Fatal(err)
			}
			in := Situation{Spec: spec}
			for _, a := range record {
				if a.Phase == v1alpha1.TrustAnchorCurrent {
					in.Current = a.Fingerprint
				}
			}
			next, _, err := kept.Next(at, in)
			if err != nil {
				t.Fatal(err)
			}
			switch next {
			case Make:
				change, err := kept.Replace(at, in)
				if err != nil {
					t.Fatal(err)
				}
				secret = changed(secret, change)
				made++
				continue
			case Settle:
				secret = changed(secret, Settled())
			case Keep:
			}
			rotation := Rotate(at, record, kept.Newest, kept.Previous, settings)
			if rotation.Signing == nil || rotation.Signing.ValidAt(at, 0) != nil {
				t.Fatalf("day %d: %s signs; %s", day, nameOf(rotation.Signing), phases(rotation.Anchors))
			}
			id := rotation.Signing.Fingerprint()
			known := false
			for _, a := range record {
				known = known || a.Fingerprint == id && a.PublishedAt != nil && !at.Before(a.PublishedAt.Add(settings.Propagation))
			}
			if len(record) > 0 && !known && !signed[id] {
				t.Fatalf("day %d: a CA signs that clients do not know: %s", day, phases(rotation.Anchors))
			}
			signed[id] = true
			if record = stored(t, rotation.Anchors); len(record) > 2 {
				t.Fatalf("day %d: %s", day, phases(record))
			}
			Published(record, at)
		}
	}
	if made != len(signed) || made < 3650/60 || made > 3650/60+1 {
		t.Errorf("%d CAs were made, %d signed, in ten years of 60 days each", made, len(signed))
	}
}

func TestManaged_changed(t *testing.T) {
	spec := managedSpec(func(s *v1alpha1.ManagedCA) {
		s.NameConstraints = &v1alpha1.NameConstraints{PermittedDNSDomains: []string{"svc.cluster.local"}}
	})
	data, err := Managed{}.Replace(now, Situation{Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	made, err := LoadManaged(changed(nil, data))
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*v1alpha1.ManagedCA){
		"":             func(s *v1alpha1.ManagedCA) { s.Duration = nil },
		"commonName":   func(s *v1alpha1.ManagedCA) { s.CommonName = "Another" },
		"keyAlgorithm": func(s *v1alpha1.ManagedCA) { s.KeyAlgorithm = v1alpha1.KeyEd25519 },
		"commonName, nameConstraints": func(s *v1alpha1.ManagedCA) {
			s.CommonName, s.NameConstraints = "Another", nil
		},
	} {
		edited := spec.DeepCopy()
		change(edited)
		if got, err := made.Changed(now, edited); got != want || err != nil {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
}
