// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 is version v1alpha1 of the API group countersign.dev.
//
// It has two cluster-scoped resources. An [ApprovalPolicy] says by which Rego
// a CertificateSigningRequest is approved or denied. A [Signer] says with which
// CA, and within which limits, what was approved is issued. Neither refers to
// the other: they meet only in the signerName of a request, so that the two can
// be installed, and trusted, apart.
//
// +kubebuilder:object:generate=true
// +groupName=countersign.dev
package v1alpha1
