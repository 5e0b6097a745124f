// SPDX-License-Identifier: Apache-2.0

//go:build unix

package gitstore

import (
	"os/exec"
	"syscall"
)

// ownGroup makes cancelling kill the program's children too: upload-pack leaves the work to pack-objects.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
