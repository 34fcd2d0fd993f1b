// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/x509"
	"fmt"
	"time"
)

// Problem says why a CA cannot sign now. A cluster admin can mend it, so nothing that was
// asked of the CA may be refused for good because of it.
type Problem struct {
	// Reason is one of v1alpha1's condition reasons of a Signer.
	Reason string
	// Message says what is wrong and what to do. It holds nothing of the private key.
	Message string
}

// Error is the message.
func (p *Problem) Error() string { return p.Message }

func problemf(reason, format string, args ...any) *Problem {
	return &Problem{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// describe names a certificate in a message.
func describe(c *x509.Certificate) string {
	if name := c.Subject.String(); name != "" {
		return fmt.Sprintf("%q", name)
	}
	return fmt.Sprintf("with serial number %x", c.SerialNumber)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
