// SPDX-License-Identifier: Apache-2.0

//go:build failpoint

package fp

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]struct {
		name string
		n    int64
	}{
		"":             {"", 1},
		"ref.rename":   {"ref.rename", 1},
		"ref.rename:3": {"ref.rename", 3},
		"ref.rename:x": {"", 0},
		"ref.rename:0": {"", 0},
	} {
		name, n := parse(in)
		if name != want.name || n != want.n {
			t.Errorf("parse(%q): got %q, %d, want %q, %d", in, name, n, want.name, want.n)
		}
	}
}

func TestHitKillsAtTheNthHit(t *testing.T) {
	if os.Getenv("FP_TEST_CHILD") != "" {
		Hit("a")
		Hit("b")
		os.Stdout.WriteString("between\n")
		Hit("b")
		os.Stdout.WriteString("survived\n")
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=TestHitKillsAtTheNthHit$")
	cmd.Env = append(os.Environ(), "FP_TEST_CHILD=1", "PLUMBLINE_FP=b:2")
	out, err := cmd.Output()
	ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if err == nil || !ok || ws.Signal() != syscall.SIGKILL {
		t.Fatalf("child ended with %v, want SIGKILL; output %q", err, out)
	}
	if string(out) != "between\n" {
		t.Errorf("child printed %q, want only what comes before the second hit", out)
	}
}
