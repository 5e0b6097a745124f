// SPDX-License-Identifier: Apache-2.0

//go:build failpoint

package gitstore

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

var failpoints = []string{
	"pack.write", "pack.fsync", "pack.rename", "idx.fsync", "dir.fsync", "lock.create",
	"ref.write", "ref.fsync", "ref.rename", "ref.dirsync", "gc.mark", "gc.sweep",
}

// TestCrashChild writes until the failpoint kills it, and says what was acknowledged.
func TestCrashChild(t *testing.T) {
	dir := os.Getenv("CRASH_DIR")
	if dir == "" {
		t.Skip("run by TestKillAtEachFailpoint")
	}
	s, err := Open(dir, Options{Create: true, PackLimit: 3})
	if err != nil {
		fmt.Println("open:", err)
		os.Exit(3)
	}
	head, err := s.Resolve("refs/heads/main")
	if err != nil && !errors.Is(err, ErrNoRef) {
		fmt.Println("resolve:", err)
		os.Exit(3)
	}
	for range 12 {
		head = grow(t, s, head, 1)
		fmt.Println("ack", head)
		b := s.NewBatch()
		side := uniqueName() // one of an earlier life may be there
		b.Set(RefUpdate{Name: "refs/heads/side/" + side, New: head})
		b.Set(RefUpdate{Name: "refs/tags/" + side, New: head})
		if err := s.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		d := s.NewBatch()
		d.Set(RefUpdate{Name: "refs/heads/side/" + side, Old: head})
		d.Set(RefUpdate{Name: "refs/tags/" + side, Old: head})
		if err := s.Write(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKillAtEachFailpoint(t *testing.T) {
	for _, name := range failpoints {
		dir := filepath.Join(t.TempDir(), "repo.git")
		for _, n := range []int{1, 2, 5} {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=TestCrashChild$")
			cmd.Env = append(os.Environ(), "CRASH_DIR="+dir, fmt.Sprintf("PLUMBLINE_FP=%s:%d", name, n))
			out, err := cmd.CombinedOutput()
			ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if err == nil || !ok || ws.Signal() != syscall.SIGKILL {
				t.Errorf("%s:%d ended with %v, want SIGKILL\n%s", name, n, err, out)
				continue
			}
			checkAfterKill(t, fmt.Sprintf("%s:%d", name, n), dir, string(out))
		}
	}
}

func checkAfterKill(t *testing.T, what, dir, out string) {
	t.Helper()
	s, err := Open(dir, Options{Create: true, PackLimit: 3})
	if err != nil {
		t.Fatalf("%s: open after the kill: %v", what, err)
	}
	defer s.Close()
	fsck(t, s)
	var last Hash
	for line := range strings.Lines(out) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "ack "); ok {
			if last, err = ParseHash(id); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !last.IsZero() {
		head, err := s.Resolve("refs/heads/main")
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if ok, err := IsAncestor(t.Context(), s, last, head); err != nil || !ok {
			t.Errorf("%s: acknowledged commit %s is lost (%v)", what, last, err)
		}
	}
	var odd []string
	for _, pattern := range []string{"plumbline/locks/*", "plumbline/incoming/*", "plumbline/sweep", "objects/pack/*.keep", "objects/pack/*.tmp", "refs/heads/*.lock", "refs/*/*/*.lock", "*.lock"} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		odd = append(odd, names...)
	}
	if len(odd) > 0 {
		t.Errorf("%s: left behind: %v", what, odd)
	}
	if err := move(t, s, RefUpdate{Name: "refs/heads/probe-" + uniqueName(), New: last}); err != nil && !last.IsZero() {
		t.Errorf("%s: write after the kill: %v", what, err)
	}
}
