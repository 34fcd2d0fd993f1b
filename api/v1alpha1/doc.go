// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 is version v1alpha1 of the API group countersign.dev.
//
// It has two cluster-scoped resources. An [ApprovalPolicy] decides with Rego which
// CertificateSigningRequests are approved and which are denied. A [Signer] signs approved requests
// with a CA, within the limits of its profile. The two do not refer to each other. Both match
// requests by signerName, so that each can be installed and trusted separately.
//
// kubectl explain prints the comments of types and fields. They begin with the
// JSON field name, and their lines have at most 76 characters, which it does
// not wrap.
//
// +kubebuilder:object:generate=true
// +groupName=countersign.dev
package v1alpha1
