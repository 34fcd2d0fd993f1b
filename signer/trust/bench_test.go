// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"fmt"
	"testing"
)

// BenchmarkPublish_unchanged measures a publication in 10,000 namespaces that have the bundle. Any user of one of them can
// cause two a second.
func BenchmarkPublish_unchanged(b *testing.B) {
	signer := newSigner(false)
	t := target{kind: kindConfigMap, name: mapped, signer: signer, key: "ca.crt", content: bundle, digest: digestOf(bundle)}
	have, namespaces := map[string]*observed{}, &selection{others: map[string]bool{}}
	for i := range 10_000 {
		name := fmt.Sprint("ns-", i)
		namespaces.selected = append(namespaces.selected, name)
		have[name] = &observed{
			labelled: true, data: map[string]digest{"ca.crt": t.digest},
			owners: []owner{{signer: true, kind: signerKind, name: signer.Name, uid: signer.UID}},
		}
	}
	p := &Publisher{limit: maxPublication}
	for b.Loop() {
		writes, _ := planNamespaces(t, have, namespaces)
		if failures := p.each(b.Context(), writes, p.writeConfigMap); len(failures) > 0 {
			b.Fatal(failures)
		}
	}
}
