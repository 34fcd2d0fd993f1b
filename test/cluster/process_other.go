// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package cluster

import "os/exec"

// detach does nothing where the kernel cannot kill a process with its parent. Stop ends it, or an interrupt from the
// terminal.
func detach(*exec.Cmd) {}
