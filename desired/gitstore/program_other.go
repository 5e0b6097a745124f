// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package gitstore

import "os/exec"

// ownGroup does nothing where there are no process groups: the program's children end when their pipes close.
func ownGroup(*exec.Cmd) {}
