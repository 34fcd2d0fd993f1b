// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"countersign.dev/countersign/test/cluster"
)

// Main is the TestMain of a package whose tests share one installation. It starts a control plane with
// kube-controller-manager, installs Countersign, calls prepare when approver and signer are ready, runs the tests,
// stops everything and exits. If a test fails, it prints the ends of both logs.
func Main(m *testing.M, timeout time.Duration, prepare func(context.Context, *Installation) error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	status, err := runTests(ctx, m, prepare)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func runTests(ctx context.Context, m *testing.M, prepare func(context.Context, *Installation) error) (status int, err error) {
	c, err := cluster.Start(ctx, cluster.Options{Progress: os.Stderr, ControllerManager: true})
	if err != nil {
		return 1, fmt.Errorf("starting the control plane: %w", err)
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	installation, err := Install(ctx, c, os.Stderr)
	if err != nil {
		return 1, fmt.Errorf("installing Countersign: %w", err)
	}
	defer func() {
		if err != nil || status != 0 {
			fmt.Fprintf(os.Stderr, "approver:\n%s\nsigner:\n%s\n", installation.Approver.Tail(), installation.Signer.Tail())
		}
		err = errors.Join(err, installation.Stop())
	}()
	if err := errors.Join(installation.Approver.Ready(ctx), installation.Signer.Ready(ctx)); err != nil {
		return 1, err
	}
	if err := prepare(ctx, installation); err != nil {
		return 1, fmt.Errorf("preparing the tests: %w", err)
	}
	return m.Run(), nil
}
