// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// shell is what a command sees of the world around it.
type shell struct {
	stdin    io.Reader
	stdout   io.Writer // data, and nothing else
	stderr   io.Writer // everything else
	environ  []string
	terminal bool // stdout is one
}

func processShell() *shell {
	info, err := os.Stdout.Stat()
	return &shell{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ(),
		terminal: err == nil && info.Mode()&os.ModeCharDevice != 0,
	}
}

// getenv reads a variable of the shell, "" when it is not set.
func (sh *shell) getenv(key string) string { return environment(sh.environ)[key] }

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, sh *shell) int {
	root := newRootCommand(sh)
	root.SetArgs(args)
	root.SetIn(sh.stdin)
	root.SetOut(sh.stdout)
	root.SetErr(sh.stderr)
	err := root.ExecuteContext(ctx)
	code := exitCode(ctx, err)
	if code != 0 && code != exitInterrupted {
		report(sh.stderr, err)
	}
	return code
}

// newRootCommand puts the verbs together.
func newRootCommand(sh *shell) *cobra.Command {
	root := &cobra.Command{
		Use:   "plumbline",
		Short: "Keep a software factory in the state that git says it is in",
		Long: `Plumbline keeps the desired state of repositories, branches, authored commits and pull requests as YAML in git,
one control repository per tenant, and moves the world towards it. "plumbline serve" runs the daemon; the other
verbs talk to one. Data goes to stdout, everything else to stderr.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
		Args:              noSuchCommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%w; see %s --help", err, cmd.CommandPath())
	})
	c := newConnection(root, sh)
	root.AddGroup(
		&cobra.Group{ID: "daemon", Title: "The daemon:"},
		&cobra.Group{ID: "look", Title: "Look:"},
		&cobra.Group{ID: "act", Title: "Act:"},
		&cobra.Group{ID: "author", Title: "Write documents:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, cmd := range cmds {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	add("daemon", newServeCommand(sh), newTokenCommand(c), newConfigCommand(sh), newDemoCommand(sh))
	add("look", newGetCommand(c), newWatchCommand(c), newTraceCommand(c), newExplainCommand(c),
		newHistoryCommand(c), newTreeCommand(c), newDiffCommand(c))
	add("act", newApplyCommand(c), newWaitCommand(c), newReconcileCommand(c), newSuspendCommand(c), newResumeCommand(c))
	add("author", newValidateCommand(sh), newSchemaCommand(sh))
	root.AddCommand(newVersionCommand(sh), newExitCodesTopic())
	return root
}

// noSuchCommand refuses what stands where a verb should, with the nearest one.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	hint := "see plumbline --help"
	if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
		hint = "did you mean " + strings.Join(s, " or ") + "?"
	}
	return usage("unknown command %q; %s", args[0], hint)
}

// exactly wants n arguments and names them.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		return usage("%s takes %s, got %d arguments; usage: %s", cmd.CommandPath(), orNothing(names), len(args), cmd.UseLine())
	}
}

// between wants from min to max arguments; max < 0 is any number.
func between(min, max int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= min && (max < 0 || len(args) <= max) {
			return nil
		}
		return usage("wrong number of arguments (%d); usage: %s", len(args), cmd.UseLine())
	}
}

func orNothing(names []string) string {
	if len(names) == 0 {
		return "no argument"
	}
	return strings.Join(names, " and ")
}

func newVersionCommand(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this binary", Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(sh.stdout, "plumbline "+version)
			return err
		},
	}
}
