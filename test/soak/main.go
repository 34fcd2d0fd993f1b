// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Command soak attacks Countersign with the rights of three users for ten minutes, and checks that it
// continues to serve an honest request every second.
//
// It starts etcd and kube-apiserver, and installs approver, signer and webhook as deploy/ ships them.
// Each process gets the environment and the memory limit of its container in
// deploy/base/<name>/deployment.yaml. The limit is that of a cgroup of its own (v1 or v2). Where no
// cgroup can be created, it is RLIMIT_DATA, set with prlimit, and the table says so.
//
// The users run their attacks concurrently. Each user runs one attack at a time, for the duration -slot. The objects of an attack stay in the cluster, within bounds.
//
//   - The namespace editor has the rights of the role "edit" in one namespace: Services, Pods and tokens
//     of ServiceAccounts. The soak plays the kubelet, which gives some of the Pods addresses.
//   - The requester can create CertificateSigningRequests, and has no other right. It also holds
//     tokens of the editor's Pods. The soak plays the cleaner of kube-controller-manager: it deletes the
//     oldest requests of an attack above 500 MB or 5,000 in total, sooner than after an hour, because etcd
//     would be full otherwise.
//   - The policy author can create, read and update ApprovalPolicies. Its policies match the signers of its own
//     domain only. A policy can only narrow what is allowed, so an author can stop the requests for any signer
//     with a policy that denies all of them. That is its right, not an attack.
//
// The honest requester is a Pod in another namespace. It creates one request a second for the shipped
// policy pod-serving with a token that is bound to it. Each must be issued within the time -within.
// Beside it, an update of a ConfigMap measures the API server alone, which shares the machine with the load.
//
// The exit status is 0 if no process ended, none failed its liveness probe as a kubelet counts, none ran out of
// memory, and each honest request was issued in time. It is 1 otherwise. A process that ends is started
// again, so that the rest of the run shows what else fails.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// settings of a run.
type settings struct {
	duration, warmup, slot, within time.Duration
	// intensity scales the rates of all attacks, and below 1 the sizes of their objects.
	intensity float64
	// once ends the soak when each attack had one slot.
	once bool
	// only has the names of the attacks to run, all if it is empty.
	only []string
	// dir keeps the data and the logs of the control plane, a temporary directory if it is empty.
	dir string
}

var full = settings{duration: 10 * time.Minute, warmup: 15 * time.Second, slot: 20 * time.Second, within: 5 * time.Second, intensity: 1}

// errFailed is the error of a run that has a result, which is not the desired one.
var errFailed = errors.New("the soak failed: see the table")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	s, fs := full, flag.NewFlagSet("soak", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), "Attacks Countersign with the rights of a namespace editor, a requester and a policy author, and checks\n"+
			"that honest requests are issued in time. The exit status is 1 if they are not, or if a process ends.\n\n")
		fs.PrintDefaults()
		fmt.Fprintf(fs.Output(), "\nAttacks: %s\n", strings.Join(attackNames(), ", "))
	}
	fs.DurationVar(&s.duration, "duration", s.duration, "`time` of the attacks.")
	fs.DurationVar(&s.warmup, "warmup", s.warmup, "`time` of honest requests alone, before the attacks.")
	fs.DurationVar(&s.slot, "slot", s.slot, "`time` after which each user begins its next attack.")
	fs.DurationVar(&s.within, "within", s.within, "longest `time` until an honest request is issued.")
	fs.Float64Var(&s.intensity, "intensity", s.intensity, "`factor` of the rates of all attacks, and below 1 of the sizes of their objects.")
	fs.StringVar(&s.dir, "dir", "", "`folder` that keeps data and logs of the control plane. Default a temporary one.")
	fs.Func("only", "`names` of the attacks to run, separated by commas. Default all.", func(text string) error {
		s.only = strings.Split(text, ",")
		return nil
	})
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: use flags", fs.Arg(0))
	}
	if s.duration <= 0 || s.warmup < 0 || s.slot <= 0 || s.within <= 0 || s.intensity <= 0 {
		return errors.New("duration, slot, within and intensity must be above 0, and warmup not below")
	}
	r, err := run(ctx, s, os.Stdout)
	if r == nil {
		return err
	}
	r.print(os.Stdout)
	if len(r.problems()) > 0 {
		err = errors.Join(err, errFailed)
	}
	return err
}
