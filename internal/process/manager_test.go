// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"testing"
	"time"

	"k8s.io/client-go/tools/leaderelection"
)

// TestLeaderElection checks the longest time from the kill of a leader until a standby replica leads, and the limits
// that client-go requires.
func TestLeaderElection(t *testing.T) {
	longestWait := time.Duration((1 + leaderelection.JitterFactor) * float64(retryPeriod))
	// The standby reads the last renewal late by up to one wait, and the expiry by another.
	if takeover := leaseDuration + 2*longestWait; takeover > 7500*time.Millisecond {
		t.Errorf("a killed leader is replaced within %v, want at most 7.5s, which leaves 0.5s for the first certificate", takeover)
	}
	if leaseDuration <= renewDeadline || renewDeadline <= longestWait || leaseDuration%time.Second != 0 {
		t.Errorf("client-go does not accept a Lease of %v with renewals in %v every %v", leaseDuration, renewDeadline, retryPeriod)
	}
}
