// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"

	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/sandbox/limits"
)

// Exit statuses of the process. Go uses exitPanic for errors that end a process.
const (
	exitError = 1
	exitPanic = 2
)

// cpuExceeded is the error of a process that used its CPU time.
const cpuExceeded = "CPU time limit exceeded"

// message is what the process writes: that the source compiled, or the result.
type message struct {
	Compiled bool                   `json:"compiled,omitempty"`
	Result   *evaluator.CheckResult `json:"result,omitempty"`
}

// init turns a process with this name into one that compiles and tests a source. It runs before main, and
// before the init functions of most other packages.
func init() {
	if len(os.Args) == 1 && os.Args[0] == limits.Limited {
		if err := process(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(exitError)
		}
		os.Exit(0)
	}
}

// process compiles and tests the source in stdin.
func process(stdin io.Reader, stdout io.Writer) error {
	exceeded := make(chan os.Signal, 1)
	signal.Notify(exceeded, limits.ExceedsCPU)
	go func() {
		<-exceeded
		fmt.Fprintln(os.Stderr, cpuExceeded)
		os.Exit(exitPanic)
	}()
	var source evaluator.Source
	if err := json.NewDecoder(stdin).Decode(&source); err != nil {
		return fmt.Errorf("reading the source: %w", err)
	}
	encoder := json.NewEncoder(stdout)
	result, err := evaluator.Check(context.Background(), source, func() error {
		if err := limits.EndCompile(); err != nil {
			return err
		}
		return encoder.Encode(message{Compiled: true})
	})
	if err != nil {
		return err
	}
	return encoder.Encode(message{Result: &result})
}
