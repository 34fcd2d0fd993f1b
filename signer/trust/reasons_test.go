// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"fmt"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/signer/internal/signertest"
)

// TestReasons_examples compares the examples in the API documentation with the messages of this package.
func TestReasons_examples(t *testing.T) {
	var namespaces []client.Object
	for i := range 12 {
		namespaces = append(namespaces, namespace(fmt.Sprintf("ns-%d", i), "a"))
	}
	p, _ := start(t, newAPI(t, namespaces...))
	produced := map[string]string{"Published": publish(t, p, newSigner(true), bundle).Message}
	examples := signertest.SignerReasons(t)
	for _, reason := range signertest.TrustReasons {
		signertest.CheckExample(t, examples, reason, produced[reason])
	}
}
