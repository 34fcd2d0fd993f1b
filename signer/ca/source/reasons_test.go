// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/internal/watchset"
	"countersign.dev/countersign/signer/ca"
	"countersign.dev/countersign/signer/internal/signertest"
)

// TestReasons_examples compares the examples in the API documentation with the messages of this package.
func TestReasons_examples(t *testing.T) {
	const namespace, name = "countersign-system", "serving-ca"
	signer := &v1alpha1.Signer{}
	signer.Spec.CA.Managed = &v1alpha1.ManagedCA{SecretName: name}
	_, missing, _ := loadSecret(namespace, name, watchset.State[Secret]{Synced: true}, now)
	_, noDirectory, _ := NewFiles("", nil).load("serving", now)
	forbidden, _ := (&SecretWriter{Namespace: namespace}).explain(name, apierrors.NewForbidden(corev1.Resource("secrets"), name, errors.New("no")))
	produced := map[string]string{}
	for _, problem := range []*ca.Problem{missing, noDirectory, forbidden, checkOwnership(signer, Secret{Found: true, Type: corev1.SecretTypeTLS})} {
		produced[problem.Reason] = problem.Message
	}
	examples := signertest.SignerReasons(t)
	for _, reason := range signertest.SourceReasons {
		signertest.CheckExample(t, examples, reason, produced[reason])
	}
}
