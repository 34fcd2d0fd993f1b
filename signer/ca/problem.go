// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/x509"
	"fmt"
	"time"
)

// Problem is the reason why a Signer does not issue or a CA cannot be used. A cluster admin can resolve it:
// no request is failed because of a Problem.
type Problem struct {
	// Reason is one of the condition reasons of a Signer in package v1alpha1.
	Reason string
	// Message states what is wrong and how to fix it. It contains no part of a private key.
	Message string
}

// Error returns the message.
func (p *Problem) Error() string { return p.Message }

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
