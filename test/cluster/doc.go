// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package cluster runs a real control plane for tests and the demo.
//
// [Binaries] finds etcd, kube-apiserver and kubectl, and kube-controller-manager for tests that use it. It builds those
// that are missing from the nested module test/controlplane, once per machine and version. [Start] runs them on loopback
// with RBAC. The package acts as the kubelet: it sets the status of Pods and issues tokens that are bound to them, so that
// requests have the same identity as in a cluster.
//
// controller-runtime's envtest is not used, because tests restart the API server with the same port, certificates and
// data.
package cluster
