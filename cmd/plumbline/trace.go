// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/connectsoft/plumbline/api"
)

func newTraceCommand(c *connection) *cobra.Command {
	var output, project string
	cmd := &cobra.Command{
		Use: "trace REF|ID", Short: "Say why a resource is as it is: commit, author, line, state, findings", Args: exactly("REF|ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			id, _, err := resolve(args[0], c.tenant, project)
			if err != nil {
				return err
			}
			r, err := c.rest()
			if err != nil {
				return err
			}
			var res api.Resource
			if err := r.get(cmd.Context(), "/resources/"+url.PathEscape(id), nil, &res); err != nil {
				return err
			}
			query := url.Values{"resourceId": {res.ID}, "open": {"all"}}
			findings, err := listAll[api.Finding](cmd.Context(), r, "/findings", query)
			if err != nil {
				return err
			}
			switch output {
			case "name":
				fmt.Fprintln(c.sh.stdout, res.Ref)
				return nil
			case "table":
				return writeTrace(c.sh.stdout, res, findings, time.Now())
			}
			return writeObject(c.sh.stdout, output, map[string]any{"resource": res, "findings": findings})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", outputs)
	cmd.Flags().StringVar(&project, "project", "", "project of a ref that names none")
	return cmd
}

// writeTrace prints one resource from the line that wants it to what was seen outside.
func writeTrace(w io.Writer, r api.Resource, findings []api.Finding, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s:\t%s\n", name, oneLine(value))
		}
	}
	line("Resource", r.Ref+" ("+r.ID+")")
	place := r.Source.Path
	if place != "" && r.Source.Line > 0 {
		place += fmt.Sprintf(":%d", r.Source.Line)
	}
	line("Wanted by", place)
	line("Commit", withSeq(r.Source.Commit, r.Source.Seq))
	line("Author", r.Source.Author)
	line("Caller", r.Source.Principal)
	if !r.Source.At.IsZero() {
		line("Changed", r.Source.At.UTC().Format(time.RFC3339)+" ("+age(now, r.Source.At)+" ago)")
	}
	line("Phase", withReason(r.Sync.Phase, r.Sync.Reason))
	line("Message", r.Sync.Message)
	line("Desired", withSeq(r.Sync.DesiredCommit, r.Sync.DesiredSeq))
	line("Applied", withSeq(r.Sync.AppliedCommit, r.Sync.AppliedSeq))
	if len(r.Outputs) > 0 {
		line("Observed", string(r.Outputs))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(findings) == 0 {
		_, err := fmt.Fprintln(w, "Findings: none")
		return err
	}
	fmt.Fprintln(w, "Findings:")
	return writeFindingTable(w, findings, now)
}

func withSeq(commit string, seq uint64) string {
	if commit == "" || seq == 0 {
		return commit
	}
	return fmt.Sprintf("%s (seq %d)", commit, seq)
}

func withReason(phase, reason string) string {
	if reason == "" || reason == phase {
		return phase
	}
	return phase + " (" + reason + ")"
}
