// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/x509"
	"fmt"
	"time"
)

// Problem is the reason why a CA cannot be used, a Signer does not issue, or a request is not issued. It is
// a verdict: it does not implement error, which means a retry. Requests never fail because of the Problem
// of a CA, since a cluster admin can resolve it.
type Problem struct {
	// Reason is a condition reason of a Signer in package v1alpha1, or a reason of package issuance.
	Reason string
	// Message states what is wrong and how to fix it. It contains no part of a private key.
	Message string
	// Transient is true if the CA could not be read, which does not mean that it was removed.
	Transient bool
}

// Problemf returns a Problem with a formatted message.
func Problemf(reason, format string, args ...any) *Problem {
	return &Problem{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// describe returns the name of a certificate for a message.
func describe(c *x509.Certificate) string {
	if name := c.Subject.String(); name != "" {
		return fmt.Sprintf("%q", name)
	}
	return fmt.Sprintf("with serial number %x", c.SerialNumber)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
