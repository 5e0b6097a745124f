// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/connectsoft/plumbline/api"
	"github.com/connectsoft/plumbline/desired"
)

// The exit codes that no error class stands for. The others come from the one table in api/errors.go.
const (
	exitUsage       = 64
	exitConfig      = 78
	exitInterrupted = 130
)

// exitError is an error whose exit code is not that of its class.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usage says that the command line itself is wrong.
func usage(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// badConfig says that the configuration is wrong.
func badConfig(err error) error { return &exitError{exitConfig, err} }

// exitCode is the one mapping from an error to the exit code of the process.
func exitCode(ctx context.Context, err error) int {
	var own *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &own):
		return own.code
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return api.ExitCode(desired.ClassOf(err))
}

// report writes an error for a person: one sentence of what, where, why and what to do, and a line for each place.
func report(w io.Writer, err error) {
	var e *desired.Error
	if errors.As(err, &e) && len(e.Fields) > 0 {
		for _, f := range e.Fields {
			fmt.Fprintln(w, f)
		}
		if e.Err == nil {
			return
		}
	}
	for i, line := range strings.Split(err.Error(), "\n") {
		if i == 0 {
			line = "plumbline: " + line
		}
		fmt.Fprintln(w, line)
	}
}

// newExitCodesTopic is `plumbline help exit-codes`, printed from the table that decides.
func newExitCodesTopic() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What the exit code of a command means", Long: exitCodesText()}
}

func exitCodesText() string {
	classes := map[int][]string{}
	for _, row := range api.ErrorTable() {
		classes[row.Exit] = append(classes[row.Exit], string(row.Class))
	}
	rows := []struct {
		code int
		text string
	}{
		{0, "done"},
		{1, "failed"},
		{2, "differences or findings were found (where a verb says so)"},
		{exitUsage, "wrong usage: unknown command, flag or argument"},
		{69, "the server is unavailable"},
		{75, "try again later: rate limited, locked, or still waiting at the timeout"},
		{77, "not permitted"},
		{exitConfig, "bad configuration"},
		{exitInterrupted, "interrupted"},
	}
	var b strings.Builder
	b.WriteString("The exit code of every command, and the classes of errors that lead to it:\n\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "  %3d  %s", r.code, r.text)
		if c := classes[r.code]; len(c) > 0 {
			fmt.Fprintf(&b, " [%s]", strings.Join(c, ", "))
		}
		b.WriteString("\n")
	}
	b.WriteString("\nThe same classes on the other faces:\n\n  class       HTTP  gRPC                exit\n")
	for _, row := range api.ErrorTable() {
		fmt.Fprintf(&b, "  %-10s  %-4d  %-18s  %d\n", row.Class, row.Status, row.RPC, row.Exit)
	}
	return strings.TrimRight(b.String(), "\n")
}
