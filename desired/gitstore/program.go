// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/connectsoft/plumbline/desired"
)

// program is one run of the git program, for what we leave to it: serving clones, and merges. It sees nothing of
// our environment and of the machine's configuration.
type program struct {
	args   []string
	env    []string
	config [][2]string
	stdin  io.Reader
	stdout io.Writer
}

// cappedBuffer keeps the first bytes of what a program says about its failure.
type cappedBuffer struct{ bytes.Buffer }

func (b *cappedBuffer) Write(p []byte) (int, error) {
	if room := 4096 - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// run waits for a slot, runs the program and waits for its end. When ctx is done the program and its children are
// killed. code is its exit code; err is set when it could not run or was killed. What it said on stderr is returned
// for logs, not for clients.
func (s *Store) run(ctx context.Context, p program) (code int, stderr string, err error) {
	select {
	case s.programs <- struct{}{}:
		defer func() { <-s.programs }()
	case <-ctx.Done():
		return 0, "", ctx.Err()
	}
	path, err := exec.LookPath("git")
	if err != nil {
		return 0, "", desired.Errorf("run git", desired.Ref{}, desired.Stalled, "the git program is not installed: clone, fetch and merge need git 2.39 or newer: %w", err)
	}
	cmd := exec.CommandContext(ctx, path, p.args...)
	cmd.Dir = s.dir
	cmd.Env = p.environment(s.dir)
	cmd.Stdin, cmd.Stdout = p.stdin, p.stdout
	var says cappedBuffer
	cmd.Stderr = &says
	cmd.WaitDelay = 5 * time.Second
	ownGroup(cmd)
	err = cmd.Run()
	if ctx.Err() != nil {
		return 0, says.String(), ctx.Err()
	}
	if cmd.ProcessState != nil && cmd.ProcessState.Exited() && cmd.ProcessState.ExitCode() != 0 {
		return cmd.ProcessState.ExitCode(), says.String(), nil
	}
	return 0, says.String(), err
}

func (p *program) environment(dir string) []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=/nonexistent",
		"LC_ALL=C",
		"GIT_CONFIG_NOSYSTEM=1",
		"GIT_CONFIG_GLOBAL=" + os.DevNull,
		"GIT_TERMINAL_PROMPT=0",
		"GIT_OPTIONAL_LOCKS=0",
		"GIT_NO_LAZY_FETCH=1",
		"GIT_NO_REPLACE_OBJECTS=1", // our own reader knows none either
	}
	config := append([][2]string{{"safe.directory", dir}, {"core.fsmonitor", "false"}, {"core.hooksPath", os.DevNull}, {"gc.auto", "0"}}, p.config...)
	env = append(env, fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(config)))
	for i, kv := range config {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, kv[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, kv[1]))
	}
	return append(env, p.env...)
}
