// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"io/fs"
	"strings"
	"syscall"
	"testing"
)

// Callers learn that the disk refuses a write, the log learns where.
func TestStorageErrorKeepsPlacesToItself(t *testing.T) {
	var logged string
	r := &Repo{cfg: Config{Events: Events{Error: func(_ string, err error) { logged = err.Error() }}}}
	told := r.storageError(&fs.PathError{Op: "write", Path: "/srv/state/acme.git", Err: syscall.ENOSPC}).Error()
	if strings.Contains(told, "/srv") || !strings.Contains(told, "no space left on device") {
		t.Errorf("callers are told %q", told)
	}
	if !strings.Contains(logged, "/srv/state/acme.git") {
		t.Errorf("the log is told %q", logged)
	}
}
