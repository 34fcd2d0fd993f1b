// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package cluster runs a real control plane, built from source, for tests and the demo.
//
// [Binaries] builds etcd, kube-apiserver, kube-controller-manager and kubectl from the nested
// module test/controlplane, once per machine and version. [Start] runs them on loopback with
// RBAC on. There is no kubelet: the package acts as one, giving Pods their status, and mints
// tokens bound to Pods, so that requests carry what they would carry in a cluster.
//
// The processes are run here and not by controller-runtime's envtest, because the API server
// must be able to stop and start again with the same port, certificates and data.
package cluster
