// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package tutorial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"countersign.dev/countersign/test/cluster"
)

// Run is what a TestMain does: it starts a control plane with kube-controller-manager, installs
// Countersign, calls prepare once both processes are ready, and then the tests, and stops everything. It
// returns the status to exit with; what goes wrong, and the ends of the logs if a test
// fails, it tells on standard error.
func Run(within time.Duration, prepare func(context.Context, *Installation) error, tests func() int) int {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	status, err := run(ctx, prepare, tests)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

func run(ctx context.Context, prepare func(context.Context, *Installation) error, tests func() int) (status int, err error) {
	c, err := cluster.Start(ctx, cluster.Options{Progress: os.Stderr, ControllerManager: true})
	if err != nil {
		return 1, fmt.Errorf("starting the control plane: %w", err)
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	installation, err := Install(ctx, c, os.Stderr)
	if err != nil {
		return 1, fmt.Errorf("installing: %w", err)
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
		return 1, fmt.Errorf("preparing: %w", err)
	}
	return tests(), nil
}
