// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the test binary be plumbline when it is run under that name.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"plumbline": main})
}

// TestScripts plays the sessions of testdata/script against the real program.
func TestScripts(t *testing.T) {
	update := os.Getenv("UPDATE_SCRIPTS") != ""
	testscript.Run(t, testscript.Params{
		Dir: "../../testdata/script", RequireExplicitExec: true, RequireUniqueNames: true, UpdateScripts: update,
		Setup: setupScript,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"appears": cmdAppears,
			"capture": cmdCapture,
			"exits":   cmdExits,
			"mode":    cmdMode,
		},
	})
}

// setupScript gives a session a home of its own and a git that knows nobody.
func setupScript(e *testscript.Env) error {
	home := filepath.Join(e.WorkDir, ".home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	gitConfig := "[user]\n\tname = Alice\n\temail = alice@example.org\n[init]\n\tdefaultBranch = main\n[advice]\n\tdetachedHead = false\n"
	if err := os.WriteFile(filepath.Join(home, "gitconfig"), []byte(gitConfig), 0o600); err != nil {
		return err
	}
	e.Setenv("HOME", home)
	e.Setenv("USER", "alice")
	e.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(home, "gitconfig"))
	e.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	e.Setenv("GIT_TERMINAL_PROMPT", "0")
	e.Setenv("STATE", filepath.Join(e.WorkDir, "state"))
	return nil
}

// cmdAppears waits until a file is there, and with further arguments until it holds each of them: a daemon in the
// background says so when it is ready, a watcher writes line after line.
func cmdAppears(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: appears FILE [TEXT...]")
	}
	path := ts.MkAbs(args[0])
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		data, err := os.ReadFile(path)
		missing := ""
		for _, text := range args[1:] {
			if !strings.Contains(string(data), text) {
				missing = text
			}
		}
		if err == nil && missing == "" {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s: %q did not appear in 20 s; it holds:\n%s", args[0], missing, data)
		}
	}
}

// cmdCapture puts the trimmed content of a file (stdout of the last command by default) into a variable.
func cmdCapture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: capture NAME [FILE]")
	}
	file := "stdout"
	if len(args) == 2 {
		file = args[1]
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(file)))
}

// cmdMode compares the permission bits of files.
func cmdMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: mode BITS FILE...")
	}
	for _, f := range args[1:] {
		info, err := os.Stat(ts.MkAbs(f))
		ts.Check(err)
		if got := info.Mode().Perm().String(); got != args[0] {
			ts.Fatalf("%s: mode %s, want %s", f, got, args[0])
		}
	}
}

// cmdExits runs a command, with the stdin that was set, and wants an exit code; its output is not looked at.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	switch {
	case args[0] == "0" && err == nil:
	case !errors.As(err, &exit):
		ts.Fatalf("got %v, want exit code %s", err, args[0])
	case strconv.Itoa(exit.ExitCode()) != args[0]:
		ts.Fatalf("exit code %d, want %s", exit.ExitCode(), args[0])
	}
}
