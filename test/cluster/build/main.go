// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Command build builds the binaries of the control plane that are missing and prints their directory.
//
// It builds etcd, kube-apiserver and kubectl first, which the demo needs. Without arguments it then builds
// kube-controller-manager, which only tests need. Arguments name the binaries to build in addition to the first three:
// "build kubectl" builds no more than these.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"countersign.dev/countersign/test/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	dir, err := build(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(dir)
}

func build(ctx context.Context, names []string) (string, error) {
	if len(names) == 0 {
		names = []string{cluster.ControllerManager}
	}
	if _, err := cluster.Binaries(ctx, os.Stderr); err != nil { // first, so that a demo can start
		return "", err
	}
	return cluster.Binaries(ctx, os.Stderr, names...)
}
